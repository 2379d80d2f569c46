"""The runtime onnx: features as one matrix or as inputs of their own, and options that do not fit the graph."""

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.installing import install, update
from foretell.inference.package import PackageBroken, load_package
from foretell.inference.registry import Registry
from foretell.inference.runtimes import NOTHING_MORE
from foretell.inference.runtimes.onnx import _decided, _read, load
from foretell.inference.runtimes.onnx_files import external_files
from foretell.inference.scaffolding import CannotScaffold, scaffold

from .conftest import MakePackage
from .runtimes.graphs import WIDTH_OF_WEIGHTS, save_with_weights_beside

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


WHOLE = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [
        (TensorProto.INT8, -128, 127),
        (TensorProto.UINT8, 0, 255),
        (TensorProto.INT32, -(2**31), 2**31 - 1),
        (TensorProto.INT64, -(2**63), 2**63 - 1),
    ],
)
def test_whole_numbers_are_exact_or_refused(make_package: MakePackage, kind: int, lowest: int, highest: int) -> None:
    artifact = graph("Identity", {"n": kind}, [None, 1], kind)
    package = load_package(make_package(artifact=artifact, more=OUT, features_schema=WHOLE))
    model = load(package)
    assert model.predict([{"n": lowest}, {"n": highest}]) == [{"y": lowest}, {"y": highest}]
    engine = Engine(Registry([package]), load=lambda _: model)
    rows = [{"n": 1}, {"n": highest + 1}, {"n": lowest - 1}, {"n": 1e300}]
    outcomes = engine.predict(package, rows, "features")
    refused = Failure("invalid_input", f"n must be between {lowest} and {highest}.")
    assert outcomes == [{"y": 1}, refused, refused, refused]


OUT = """
[options]
outputs = [{ field = "y", tensor = "out" }]
"""


@pytest.mark.parametrize("shape", [[None], ["n"], [None, 1], [4], [4, 1], [1]])
@pytest.mark.parametrize(
    ("kind", "values"), [(TensorProto.STRING, ["a", "b", "c"]), (TensorProto.FLOAT16, [1.0, 2.5, 3.0])]
)
def test_what_is_made_of_a_graph_of_any_rank_and_size_loads(
    tmp_path: Path, shape: list[Any], kind: int, values: list[Any]
) -> None:
    (tmp_path / "model.onnx").write_bytes(graph("Identity", {"x": kind}, shape, kind))
    scaffold(tmp_path / "model.onnx", tmp_path / "made", name=None, version="1.0.0", permissions=NOTHING_MORE)
    package = load_package(tmp_path / "made")
    assert package.max_batch == (shape[0] if isinstance(shape[0], int) else 64)
    engine = Engine(Registry([package]))
    assert engine.predict(package, [{"x": value} for value in values], "features") == [
        {"out": value} for value in values
    ]


def test_a_graph_of_a_fixed_size_takes_no_larger_batch(make_package: MakePackage) -> None:
    artifact = graph("Identity", {"n": TensorProto.INT64}, [4, 1], TensorProto.INT64)
    package = load_package(make_package(artifact=artifact, more=OUT, features_schema=WHOLE, max_batch=5))
    with pytest.raises(PackageBroken, match="Set max_batch = 4"):
        load(package)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(TensorProto.BFLOAT16, r"is tensor\(bfloat16\)\. A package answers with tensors of the types")],
)
def test_an_output_that_nobody_can_read_is_named(tmp_path: Path, kind: int, words: str) -> None:
    made = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["out"], to=kind)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("out", kind, [None, 1])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CannotScaffold, match=words):
        scaffold(tmp_path / "model.onnx", tmp_path / "made", name=None, version="1.0.0", permissions=NOTHING_MORE)


def with_weights(folder: Path) -> Path:
    """The package that is made of a graph with its weights in a second file."""
    (folder / "trained").mkdir()
    save_with_weights_beside(folder / "trained" / "model.onnx", ["x"])
    scaffold(folder / "trained" / "model.onnx", folder / "made", name=None, version="1.0.0", permissions=NOTHING_MORE)
    return folder / "made"


def test_weights_in_a_second_file_travel_and_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_weights(tmp_path)
    (tmp_path / "models").mkdir()
    package = install(folder, tmp_path / "models")
    assert set(package.manifest.files) == {"weights.bin"}
    answers = load(package).predict([{"x": 2.0}])
    assert answers == [{"y": 2.0 * sum(range(WIDTH_OF_WEIGHTS))}]
    # What lies in the current folder is nobody's model.
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "weights.bin").write_bytes(bytes(4 * WIDTH_OF_WEIGHTS))
    monkeypatch.chdir(other)
    assert load(package).predict([{"x": 2.0}]) == answers
    weights = package.path / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[8] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PackageBroken, match=r"not the one the manifest names.*weights\.bin"):
        load(package)
    assert update(package.path) == ["model.toml"]
    load(load_package(package.path))


def test_weights_that_the_manifest_does_not_name_are_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_weights(tmp_path)
    manifest = folder / "model.toml"
    manifest.write_text(re.sub(r'(?m)^"?weights.*\n', "", manifest.read_text()))
    monkeypatch.chdir(tmp_path / "trained")
    with pytest.raises(PackageBroken, match=r"reads the file weights\.bin, which the manifest does not name"):
        load(load_package(folder))


def test_a_graph_without_its_weights_is_not_made_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_with_weights_beside(tmp_path / "model.onnx", ["x"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "elsewhere" / "weights.bin")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(CannotScaffold, match=r"keeps its weights in .*weights\.bin, which is not there"):
        scaffold(tmp_path / "model.onnx", tmp_path / "made", name=None, version="1.0.0", permissions=NOTHING_MORE)


def test_weights_are_found_wherever_the_graph_has_them() -> None:
    def kept(name: str, location: str) -> Any:
        tensor = TensorProto(name=name, dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        return tensor

    inner = helper.make_graph([], "inner", [], [], [kept("in", "inner.bin")])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=kept("c", "constant.bin")),
        helper.make_node("If", ["c"], ["out"], then_branch=inner, else_branch=inner),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [kept("w", "outer.bin"), kept("v", "outer.bin")]))
    assert sorted(external_files(model.SerializeToString())) == ["constant.bin", "inner.bin", "outer.bin"]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_graph_name_no_files(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(external_files(content + b"location"), list)
