"""MLflow's folders, read without MLflow. The MLmodel files here are in the form that MLflow writes."""

import hashlib
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import skops.io
from onnx import TensorProto, helper
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from foretell.inference.installing import update
from foretell.inference.package import PackageBroken, load_package
from foretell.inference.runtimes import Permissions, load_runtime
from foretell.inference.scaffolding import CannotScaffold

from . import trained
from .conftest import Made
from .graphs import WIDTH_OF_WEIGHTS, save_with_weights_beside

MLMODEL = """\
artifact_path: model
flavors:
  python_function:
    env:
      conda: conda.yaml
    loader_module: mlflow.{flavor}
    model_path: {data}
  {flavor}:
    code: null
{about}
mlflow_version: 3.1.0
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  type: dataframe
signature:
  inputs: '[{{"type": "double", "name": "petal length (cm)", "required": true}}, {{"type":
    "double", "name": "petal width", "required": true}}]'
  outputs: '[{{"type": "string", "required": true}}]'
utc_time_created: '2026-01-17 20:29:00.995838'
"""


def logged(folder: Path, flavor: str, file: str, content: bytes, **about: str) -> Path:
    """A folder as MLflow makes it."""
    place = folder / "flower kind"
    place.mkdir()
    lines = "\n".join(f"    {key}: {value}" for key, value in about.items())
    (place / "MLmodel").write_text(MLMODEL.format(flavor=flavor, data=file, about=lines))
    (place / file).write_bytes(content)
    example = {"columns": ["petal length (cm)", "petal width"], "data": [[4.5, 1.5]]}
    (place / "input_example.json").write_text(json.dumps(example))
    return place


@pytest.fixture
def by_skops(tmp_path: Path) -> Path:
    content = skops.io.dumps(trained.flowers())
    return logged(
        tmp_path, "sklearn", "model.skops", content, pickled_model="model.skops", serialization_format="skops"
    )


@pytest.fixture
def by_pickle(tmp_path: Path) -> Path:
    content = pickle.dumps(trained.flowers())
    return logged(
        tmp_path, "sklearn", "model.pkl", content, pickled_model="model.pkl", serialization_format="cloudpickle"
    )


def graph() -> bytes:
    """Doubles and halves: two named inputs, two outputs."""
    shape = (TensorProto.FLOAT, ["n", 1])
    nodes = [
        helper.make_node("Add", ["petal length (cm)", "petal length (cm)"], ["double"]),
        helper.make_node("Sub", ["petal width", "petal width"], ["nothing"]),
    ]
    inputs = [helper.make_tensor_value_info(name, *shape) for name in ("petal length (cm)", "petal width")]
    outputs = [helper.make_tensor_value_info(name, *shape) for name in ("double", "nothing")]
    model: Any = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 15)], ir_version=8
    )
    content: bytes = model.SerializeToString()
    return content


def test_scikit_learn_stored_by_skops(made: Made, by_skops: Path) -> None:
    package = made(by_skops)
    assert (package.manifest.runtime, package.manifest.artifact) == ("mlflow", "mlflow/model.skops")
    (example,) = package.examples
    assert example.features == {"petal_length_cm": 4.5, "petal_width": 1.5}
    assert example.output["prediction"] == "versicolor"
    assert load_runtime(package).predict([example.features]) == [example.output]


def test_scikit_learn_stored_as_a_pickle_wants_to_be_allowed(made: Made, by_pickle: Path) -> None:
    with pytest.raises(CannotScaffold, match="FORETELL_ALLOWED_PICKLES"):
        made(by_pickle)
    allowed = frozenset({hashlib.sha256((by_pickle / "model.pkl").read_bytes()).hexdigest()})
    package = made(by_pickle, allowed_pickles=allowed)
    with pytest.raises(PackageBroken, match="FORETELL_ALLOWED_PICKLES"):
        load_runtime(package)
    answers = load_runtime(package, Permissions(allowed)).predict([{"petal_length_cm": 1.4, "petal_width": 0.2}])
    assert answers[0]["prediction"] == "setosa"


def test_onnx(made: Made, tmp_path: Path) -> None:
    package = made(logged(tmp_path, "onnx", "model.onnx", graph(), data="model.onnx"))
    assert package.features_schema["required"] == ["petal length (cm)", "petal width"]
    assert [(field.title.en, field.unit and field.unit.en) for field in package.fields] == [
        ("Petal length", "cm"),
        ("Petal width", None),
    ]
    answers = load_runtime(package).predict([{"petal length (cm)": 1.5, "petal width": 7.0}])
    assert answers == [{"double": 3.0, "nothing": 0.0}]


def test_the_signature_says_what_is_a_whole_number(made: Made, by_skops: Path) -> None:
    file = by_skops / "MLmodel"
    file.write_text(file.read_text().replace('"double", "name": "petal width"', '"long", "name": "petal width"'))
    # What was logged as an example fits no longer.
    (by_skops / "input_example.json").unlink()
    properties = made(by_skops).features_schema["properties"]
    assert [properties[name]["type"] for name in ("petal_length_cm", "petal_width")] == ["number", "integer"]


