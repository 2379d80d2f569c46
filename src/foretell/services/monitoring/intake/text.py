"""What others wrote, made fit to be shown: nothing invisible, nothing endless.

A record's text ends up on terminals, in files and in tables. A line break or an escape sequence in it could pass for
another record, so such characters are shown as what they are (`\\n`, `\\x1b`).
"""

import re

from foretell.services.monitoring.storage.rows import utf8_length

#: C0 and C1 controls (NUL among them, which PostgreSQL can't store), line and paragraph separators, and the marks
#: that change the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

#: How much of a message is kept, in bytes of UTF-8.
MAX_MESSAGE_BYTES = 16 * 1024
#: Names of services, instances, metrics: no longer than this, in characters.
MAX_NAME = 200


def visible(text: str) -> str:
    """`text` with escapes in place of control characters."""
    # By far the most texts have none, and this asks quickly.
    return text if text.isprintable() else _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _NAMED:
        return _NAMED[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def json_visible(text: str) -> str:
    """JSON `text` with visible escapes in place of control characters that JSON itself lets pass."""
    if text.isascii() and "\x7f" not in text:
        return text
    # What is shown is a backslash, which JSON writes twice.
    return _CONTROLS.sub(lambda match: "\\" + _escape(match), text)


def message_of(text: str) -> str:
    """A message as it is kept: visible, and cut with a mark that says how long it was."""
    # No character takes more than four bytes.
    if len(text) * 4 <= MAX_MESSAGE_BYTES:
        return visible(text)
    size = utf8_length(text)
    shown = visible(text[:MAX_MESSAGE_BYTES])
    if size <= MAX_MESSAGE_BYTES and utf8_length(shown) <= MAX_MESSAGE_BYTES:
        return shown
    # Half a character at the end is left out.
    kept = shown.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    return f"{kept} …[cut: the message had {size} bytes]"


class Names:
    """Remembers which names are fit to be used: there are few, and each comes again and again."""

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
