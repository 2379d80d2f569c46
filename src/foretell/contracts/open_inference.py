"""The Open Inference Protocol v2 over HTTP, as used by KServe, Triton, MLServer and their clients.

Optional parts of a request may be `null`, because some clients send them so.

A body is JSON. With the extension for binary tensors, a header has the length of the JSON, and the tensors follow it
one after the other; a tensor then has its size in bytes (`binary_data_size`) instead of `data`.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

#: The header with the length of the JSON, if binary tensors follow it.
HEADER_LENGTH = "Inference-Header-Content-Length"

Shape = Annotated[list[int], Meta(description="-1 stands for any number of rows", examples=[[-1]])]
Parameters = dict[str, Any]


#: Limits for a tensor of a request. Ours have one or two dimensions; larger numbers are not valid sizes.
_MOST_DIMENSIONS = 8
_LARGEST_DIMENSION = 2**31 - 1
Dimension = Annotated[int, Meta(ge=0, le=_LARGEST_DIMENSION)]
#: A model never has more features or fields.
_MOST_TENSORS = 10_000


class TensorMetadata(msgspec.Struct, frozen=True):
    """One input or output of a model."""

    name: Annotated[str, Meta(examples=["distance"])]
    datatype: Annotated[str, Meta(examples=["FP64"])]
    shape: Shape


class ServerMetadata(msgspec.Struct, frozen=True):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(msgspec.Struct, frozen=True):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InferInput(msgspec.Struct, frozen=True):
    """One tensor of a request: `data` in rows (nested or flat), or bytes behind the JSON."""

    name: str
    shape: Annotated[list[Dimension], Meta(max_length=_MOST_DIMENSIONS)]
    datatype: str
    parameters: Parameters | None = None
    data: Any = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """One output that is wanted; `binary_data` in its parameters says how."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct, frozen=True):
    """What is to be predicted: a tensor for each feature, all of them with as many rows."""

    inputs: Annotated[list[InferInput], Meta(min_length=1, max_length=_MOST_TENSORS)]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: Annotated[list[RequestedOutput], Meta(max_length=_MOST_TENSORS)] | None = None


class InferOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = {}
    data: Any = None


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: a tensor for each output, with as many rows as the inputs had."""

    model_name: str
    model_version: str
    outputs: list[InferOutput]
    id: str | None = None


class RepositoryIndexRequest(msgspec.Struct, frozen=True):
    """What the index should list: everything, or what is ready."""

    ready: bool | None = None


class RepositoryModel(msgspec.Struct, frozen=True):
    """One version of a model in the index."""

    name: str
    version: str
    state: Annotated[str, Meta(examples=["READY", "LOADING", "UNAVAILABLE"])]
    reason: Annotated[str, Meta(description="Why it is not ready")] = ""


class Error(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    error: str


def split_binary(content: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """The consecutive tensors in `content`. Raises `ValueError` if their sizes do not add up to it."""
    if sum(sizes) != len(content):
        raise ValueError(f"{len(content)} bytes follow the JSON, but binary_data_size adds up to {sum(sizes)}")
    parts, start = [], 0
    for size in sizes:
        parts.append(content[start : start + size])
        start += size
    return parts


def pack_texts(texts: Iterable[bytes]) -> bytes:
    """A tensor of datatype BYTES: each element is preceded by its length, 4 bytes, little endian."""
    parts: list[bytes] = []
    for text in texts:
        parts += (struct.pack("<I", len(text)), text)
    return b"".join(parts)


def unpack_texts(content: memoryview, count: int) -> list[bytes]:
    """The `count` elements of a tensor of datatype BYTES.

    Raises `ValueError` if a length exceeds the content, or if there are more or fewer elements.
    """
    elements: list[bytes] = []
    place, end = 0, len(content)
    while place < end:
        if len(elements) == count:
            raise ValueError(f"it has more than the {count} elements of its shape")
        begin = place + 4
        place = begin + (struct.unpack_from("<I", content, place)[0] if begin <= end else 4)
        if place > end:
            raise ValueError("the lengths of its elements lead beyond its end")
        elements.append(bytes(content[begin:place]))
    if len(elements) < count:
        raise ValueError(f"it has {len(elements)} elements and its shape {count}")
    return elements