def test_columns_that_the_signature_does_not_know_are_refused(made: Made, by_skops: Path) -> None:
    package = made(by_skops)
    file = package.path / "mlflow" / "MLmodel"
    file.write_text(file.read_text().replace("petal width", "sepal width"))
    with pytest.raises(PackageBroken, match="not the one the manifest names"):
        load_runtime(package)
    assert update(package.path) == ["model.toml"]
    with pytest.raises(PackageBroken, match=r"signature takes .*sepal width"):
        load_runtime(load_package(package.path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  sklearn:", "  xgboost:", "none is onnx or sklearn"),
        ("flavors:", "flavors: [", "cannot be read"),
        ("pickled_model", "model", "cannot be read"),
        ("mlflow_version", "a: !!python/object/apply:os.abort []\nmlflow_version", "cannot be read"),
        ("    pickled_model: model.skops", "    pickled_model: other.skops", "not the file that MLmodel names"),
        ("    pickled_model: model.skops", "    pickled_model: [a, b]", "a path is a text"),
        ("mlflow_version", "a: &a [1, 2]\nb: [*a, *a]\nmlflow_version", "aliases"),
        ("mlflow_version", f"a: {'[' * 5000}\nmlflow_version", "cannot be read|nested too deeply"),
        ("mlflow_version", f"a: {'x' * 1024 * 1024}\nmlflow_version", "has 10[0-9]+ bytes"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(made: Made, by_skops: Path, old: str, new: str, words: str) -> None:
    package = made(by_skops)
    file = package.path / "mlflow" / "MLmodel"
    file.write_text(file.read_text().replace(old, new))
    update(package.path)
    with pytest.raises(PackageBroken, match=words):
        load_runtime(load_package(package.path))


def test_a_folder_that_is_not_of_mlflow(made: Made, tmp_path: Path) -> None:
    with pytest.raises(CannotScaffold, match="no model of MLflow"):
        made(tmp_path)


def stated(folder: Path, old: str, new: str) -> Path:
    """The folder with another signature."""
    file = folder / "MLmodel"
    file.write_text(file.read_text().replace(old, new))
    return folder


WIDTH = '"double", "name": "petal width", "required": true'


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('"datetime", "name": "petal width", "required": true', r"petal width \(datetime\)"),
        ('"object", "properties": {}, "name": "petal width", "required": true', r"petal width \(object\)"),
        ('"array", "items": {"type": "long"}, "name": "petal width", "required": true', r"petal width \(array\)"),
        ('"double", "name": "petal width", "required": false', "petal_width may be missing .* the model fails"),
    ],
)
def test_what_a_signature_asks_and_no_package_keeps_is_refused(
    made: Made, by_skops: Path, new: str, words: str
) -> None:
    with pytest.raises(CannotScaffold, match=words):
        made(stated(by_skops, WIDTH, new))


def test_what_may_be_missing_is_null(made: Made, tmp_path: Path) -> None:
    model = make_pipeline(SimpleImputer(), *(step for _, step in trained.flowers().steps)).fit(
        trained.FLOWERS, trained.KINDS
    )
    about = {"pickled_model": "model.skops", "serialization_format": "skops"}
    folder = logged(tmp_path, "sklearn", "model.skops", skops.io.dumps(model), **about)
    package = made(stated(folder, WIDTH, WIDTH.replace("true", "false")), trusted_types=frozenset({"numpy.dtype"}))
    assert package.features_schema["properties"]["petal_width"]["type"] == ["number", "null"]
    row = {"petal_length_cm": 4.5, "petal_width": None}
    expected = model.predict(trained.FLOWERS.iloc[:1].assign(**{"petal length (cm)": 4.5, "petal width": math.nan}))
    assert load_runtime(package).predict([row])[0]["prediction"] == expected[0]


@pytest.mark.parametrize("name", ["../other.skops", "link.skops", "missing.skops"])
def test_nothing_outside_of_the_folder_is_copied(made: Made, by_skops: Path, name: str) -> None:
    (by_skops.parent / "other.skops").write_bytes(b"somebody else's")
    (by_skops / "link.skops").symlink_to(by_skops.parent / "other.skops")
    file = by_skops / "MLmodel"
    file.write_text(file.read_text().replace("pickled_model: model.skops", f"pickled_model: {name}"))
    with pytest.raises(CannotScaffold, match=r"lies outside of|is not there"):
        made(by_skops)


def test_weights_beside_a_graph_travel_along(made: Made, tmp_path: Path) -> None:
    folder = logged(tmp_path, "onnx", "model.onnx", b"", data="model.onnx")
    save_with_weights_beside(folder / "model.onnx", ["petal length (cm)", "petal width"])
    package = made(folder)
    assert set(package.manifest.files) == {"mlflow/MLmodel", "mlflow/weights.bin"}
    (answer,) = load_runtime(package).predict([{"petal length (cm)": 1.0, "petal width": 2.0}])
    assert answer == {"y": 3.0 * sum(range(WIDTH_OF_WEIGHTS))}
