"""Parses the rows of a large JSON body in parts.

As Python values rows are several times as large as their JSON, and Python returns the memory of small objects to the
system only in whole MiB that no object uses any more. So of a large body only some rows are values at a time.
"""

from typing import Any

import msgspec

from foretell.kit.asgi import Body

#: Smaller bodies are parsed at once.
LARGE_BYTES = 64 * 1024

_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_outside(content: Body | msgspec.Raw) -> Any:
    """Decode JSON; if it is a list, its items stay JSON, for `decode_rows`.

    Raises `msgspec.DecodeError`, `UnicodeDecodeError`, `RecursionError`.
    """
    try:
        return _decode_list(content)
    except msgspec.ValidationError:
        return _decode(content)


def decode_fields(content: Body) -> dict[str, msgspec.Raw] | None:
    """The fields of an object, still as JSON; None if `content` is another value. Raises as `decode_outside`."""
    try:
        return _decode_fields(content)
    except msgspec.ValidationError:
        return None


def decode_rows(rows: list[Any]) -> list[Any]:
    """Some rows as values, which they may already be. Raises as `decode_outside`."""
    if not rows or type(rows[0]) is not msgspec.Raw:
        return rows
    values: list[Any] = _decode(b"".join((b"[", b",".join(rows), b"]")))
    return values
