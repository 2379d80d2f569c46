"""Parses the rows of a large JSON body in parts.

As Python values rows are several times as large as their JSON, and Python returns the memory of small objects to the
system only in whole MiB that no object uses any more. So of a large body only some rows are values at a time.

Every function raises `MalformedBody` for what is no JSON, is not in UTF-8 or is nested too deep.
"""

from typing import Any

import msgspec

from foretell.kit.asgi import Body
from foretell.kit.problems import MalformedBody

#: Smaller bodies are parsed at once.
LARGE_BYTES = 64 * 1024

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_whole(content: Body | msgspec.Raw) -> Any:
    """Decode JSON, all of it."""
    try:
        return _decode(content)
    except _UNREADABLE:
        raise MalformedBody from None


def decode_outside(content: Body | msgspec.Raw) -> Any:
    """Decode JSON; if it is a list, its items stay JSON, for `decode_rows`."""
    try:
        return _decode_list(content)
    except msgspec.ValidationError:
        return decode_whole(content)
    except _UNREADABLE:
        raise MalformedBody from None


def decode_fields(content: Body) -> dict[str, msgspec.Raw] | None:
    """The fields of an object, still as JSON; None if `content` is another value."""
    try:
        return _decode_fields(content)
    except msgspec.ValidationError:
        return None
    except _UNREADABLE:
        raise MalformedBody from None


def decode_rows(rows: list[Any]) -> list[Any]:
    """Some rows as values, which they may already be."""
    if not rows or type(rows[0]) is not msgspec.Raw:
        return rows
    # Texts in rows have not been decoded before.
    values: list[Any] = decode_whole(b"".join((b"[", b",".join(rows), b"]")))
    return values
