"""Values as msgspec's types, safe in threads.

msgspec reads the annotations of a `Struct` when the class is first used as a type. Two threads that do this with one
class at the same moment crash the process, since one of them uses what the other has half filled in. So it is done
under a lock here. A `msgspec.json.Decoder` at the head of a module is safe as well: a module is imported once.
"""

import threading
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_preparing = threading.Lock()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


@overload
def convert(value: Any, kind: type[T]) -> T: ...
@overload
def convert(value: Any, kind: Any) -> Any: ...
def convert(value: Any, kind: Any) -> Any:
    """`msgspec.convert`: raises `msgspec.ValidationError`."""
    _decoder_of(kind)
    return msgspec.convert(value, kind)  # noqa: TID251


@overload
def decode(body: bytes | bytearray | memoryview | str, kind: type[T]) -> T: ...
@overload
def decode(body: bytes | bytearray | memoryview | str, kind: Any) -> Any: ...
def decode(body: bytes | bytearray | memoryview | str, kind: Any) -> Any:
    """Read JSON as a `kind`. Raises `msgspec.DecodeError`, `msgspec.ValidationError`."""
    return _decoder_of(kind).decode(body)


def _decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    known = _decoders.get(kind)
    if known is None:
        with _preparing:
            known = _decoders[kind] = msgspec.json.Decoder(kind)
    return known
