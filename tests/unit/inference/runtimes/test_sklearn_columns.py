"""What an estimator gets is what it was trained on: categories, missing values, whole numbers; alone and in a batch."""

import math
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import skops.io
from lightgbm import LGBMClassifier
from sklearn.compose import make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, PackageBroken, load_package
from foretell.inference.registry import Registry
from foretell.inference.runtimes import load_runtime
from foretell.inference.scaffolding import CannotScaffold

from .conftest import Made


def stored(model: Any, folder: Path, made: Made, **options: Any) -> ModelPackage:
    """The package of `model`, stored by skops."""
    file = folder / "model.skops"
    skops.io.dump(model, file)
    trusted = frozenset(skops.io.get_untrusted_types(file=file))
    return made(file, trusted_types=trusted, **options)


def houses() -> tuple[pandas.DataFrame, Any]:
    """Whole numbers and texts as categories, in another order than that of their first appearance."""
    random = numpy.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "zone": pandas.Categorical(random.choice([30, 10, 20], 400), categories=[30, 10, 20]),
            "size": random.normal(size=400),
            "kind": pandas.Categorical(random.choice(["b", "a"], 400)),
        }
    )
    return frame, ((frame["zone"] == 20) & (frame["kind"] == "a")) | (frame["size"] > 1)


@pytest.mark.parametrize(
    "model", [LGBMClassifier(n_estimators=10, verbose=-1), HistGradientBoostingClassifier(max_iter=10)]
)
def test_pandas_categories_are_choices_and_mean_what_they_meant(made: Made, tmp_path: Path, model: Any) -> None:
    frame, wanted = houses()
    model.fit(frame, wanted)
    package = stored(model, tmp_path, made)
    properties = package.features_schema["properties"]
    assert sorted(properties["zone"]["enum"]) == [10, 20, 30]
    assert sorted(properties["kind"]["enum"]) == ["a", "b"]
    rows = frame.astype({"zone": int, "kind": object}).to_dict("records")[:60]
    expected = model.predict_proba(frame[:60])[:, 1].round(4).tolist()
    engine = Engine(Registry([package]))
    together = engine.predict(package, rows, "features")
    alone = [engine.predict(package, [row], "features")[0] for row in rows]
    assert [answer["probability"] for answer in together if isinstance(answer, dict)] == expected
    assert together == alone


def test_a_package_of_before_categories_were_known_is_refused(made: Made, tmp_path: Path) -> None:
    frame, wanted = houses()
    model = LGBMClassifier(n_estimators=3, verbose=-1).fit(frame, wanted)
    package = stored(model, tmp_path, made)
    manifest = package.path / "model.toml"
    manifest.write_text(manifest.read_text().replace(", categories = [30, 10, 20]", ""))
    with pytest.raises(PackageBroken, match=r"categories \[30, 10, 20\] in the column zone"):
        load_runtime(load_package(package.path))


def test_categories_that_json_does_not_have_are_refused(made: Made, tmp_path: Path) -> None:
    days = pandas.Categorical(pandas.to_datetime(["2026-01-01", "2026-01-02"] * 50))
    model = HistGradientBoostingClassifier(max_iter=2).fit(pandas.DataFrame({"day": days}), [0, 1] * 50)
    with pytest.raises(CannotScaffold, match="categories of the type"):
        stored(model, tmp_path, made)


@pytest.mark.parametrize("missing", [None, math.nan])
@pytest.mark.parametrize("dtype", ["str", "object"])
def test_a_missing_text_is_the_same_alone_and_in_a_batch(made: Made, tmp_path: Path, missing: Any, dtype: Any) -> None:
    texts = pandas.Series(["a", "b", missing] * 20, dtype=dtype)
    frame = pandas.DataFrame({"text": texts, "number": range(60)})
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["text"]), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, [0, 0, 1] * 20)
    package = stored(model, tmp_path, made)
    assert package.features_schema["properties"]["text"]["type"] == ["string", "null"]
    runtime = load_runtime(package)
    rows = [{"text": text, "number": 30} for text in ("a", None, "b", None)]
    expected = model.predict_proba(
        pandas.DataFrame({"text": pandas.Series(["a", missing, "b", missing], dtype=dtype), "number": 30})
    )
    together = [answer["probability"] for answer in runtime.predict(rows)]
    assert together == expected[:, 1].round(4).tolist()
    assert together == [runtime.predict([row])[0]["probability"] for row in rows]


def test_whole_numbers_that_a_float_does_not_hold_are_refused(made: Made, tmp_path: Path) -> None:
    numbers = numpy.array([[2**53], [5]] * 10)
    encoder = OneHotEncoder(handle_unknown="ignore")
    package = stored(make_pipeline(encoder, LogisticRegression()).fit(numbers, [0, 1] * 10), tmp_path, made)
    # As a schema of one's own, which says nothing of bounds.
    schema = package.path / "features.schema.json"
    schema.write_text('{"type": "object", "required": ["x1"], "properties": {"x1": {"type": "integer"}}}')
    package = load_package(package.path)
    engine = Engine(Registry([package]))
    fits, beyond, huge = engine.predict(package, [{"x1": 2**53}, {"x1": 2**53 + 1}, {"x1": -(2**70)}], "features")
    assert isinstance(fits, dict)
    refused = Failure("invalid_input", f"x1 must be between {-(2**53)} and {2**53}.")
    assert (beyond, huge) == (refused, refused)


@pytest.mark.parametrize("model", [LinearRegression(), KNeighborsRegressor(2), PLSRegression(1)])
@pytest.mark.parametrize("targets", [1, 2])
def test_targets_that_were_columns(made: Made, tmp_path: Path, model: Any, targets: int) -> None:
    x = numpy.arange(12.0).reshape(6, 2) ** 2
    y = numpy.arange(6.0 * targets).reshape(6, targets)
    package = stored(model.fit(x, y), tmp_path, made)
    (row, two) = Engine(Registry([package])).predict(package, [{"x1": 4, "x2": 9}, {"x1": 0, "x2": 1}], "features")
    assert isinstance(row, dict)
    assert isinstance(two, dict)
    expected = numpy.asarray(model.predict([[4, 9]])).reshape(-1).tolist()
    answer = package.output_schema["properties"]["prediction"]
    if targets == 1:
        assert row["prediction"] == pytest.approx(expected[0])
        assert answer["type"] == "number"
    else:
        assert row["prediction"] == pytest.approx(expected)
        assert (answer["type"], answer["minItems"], answer["maxItems"]) == ("array", 2, 2)


def test_an_estimator_of_another_house_is_named(tmp_path: Path) -> None:
    from foretell.inference.guessing import CannotGuess
    from foretell.inference.runtimes.sklearn_guess import guess_estimator

    class CatBoostClassifier:
        def predict(self, rows: Any) -> Any: ...

    CatBoostClassifier.__module__ = "catboost.core"
    with pytest.raises(CannotGuess, match=r"CatBoostClassifier of catboost .* Export it as ONNX"):
        guess_estimator(CatBoostClassifier(), {"model.joblib": tmp_path})
