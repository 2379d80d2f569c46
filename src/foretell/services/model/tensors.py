"""Converts rows to tensors and back: each feature is an input tensor, each field of the output an output tensor.

A text is BYTES, an integer INT64, a number FP64, a boolean BOOL, of shape [rows]; a list of one of these is a tensor of
shape [rows, n]. Every other type is sent as JSON in BYTES.

A nullable value keeps its datatype: null in JSON, or NaN for floating-point numbers, means missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, isnan, prod
from typing import Any, NamedTuple

import msgspec
import numpy

from foretell.contracts.open_inference import InferInput, InferOutput, TensorMetadata, pack_texts, unpack_texts
from foretell.inference.package import ModelPackage
from foretell.kit.errors import ForetellError

_DTYPES: dict[str, Any] = {
    "BOOL": numpy.bool_,
    **{f"{sign}INT{bits}": numpy.dtype(f"{sign}int{bits}".lower()) for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": numpy.float16,
    "FP32": numpy.float32,
    "FP64": numpy.float64,
}
#: The upper half of a 32-bit floating-point number.
_BRAIN_FLOAT = "BF16"
_NUMBERS = frozenset({*_DTYPES, _BRAIN_FLOAT}) - {"BOOL"}
_LISTED = ", ".join([*sorted(_NUMBERS, key=lambda name: (name.lstrip("BFINTU"), name))])
_DATATYPES = {"string": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}

#: The values of one tensor, one for each row. An array becomes a list only in parts (`as_list`), because Python's
#: numbers take four times its memory.
Column = Any
#: Counts the memory for parsing a text as JSON. Raises if it is too much.
Weigh = Callable[[bytes], None]

#: Marks a feature that is absent from a row.
LEFT_OUT = object()

_decode_json = msgspec.json.Decoder().decode
_encode_json = msgspec.json.Encoder().encode


class InvalidTensor(ForetellError):
    """The input {name} can't be used: {reason}."""

    code = "invalid_tensor"
    status = 400


