"""Finds the files with weights of an ONNX graph ("external data") in its bytes, without the package onnx.

An ONNX file is a protocol buffer. Only the few fields that lead to tensors are followed; their numbers are those of
onnx.proto3, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
"""

from collections.abc import Iterator
from typing import Literal

Kind = Literal["model", "training", "function", "graph", "node", "attribute", "sparse", "tensor"]

#: For each message: the fields with nested messages, and their kinds.
_PARTS: dict[Kind, dict[int, Kind]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA = 13
_KEY, _VALUE = 1, 2
_LOCATION = b"location"


def external_files(content: bytes) -> list[str]:
    """The paths of the files with weights in the graph `content`, relative to its folder, each once.

    Raises `ValueError` if the bytes are not a protocol buffer.
    """
    if _LOCATION not in content:
        # The usual case; parsing a graph of trees would visit a million numbers.
        return []
    found: dict[str, None] = {}
    # A stack, not recursion, because the file controls the depth.
    waiting: list[tuple[Kind, memoryview]] = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        for number, part in _fields(message):
            if number in _PARTS[kind]:
                waiting.append((_PARTS[kind][number], part))
            elif kind == "tensor" and number == _EXTERNAL_DATA:
                entry = {field: bytes(value) for field, value in _fields(part)}
                if entry.get(_KEY) == _LOCATION:
                    found[entry.get(_VALUE, b"").decode()] = None
    return list(found)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of a message's fields with a length; other fields are numbers and are skipped."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                _, place = _varint(message, place)
            case 1:
                place += 8
            case 2:
                length, place = _varint(message, place)
                if place + length > end:
                    raise ValueError("a field is longer than its message")
                yield tag >> 3, message[place : place + length]
                place += length
            case 5:
                place += 4
            case wire_type:
                raise ValueError(f"a field has the wire type {wire_type}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number at `place`, seven bits per byte, and its end."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number has no end")
