"""Makes text from records safe to show: no control characters, limited length.

A record's text is shown on terminals, in files and in tables. A line break or an escape sequence in it could look like
another record, so such characters are escaped (`\\n`, `\\x1b`).
"""

import re

from foretell.services.monitoring.storage.rows import utf8_length

#: C0 and C1 controls (NUL among them, which PostgreSQL can't store), line and paragraph separators, and the marks
#: that change the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

#: Longer messages are cut; in bytes of UTF-8.
MAX_MESSAGE_BYTES = 16 * 1024
#: The longest name of a service, instance or metric, in characters.
MAX_NAME = 200


def visible(text: str) -> str:
    """`text` with escapes in place of control characters."""
    # A fast check, since most texts have no control characters.
    return text if text.isprintable() else _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _NAMED:
        return _NAMED[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def json_visible(text: str) -> str:
    """JSON `text` with visible escapes in place of control characters that JSON allows."""
    if text.isascii() and "\x7f" not in text:
        return text
    # The visible backslash must be escaped in JSON.
    return _CONTROLS.sub(lambda match: "\\" + _escape(match), text)


def message_of(text: str) -> str:
    """A message as it is stored: without control characters, and cut with a mark that has its length."""
    # No character takes more than four bytes.
    if len(text) * 4 <= MAX_MESSAGE_BYTES:
        return visible(text)
    size = utf8_length(text)
    shown = visible(text[:MAX_MESSAGE_BYTES])
    if size <= MAX_MESSAGE_BYTES and utf8_length(shown) <= MAX_MESSAGE_BYTES:
        return shown
    # An incomplete character at the end is dropped.
    kept = shown.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    return f"{kept} …[cut: the message had {size} bytes]"


class Names:
    """Checks names, and caches the results, because there are few names and each is frequent."""

    def __init__(self, *, remembered: int = 10_000) -> None:
        self._good: set[str] = set()
        self._remembered = remembered

    def fault(self, name: str) -> str | None:
        """What is wrong with `name`, or None."""
        if name in self._good:
            return None
        if not name or name.isspace():
            return "must not be empty"
        if len(name) > MAX_NAME:
            return f"must have at most {MAX_NAME} characters"
        if not name.isprintable():
            return "must not have control characters"
        if len(self._good) < self._remembered:
            self._good.add(name)
        return None
