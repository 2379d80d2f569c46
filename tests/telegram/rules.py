"""What the Bot API says of a message before it takes it, as its documentation has it."""

import json
from html.parser import HTMLParser
from typing import Any

_TAGS = frozenset({"b", "strong", "i", "em", "u", "s", "code", "pre", "a", "blockquote", "tg-spoiler"})
_LONGEST_TEXT = 4096
_MOST_BUTTON_BYTES = 64
_MOST_BUTTONS = 100


class Refusal(Exception):
    """A call that is refused."""

    def __init__(self, code: int, description: str, **parameters: Any) -> None:
        super().__init__(description)
        self.code = code
        self.answer: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
        if parameters:
            self.answer["parameters"] = parameters


def bad(description: str) -> Refusal:
    """A 400."""
    return Refusal(400, f"Bad Request: {description}")


class _Entities(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag not in _TAGS:
            raise bad(f'can\'t parse entities: Unsupported start tag "{tag}"')
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            raise bad("can't parse entities: Unmatched end tag")

    def handle_data(self, data: str) -> None:
        self.text += data

    def close(self) -> None:
        super().close()
        if self._open:
            raise bad(f"can't parse entities: Can't find end tag corresponding to start tag \"{self._open[-1]}\"")


def shown(text: Any, parse_mode: str | None) -> str:
    """The text as a person sees it."""
    if not isinstance(text, str) or not text.strip():
        raise bad("message text is empty")
    if parse_mode == "HTML":
        entities = _Entities()
        entities.feed(text)
        entities.close()
        text = entities.text
    if len(text.encode("utf-16-le")) // 2 > _LONGEST_TEXT:
        raise bad("message is too long")
    return text


def keyboard(markup: Any) -> list[list[dict[str, Any]]]:
    """The inline keyboard of a message."""
    rows = (json.loads(markup) if isinstance(markup, str) else markup or {}).get("inline_keyboard", [])
    for button in (each for row in rows for each in row):
        if not button.get("text"):
            raise bad("can't parse inline keyboard button: Text buttons must have text")
        if "callback_data" in button and not 1 <= len(button["callback_data"].encode()) <= _MOST_BUTTON_BYTES:
            raise bad("BUTTON_DATA_INVALID")
        if not button.keys() & {"callback_data", "url", "pay"}:
            raise bad("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    if sum(map(len, rows)) > _MOST_BUTTONS:
        raise bad("REPLY_MARKUP_TOO_LONG")
    return rows


def check_invoice(given: dict[str, Any]) -> None:
    """An invoice in stars."""
    if not 1 <= len(given.get("title", "")) <= 32:
        raise bad("invoice title is invalid")
    if not 1 <= len(given.get("description", "")) <= 255:
        raise bad("invoice description is invalid")
    if not 1 <= len(given.get("payload", "").encode()) <= 128:
        raise bad("INVOICE_PAYLOAD_INVALID")
    if given.get("currency") != "XTR":
        raise bad("CURRENCY_INVALID")
    if given.get("provider_token"):
        raise bad("PROVIDER_TOKEN_INVALID")
    prices = given.get("prices", [])
    if len(prices) != 1 or not isinstance(prices[0].get("amount"), int) or prices[0]["amount"] < 1:
        raise bad("STARS_INVOICE_INVALID")
