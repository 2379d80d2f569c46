"""Rows as tensors and back."""

from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.contracts.open_inference import InferInput, pack_texts
from foretell.services.model.tensors import InvalidTensor, Tensor, _tensor

_INTEGERS = st.integers(-(2**63), 2**63 - 1)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"type": "string"}, Tensor("f", "BYTES")),
        ({"enum": ["a", "b"]}, Tensor("f", "BYTES")),
        ({"type": "integer"}, Tensor("f", "INT64")),
        ({"type": "number"}, Tensor("f", "FP64")),
        ({"type": "boolean"}, Tensor("f", "BOOL")),
        (
            {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
            Tensor("f", "FP64", width=3),
        ),
        ({"type": "array", "items": {"type": "number"}, "minItems": 1}, Tensor("f", "BYTES", holds_json=True)),
        ({"type": "object"}, Tensor("f", "BYTES", holds_json=True)),
        ({"type": ["string", "null"]}, Tensor("f", "BYTES", holds_json=True)),
        ({"enum": ["a", 1]}, Tensor("f", "BYTES", holds_json=True)),
        (True, Tensor("f", "BYTES", holds_json=True)),
    ],
)
def test_a_schema_says_what_the_tensor_is(field: Any, expected: Tensor) -> None:
    assert _tensor("f", field) == expected


_COLUMNS = st.one_of(
    st.tuples(st.just(Tensor("f", "BYTES")), st.lists(st.text(), min_size=1)),
    st.tuples(st.just(Tensor("f", "INT64")), st.lists(_INTEGERS, min_size=1)),
    st.tuples(st.just(Tensor("f", "FP64")), st.lists(_FLOATS, min_size=1)),
    st.tuples(st.just(Tensor("f", "BOOL")), st.lists(st.booleans(), min_size=1)),
    st.tuples(st.just(Tensor("f", "FP64", width=2)), st.lists(st.lists(_FLOATS, min_size=2, max_size=2), min_size=1)),
    st.tuples(
        st.just(Tensor("f", "BYTES", holds_json=True)),
        st.lists(st.dictionaries(st.text(), st.none() | _INTEGERS), min_size=1),
    ),
)


@given(_COLUMNS, st.booleans())
def test_what_goes_out_comes_back(column: tuple[Tensor, list[Any]], binary: bool) -> None:
    tensor, values = column
    made, content = tensor.output([{"f": value} for value in values], binary=binary)
    assert (made.parameters.get("binary_data_size") == len(content)) is binary
    # Over the wire, as a client would send it back.
    given_back = msgspec.json.decode(msgspec.json.encode(made), type=InferInput)
    assert tensor.values(given_back, memoryview(content) if binary else None) == values


def _given(datatype: str, shape: list[int], data: Any = None) -> InferInput:
    return InferInput("f", shape, datatype, data=data)


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float16", "float32"])
def test_every_kind_of_number_is_a_number(dtype: str) -> None:
    content = numpy.array([1, 2, 3], dtype=dtype).tobytes()
    datatype = dtype.upper().replace("FLOAT", "FP")
    assert Tensor("f", "FP64").values(_given(datatype, [3]), memoryview(content)) == [1, 2, 3]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_a_column_of_one_is_a_row_each(shape: list[int]) -> None:
    assert Tensor("f", "FP64").values(_given("FP32", shape, [[1.5], [2]]), None) == [1.5, 2]


@pytest.mark.parametrize(
    ("tensor", "given", "binary"),
    [
        (Tensor("f", "FP64"), _given("BYTES", [1], ["1"]), None),
        (Tensor("f", "FP64"), _given("BF16", [1]), b"\0\0"),
        (Tensor("f", "BYTES"), _given("FP64", [1], [1.0]), None),
        (Tensor("f", "BOOL"), _given("INT8", [1], [1]), None),
        (Tensor("f", "FP64"), _given("FP64", [1], ["1"]), None),
        (Tensor("f", "FP64"), _given("FP64", [1], [True]), None),
        (Tensor("f", "FP64"), _given("FP64", [1], [None]), None),
        (Tensor("f", "FP64"), _given("FP64", [1], [[[1.0]]]), None),
        (Tensor("f", "BYTES"), _given("BYTES", [1], [1]), None),
        (Tensor("f", "FP64"), _given("FP64", [], []), None),
        (Tensor("f", "FP64"), _given("FP64", [0], []), None),
        (Tensor("f", "FP64"), _given("FP64", [2], [1.0]), None),
        (Tensor("f", "FP64"), _given("FP64", [1, 2], [1.0, 2.0]), None),
        (Tensor("f", "FP64"), _given("FP64", [1, 1, 1], [1.0]), None),
        (Tensor("f", "FP64"), _given("FP64", [10**15], [1.0]), None),
        (Tensor("f", "FP64"), _given("FP64", [1], {"0": 1.0}), None),
        (Tensor("f", "FP64"), _given("FP64", [1]), None),
        (Tensor("f", "FP64"), _given("FP64", [1]), b"1234567"),
        (Tensor("f", "FP64"), _given("FP64", [1]), b"0" * 16),
        (Tensor("f", "BYTES"), _given("BYTES", [1]), pack_texts([b"\xff"])),
        (Tensor("f", "BYTES"), _given("BYTES", [1]), b"\xff\xff\xff\xff"),
        (Tensor("f", "BYTES", holds_json=True), _given("BYTES", [1], ["{"]), None),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tensor: Tensor, given: InferInput, binary: bytes | None) -> None:
    with pytest.raises(InvalidTensor, match=r"^The input f can't be used: .+\.$"):
        tensor.values(given, None if binary is None else memoryview(binary))
