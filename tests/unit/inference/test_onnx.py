"""The runtime onnx: features as one matrix or as inputs of their own, and options that do not fit the graph."""

from typing import Any

import numpy
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from foretell.inference.package import PackageBroken, load_package
from foretell.inference.runtimes.onnx import _decided, _read, load

from .conftest import MakePackage

SUM = """
[options]
matrix = "features"
columns = [{ feature = "kind", categories = ["low", "high"] }, { feature = "x" }]
outputs = [
    { field = "raw", tensor = "out" },
    { field = "second", tensor = "out", column = 1 },
    { field = "rounded", tensor = "out", column = 1, decimals = 1 },
    { field = "above", tensor = "out", column = 1, decimals = 1, threshold = 0.5 },
]
"""
FEATURES = {
    "type": "object",
    "required": ["kind", "x"],
    "properties": {"kind": {"type": "string"}, "x": {"type": "number"}, "n": {"type": "integer"}},
}


def graph(node: str, inputs: dict[str, int], shape: list[Any], output: int) -> bytes:
    made = helper.make_graph(
        [helper.make_node(node, list(inputs), ["out"])],
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("out", output, shape)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


IDENTITY = graph("Identity", {"features": TensorProto.FLOAT}, [None, 2], TensorProto.FLOAT)


def test_a_matrix_with_categories(make_package: MakePackage) -> None:
    model = load(load_package(make_package(artifact=IDENTITY, more=SUM, features_schema=FEATURES)))
    rows = [{"kind": "high", "x": 0.46}, {"kind": "low", "x": 0.44}, {"kind": "low", "x": 3}]
    first, second, third = model.predict(rows)
    assert first == {"raw": [1.0, pytest.approx(0.46)], "second": pytest.approx(0.46), "rounded": 0.5, "above": 1}
    assert (second["rounded"], second["above"]) == (0.4, 0)
    assert third == {"raw": [0.0, 3.0], "second": 3.0, "rounded": 3.0, "above": 1}


def test_an_unknown_category_is_an_error_never_a_guess(make_package: MakePackage) -> None:
    model = load(load_package(make_package(artifact=IDENTITY, more=SUM, features_schema=FEATURES)))
    with pytest.raises(KeyError):
        model.predict([{"kind": "middle", "x": 1}])


def test_a_threshold_on_nan_is_an_error_not_a_zero(make_package: MakePackage) -> None:
    artifact = graph("Log", {"features": TensorProto.FLOAT}, [None, 2], TensorProto.FLOAT)
    model = load(load_package(make_package(artifact=artifact, more=SUM, features_schema=FEATURES)))
    with pytest.raises(ArithmeticError):
        model.predict([{"kind": "high", "x": -1.0}])


_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
#: Near the middle between two decimals, where a rounding that is not exact would err.
_MIDDLES = st.builds(
    lambda number, decimals, step: float(
        numpy.nextafter(numpy.float32((2 * number + 1) / 20**decimals), numpy.float32(step * numpy.inf))
    ),
    st.integers(-20_000, 20_000),
    st.integers(0, 4),
    st.sampled_from([-1, 1]),
)


@given(values=st.lists(st.one_of(_FLOATS, _MIDDLES), min_size=40, max_size=80), decimals=st.integers(0, 9))
@settings(max_examples=200)
def test_many_rows_give_the_same_numbers_as_one(values: list[float], decimals: int) -> None:
    tensor = numpy.array([values, values], dtype=numpy.float32).T
    many = _read(tensor, 1, decimals)
    alone = [_read(tensor[place : place + 1], 1, decimals)[0] for place in range(len(values))]
    assert list(map(repr, many)) == list(map(repr, alone))
    threshold = many[0]
    assert _decided(many, threshold) == [_decided([value], threshold)[0] for value in many]


@pytest.mark.parametrize("misfit", [float("nan"), float("inf")])
def test_one_in_many_that_is_not_finite_is_an_error(misfit: float) -> None:
    with pytest.raises(ArithmeticError):
        _decided([*[0.5] * 100, misfit], 0.5)


@pytest.mark.parametrize(
    ("feature", "kind", "values"),
    [
        ("kind", TensorProto.STRING, ["low", "Тест", ""]),
        ("x", TensorProto.DOUBLE, [0.1, -2.5]),
        ("n", TensorProto.INT64, [2**53 + 1, -1]),
    ],
)
def test_inputs_of_their_own(make_package: MakePackage, feature: str, kind: int, values: list[Any]) -> None:
    options = '[options]\noutputs = [{ field = "same", tensor = "out" }]'
    schema = {**FEATURES, "required": ["kind", "x", "n"]}
    artifact = graph("Identity", {feature: kind}, [None, 1], kind)
    model = load(load_package(make_package(artifact=artifact, more=options, features_schema=schema)))
    assert model.predict([{feature: value} for value in values]) == [{"same": value} for value in values]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "outputs"),
        (SUM.replace("threshold", "treshold"), "treshold"),
        (SUM.replace('matrix = "features"', 'matrix = "matrix"'), "The graph takes"),
        (SUM.replace('matrix = "features"', ""), "The graph takes"),
        (SUM.replace('feature = "x"', 'feature = "n"'), "does not require"),
        (SUM.replace('tensor = "out" }', 'tensor = "scores" }'), "scores"),
    ],
)
def test_options_that_do_not_fit_are_named(make_package: MakePackage, options: str, said: str) -> None:
    with pytest.raises(PackageBroken, match=said):
        load(load_package(make_package(artifact=IDENTITY, more=options, features_schema=FEATURES)))


def test_what_is_no_model_is_refused(make_package: MakePackage) -> None:
    with pytest.raises(PackageBroken, match="onnxruntime cannot load"):
        load(load_package(make_package(more=SUM, features_schema=FEATURES)))