@dataclass(frozen=True, slots=True)
class Tensor:
    """The tensor of one feature or one field of the output, from its schema."""

    name: str
    datatype: str
    #: The length of a list.
    width: int | None = None
    holds_json: bool = False
    #: Whether a value may be null.
    nullable: bool = False
    #: Whether a feature that is not nullable may be absent instead.
    left_out: bool = False

    @property
    def metadata(self) -> TensorMetadata:
        return TensorMetadata(self.name, self.datatype, [-1] if self.width is None else [-1, self.width])

    def values(self, given: InferInput, binary: memoryview | None, weigh: Weigh) -> Column:
        """One JSON value for each row. Raises `InvalidTensor`, and what `weigh` raises."""
        accepted = _NUMBERS if self.datatype in _NUMBERS else {self.datatype}
        if given.datatype not in accepted:
            taken = f" (taken are {_LISTED})" if self.datatype in _NUMBERS else ""
            raise self._invalid(f"its datatype is {self.datatype}{taken}, not {given.datatype[:20]}")
        rows = given.shape[0] if given.shape else 0
        columns = prod(given.shape[1:2])
        if len(given.shape) > 2 or not rows or columns != (self.width or 1):
            raise self._invalid(f"its shape is {self.metadata.shape} with at least one row, not {given.shape}")
        if binary is not None and given.datatype != "BYTES":
            array = self._from_binary(given, binary, rows * columns)
            if array.dtype.kind != "f" or not numpy.isnan(array).any():
                return array if self.width is None else array.reshape(rows, columns)
            values = array.tolist()
        else:
            values = self._from_json(given) if binary is None else self._texts(binary, rows * columns)
        if len(values) != rows * columns:
            raise self._invalid(f"its shape {given.shape} needs {rows * columns} elements, it has {len(values)}")
        if self.holds_json:
            values = [self._parsed(value, weigh) for value in values]
        elif any(_is_missing(value) for value in values):
            missing = self._missing
            values = [missing(at // columns) if _is_missing(value) else value for at, value in enumerate(values)]
        if self.width is None:
            return values
        return [values[start : start + columns] for start in range(0, len(values), columns)]

    def output(self, values: list[Any], *, binary: bool) -> tuple[InferOutput, bytes]:
        """The values of this field, one for each row, as a tensor, and its bytes if it is to be `binary`."""
        shape = [len(values)]
        if self.width is not None:
            shape.append(len(values[0] or ()))
            values = [item for value in values for item in value or ()]
        if self.holds_json:
            values = [_encode_json(value).decode() for value in values]
        if not binary:
            return InferOutput(self.name, self.datatype, shape, data=values), b""
        if self.datatype == "BYTES":
            content = pack_texts(value.encode() for value in values)
        else:
            content = numpy.array(values, dtype=_DTYPES[self.datatype]).tobytes()
        return InferOutput(self.name, self.datatype, shape, parameters={"binary_data_size": len(content)}), content

    def _from_json(self, given: InferInput) -> list[Any]:
        if not isinstance(given.data, list):
            raise self._invalid("it has neither data, a list, nor binary_data_size")
        values: list[Any] = given.data
        if values and isinstance(values[0], list):
            values = [item for row in values for item in (row if isinstance(row, list) else [row])]
        fits = _FITS[given.datatype]
        for at, value in enumerate(values):
            if value is not None and not fits(value):
                row = at // (self.width or 1)
                raise self._invalid(f"in row {row}, {_shown(value)} does not fit the datatype {given.datatype}")
        return values

    def _missing(self, row: int) -> Any:
        if self.nullable:
            return None
        if self.left_out and self.width is None:
            return LEFT_OUT
        raise self._invalid(f"in row {row} it is missing (null or NaN), and it may not be")

    def _from_binary(self, given: InferInput, binary: memoryview, count: int) -> Any:
        brain = given.datatype == _BRAIN_FLOAT
        dtype = numpy.dtype(numpy.uint16 if brain else _DTYPES[given.datatype])
        if len(binary) != (needed := count * dtype.itemsize):
            raise self._invalid(f"its shape {given.shape} needs {needed} bytes of {given.datatype}, not {len(binary)}")
        found = numpy.frombuffer(binary, dtype.newbyteorder("<"))
        return (found.astype(numpy.uint32) << 16).view(numpy.float32) if brain else found

    def _texts(self, binary: memoryview, count: int) -> list[str]:
        try:
            return [element.decode() for element in unpack_texts(binary, count)]
        except UnicodeDecodeError:
            raise self._invalid("its texts must be UTF-8") from None
        except ValueError as error:
            raise self._invalid(str(error)) from None

    def _parsed(self, value: str, weigh: Weigh) -> Any:
        weigh(value.encode())
        try:
            return _decode_json(value)
        except (msgspec.DecodeError, RecursionError):
            raise self._invalid("its texts must be JSON") from None

    def _invalid(self, reason: str) -> InvalidTensor:
        return InvalidTensor(name=self.name, reason=reason)


def size_of(output: InferOutput, content: bytes) -> int:
    """The approximate size of a tensor in an answer, in bytes: 8 for a number in JSON, its length for a text."""
    if not isinstance(output.data, list):
        return len(content)
    if output.datatype == "BYTES":
        return sum(map(len, output.data))
    return 8 * len(output.data)


def as_list(column: Column) -> list[Any]:
    """A column, or a part of it, as a list of JSON values."""
    values: list[Any] = column if isinstance(column, list) else column.tolist()
    return values


def _is_missing(value: Any) -> bool:
    return value is None or (type(value) is float and isnan(value))


def _shown(value: Any) -> str:
    """A value for an error message; only its type if it may be long."""
    return repr(value) if type(value) in (int, float, bool) and len(repr(value)) < 30 else f"a {type(value).__name__}"


def _whole(dtype: Any) -> Callable[[Any], bool]:
    least, most = numpy.iinfo(dtype).min, numpy.iinfo(dtype).max
    return lambda value: type(value) in (int, float) and value == value // 1 and least <= value <= most


def _real(dtype: Any) -> Callable[[Any], bool]:
    most = float(numpy.finfo(dtype).max)
    return lambda value: type(value) in (int, float) and isfinite(value) and abs(value) <= most


#: Whether a JSON value fits a datatype. BF16 has the range of FP32.
_FITS: dict[str, Callable[[Any], bool]] = {
    "BYTES": lambda value: type(value) is str,
    "BOOL": lambda value: type(value) is bool,
    **{name: (_whole if "INT" in name else _real)(dtype) for name, dtype in _DTYPES.items() if name != "BOOL"},
    _BRAIN_FLOAT: _real(numpy.float32),
}


class Signature(NamedTuple):
    """The input and output tensors of a model, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def signature_of(package: ModelPackage) -> Signature:
    """The tensors of a model's features and of its output."""
    # A request leaves out a feature by leaving out its tensor.
    inputs, output = package.features_schema, package.output_schema
    needed, given = inputs.get("required", ()), output.get("required", ())
    return Signature(
        {
            name: _tensor(name, field, left_out=name not in needed)
            for name, field in inputs.get("properties", {}).items()
        },
        {name: _output(name, field, always=name in given) for name, field in output.get("properties", {}).items()},
    )


def _tensor(name: str, field: Any, *, left_out: bool = False) -> Tensor:
    datatype, nullable = _datatype(field)
    if datatype:
        return Tensor(name, datatype, nullable=nullable, left_out=left_out)
    if isinstance(field, dict) and field.get("type") == "array":
        datatype, nullable = _datatype(field.get("items"))
        length = field.get("minItems")
        # Only lists of a fixed length always form a matrix.
        if datatype and length and length == field.get("maxItems"):
            return Tensor(name, datatype, width=length, nullable=nullable)
    return Tensor(name, "BYTES", holds_json=True)


def _output(name: str, field: Any, *, always: bool) -> Tensor:
    """The tensor of an output field. A type that may be missing is sent as JSON, except FP64, which has NaN."""
    tensor = _tensor(name, field)
    if (always and not tensor.nullable) or (tensor.datatype == "FP64" and tensor.width is None):
        return tensor
    return Tensor(name, "BYTES", holds_json=True)


def _datatype(schema: Any) -> tuple[str | None, bool]:
    """The datatype of a text, number or boolean (None for other types), and whether it is nullable."""
    if not isinstance(schema, dict):
        return None, False
    for either in ("anyOf", "oneOf"):
        several = schema.get(either)
        if isinstance(several, list):
            others = [each for each in several if each != {"type": "null"}]
            if len(others) == 1 and len(several) == 2:
                return _datatype(others[0])[0], True
            return None, False
    kind, nullable = schema.get("type"), False
    if isinstance(kind, list):
        others = [each for each in kind if each != "null"]
        if len(others) != 1:
            return None, False
        kind, nullable = others[0], len(others) < len(kind)
    if kind is None and schema.get("enum") and all(isinstance(value, str) for value in schema["enum"]):
        kind = "string"
    return (_DATATYPES.get(kind) if isinstance(kind, str) else None), nullable
