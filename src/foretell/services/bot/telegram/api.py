"""Calls of the Bot API, and its errors. The token is part of every URL, so no error or log line may contain a URL."""

import logging
from typing import Any

import httpx
import msgspec
from msgspec import Raw, Struct

from foretell.kit.errors import ForetellError

_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
#: Concurrent calls, besides the one that polls for updates.
_CONNECTIONS = 48


class TelegramError(ForetellError):
    """Telegram refused a call: {reason}"""

    code = "telegram_refused"


class TelegramAway(TelegramError):
    """Telegram does not answer: {reason}"""

    code = "telegram_away"


class TokenRefused(TelegramError):
    """Telegram does not know this TELEGRAM_TOKEN. Take the one that @BotFather shows."""

    code = "telegram_token_refused"


class TooManyMessages(TelegramError):
    """Telegram wants to hear nothing for {wait_s} s."""

    code = "telegram_too_many"


class Blocked(TelegramError):
    """This chat takes no messages from us: {reason}"""

    code = "telegram_blocked"


class OtherPoller(TelegramError):
    """Another program takes the updates of this bot: {reason}"""

    code = "telegram_conflict"


class _Parameters(Struct):
    retry_after: float | None = None


class _Answer(Struct):
    ok: bool
    result: Raw = Raw(b"null")
    error_code: int = 0
    description: str = ""
    parameters: _Parameters | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class BotApi:
    """One bot at one Bot API server. For one event loop."""

    def __init__(self, base_url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`base_url` is `https://api.telegram.org`, or a self-hosted server."""
        for name in ("httpx", "httpcore"):
            # These loggers write whole URLs.
            logging.getLogger(name).setLevel(logging.WARNING)
        self._token = token
        self._base = f"{base_url.rstrip('/')}/bot{token}"
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, method: str, *, wait_s: float = 0.0, **parameters: Any) -> bytes:
        """The result of one call, as JSON. `wait_s` is added to the usual timeout.

        Raises `TelegramAway`, `TokenRefused`, `TooManyMessages`, `Blocked`, `OtherPoller`, else `TelegramError`.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        timeout = httpx.Timeout(_TIMEOUT_S + wait_s, connect=_CONNECT_TIMEOUT_S)
        try:
            response = await self._http.post(
                f"{self._base}/{method}",
                content=msgspec.json.encode(given),
                headers={"Content-Type": "application/json"},
                timeout=timeout,
            )
            answer = _decode(response.content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TelegramAway(reason=self._without_token(str(error) or type(error).__name__)) from None
        except msgspec.MsgspecError:
            raise TelegramAway(reason=f"status {response.status_code}, and no answer of a Bot API") from None
        if answer.ok:
            return bytes(answer.result)
        raise self._error(answer)

    def _error(self, answer: _Answer) -> TelegramError:
        reason = self._without_token(answer.description)
        if answer.error_code == 429:
            asked = answer.parameters.retry_after if answer.parameters else None
            wait_s = 1.0 if asked is None else float(asked)
            return TooManyMessages(retry_after_s=wait_s, wait_s=f"{wait_s:g}")
        if answer.error_code in (401, 404):
            return TokenRefused()
        if answer.error_code == 403:
            return Blocked(reason=reason)
        if answer.error_code == 409:
            return OtherPoller(reason=reason)
        if answer.error_code >= 500:
            return TelegramAway(reason=reason or f"status {answer.error_code}")
        return TelegramError(reason=reason)

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "TOKEN")


def changes_nothing(error: TelegramError) -> bool:
    """Whether an edit was refused because the message already has this content."""
    return "message is not modified" in error.message


def cannot_be_edited(error: TelegramError) -> bool:
    """Whether the message to edit is gone, or too old."""
    return any(
        words in error.message for words in ("message to edit not found", "can't be edited", "MESSAGE_ID_INVALID")
    )
