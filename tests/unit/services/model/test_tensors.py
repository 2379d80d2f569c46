"""Rows as tensors and back."""

from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.contracts.open_inference import InferInput, pack_texts
from foretell.services.model.tensors import LEFT_OUT, InvalidTensor, Tensor, _output, _tensor, as_list

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
        ({"type": ["string", "null"]}, Tensor("f", "BYTES", nullable=True)),
        ({"type": ["number", "null"]}, Tensor("f", "FP64", nullable=True)),
        ({"type": ["null", "integer"]}, Tensor("f", "INT64", nullable=True)),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, Tensor("f", "FP64", nullable=True)),
        (
            {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 2, "maxItems": 2},
            Tensor("f", "FP64", width=2, nullable=True),
        ),
        ({"type": ["string", "number"]}, Tensor("f", "BYTES", holds_json=True)),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, Tensor("f", "BYTES", holds_json=True)),
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
    made, content = tensor.output(values, binary=binary)
    assert (made.parameters.get("binary_data_size") == len(content)) is binary
    # Over the wire, as a client would send it back.
    given_back = msgspec.json.decode(msgspec.json.encode(made), type=InferInput)
    assert _values(tensor, given_back, memoryview(content) if binary else None) == values


def _values(tensor: Tensor, given: InferInput, binary: memoryview | None) -> list[Any]:
    return as_list(tensor.values(given, binary, lambda content: None))


def _given(datatype: str, shape: list[int], data: Any = None) -> InferInput:
    return InferInput("f", shape, datatype, data=data)


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float16", "float32"])
def test_every_kind_of_number_is_a_number(dtype: str) -> None:
    content = numpy.array([1, 2, 3], dtype=dtype).tobytes()
    datatype = dtype.upper().replace("FLOAT", "FP")
    assert _values(Tensor("f", "FP64"), _given(datatype, [3]), memoryview(content)) == [1, 2, 3]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_a_column_of_one_is_a_row_each(shape: list[int]) -> None:
    assert _values(Tensor("f", "FP64"), _given("FP32", shape, [[1.5], [2]]), None) == [1.5, 2]


@pytest.mark.parametrize(
    ("tensor", "given", "binary"),
    [
        (Tensor("f", "FP64"), _given("BYTES", [1], ["1"]), None),
        (Tensor("f", "FP64"), _given("FP8", [1]), b"\0"),
        (Tensor("f", "FP64"), _given("BF16", [1]), b"\0"),
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
        _values(tensor, given, None if binary is None else memoryview(binary))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (_given("INT8", [3], [1, 300, 2]), "in row 1, 300 does not fit the datatype INT8"),
        (_given("INT32", [1], [3.7]), "in row 0, 3.7 does not fit the datatype INT32"),
        (_given("UINT64", [2], [0, -1]), "in row 1, -1 does not fit"),
        (_given("FP16", [1], [70000.0]), "in row 0, 70000.0 does not fit the datatype FP16"),
        (_given("FP64", [2], [1.0, "x" * 500]), "in row 1, a str does not fit"),
        (_given("FP64", [2], [1.0, None]), "in row 1 it is missing"),
        (_given("FP8", [1], [1.0]), "INT8, UINT8"),
    ],
)
def test_the_row_that_does_not_fit_is_named(given: InferInput, why: str) -> None:
    with pytest.raises(InvalidTensor) as refused:
        _values(Tensor("f", "FP64"), given, None)
    assert why in refused.value.message
    assert len(refused.value.message) < 250


def test_the_row_of_a_matrix_is_named() -> None:
    with pytest.raises(InvalidTensor, match="in row 1, True"):
        _values(Tensor("f", "FP64", width=2), _given("FP64", [2, 2], [[1, 2], [3, True]]), None)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    assert _values(Tensor("f", "INT64"), _given("INT64", [2], [3.0, -1]), None) == [3, -1]


def test_null_and_nan_mean_missing() -> None:
    tensor = Tensor("f", "FP64", nullable=True)
    assert _values(tensor, _given("FP64", [3], [1.5, None, 2]), None) == [1.5, None, 2]
    content = numpy.array([1.5, numpy.nan], dtype="<f4").tobytes()
    assert _values(tensor, _given("FP32", [2]), memoryview(content)) == [1.5, None]
    assert _values(Tensor("f", "BYTES", nullable=True), _given("BYTES", [2], ["a", None]), None) == ["a", None]
    rows = _values(Tensor("f", "FP64", width=2, nullable=True), _given("FP64", [2, 2], [[1, None], [None, 4]]), None)
    assert rows == [[1, None], [None, 4]]


def test_what_may_be_left_out_and_not_be_null_is_left_out() -> None:
    assert _values(Tensor("f", "FP64", left_out=True), _given("FP64", [2], [None, 1.5]), None) == [LEFT_OUT, 1.5]


def test_brain_floats_are_numbers() -> None:
    # The upper halves of the same numbers in 32 bits.
    content = (numpy.array([1.0, -2.5, 0.15625], dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
    assert _values(Tensor("f", "FP64"), _given("BF16", [3]), memoryview(content)) == [1.0, -2.5, 0.15625]


def test_a_number_that_is_missing_in_the_output_is_nan() -> None:
    tensor = _output("f", {"type": ["number", "null"]}, always=True)
    assert tensor.datatype == "FP64"
    made, content = tensor.output([1.5, None], binary=True)
    assert numpy.isnan(numpy.frombuffer(content, "<f8")[1])
    assert made.datatype == "FP64"
    assert tensor.output([1.5, None], binary=False)[0].data == [1.5, None]
    # What has no sign for it stays JSON.
    assert _output("f", {"type": "integer"}, always=False) == Tensor("f", "BYTES", holds_json=True)
