"""scikit-learn by skops: what it guesses, what it answers, and what it refuses to load."""

import threading
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info

from foretell.inference.package import PackageBroken
from foretell.inference.runtimes import load_runtime
from foretell.inference.runtimes.skops import load
from foretell.inference.scaffolding import CannotScaffold

from . import trained
from .conftest import Made

TREE = "sklearn.tree._tree.Tree"


def dumped(estimator: Any, folder: Path) -> Path:
    file = folder / "Flower Kind.skops"
    skops.io.dump(estimator, file)
    return file


def test_a_classifier_of_named_columns(made: Made, tmp_path: Path) -> None:
    model = trained.flowers()
    package = made(dumped(model, tmp_path))
    assert package.name == "flower-kind"
    assert package.features_schema["required"] == ["petal_length_cm", "petal_width"]
    length = package.features_schema["properties"]["petal_length_cm"]
    assert (length["title"], length["x-unit"]) == ("Petal length", "cm")
    assert package.output_schema["properties"]["prediction"]["enum"] == ["setosa", "versicolor", "virginica"]
    rows = trained.FLOWERS.rename(columns={"petal length (cm)": "petal_length_cm", "petal width": "petal_width"})
    answers = load(package).predict(rows.to_dict("records"))
    assert [answer["prediction"] for answer in answers] == trained.KINDS
    expected = model.predict_proba(trained.FLOWERS)
    for answer, row in zip(answers, expected, strict=True):
        assert answer["probabilities"] == pytest.approx(dict(zip(model.classes_, row, strict=True)), abs=5e-5)
        assert package.output_validator.problems(answer) == []
    (example,) = package.examples
    assert example.features == {"petal_length_cm": 3.833, "petal_width": 1.283}


def test_columns_picked_by_name_and_values_that_were_never_seen(made: Made, tmp_path: Path) -> None:
    model = trained.flights()
    package = made(dumped(model, tmp_path))
    assert package.features_schema["properties"]["carrier"]["enum"] == ["AA", "DL", "UA"]
    assert not package.features_validator.is_valid({"carrier": "XX", "hour": 3})
    rows = [{"carrier": "DL", "hour": 3}, {"carrier": "AA", "hour": 18}]
    answers = load(package).predict(rows)
    expected = model.predict_proba(trained.FLIGHTS.iloc[[3, 18]])[:, 1].round(4)
    assert [answer["probability"] for answer in answers] == expected.tolist()
    assert [answer["prediction"] for answer in answers] == [1, 0]


def test_a_matrix_without_names_is_answered_and_remarked_upon(made: Made, tmp_path: Path) -> None:
    package = made(dumped(trained.line(), tmp_path))
    assert package.features_schema["required"] == ["x1", "x2"]
    assert load(package).predict([{"x1": 1, "x2": 1.0}]) == [{"prediction": pytest.approx(3.0)}]


def test_texts(made: Made, tmp_path: Path) -> None:
    package = made(dumped(trained.texts(), tmp_path))
    assert package.features_schema["properties"]["text"]["type"] == "string"
    answers = load(package).predict([{"text": text} for text in trained.TEXTS])
    assert [answer["prediction"] for answer in answers] == [1, 1, 0, 0]


def test_types_that_nobody_looked_at_are_named_and_not_loaded(made: Made, tmp_path: Path) -> None:
    file = dumped(trained.tree(), tmp_path)
    with pytest.raises(CannotScaffold, match=f"--trust {TREE}"):
        made(file)
    package = made(file, trusted_types=frozenset({TREE}))
    assert load(package).predict([{"petal_length_cm": 1.4, "petal_width": 0.2}])[0]["prediction"] == "setosa"


def test_a_package_that_trusts_less_than_its_artifact_needs_is_broken(made: Made, tmp_path: Path) -> None:
    package = made(
        dumped(trained.tree(), tmp_path),
        lambda manifest: manifest.replace(f'trusted = ["{TREE}"]', ""),
        trusted_types=frozenset({TREE}),
    )
    with pytest.raises(PackageBroken, match=f"not trusted: {TREE}") as refused:
        load(package)
    assert "[options]" in refused.value.message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('{ feature = "petal_width", column = "petal width" },', "", "takes 2 columns"),
        ('method = "predict_proba"', 'method = "predict_log"', "has no"),
        ('feature = "petal_width"', 'feature = "petal_wide"', "does not require"),
        ("columns = [", "colums = [", "do not fit"),
    ],
)
def test_options_that_do_not_fit_the_model_are_named(
    made: Made, tmp_path: Path, old: str, new: str, words: str
) -> None:
    package = made(dumped(trained.flowers(), tmp_path), lambda manifest: manifest.replace(old, new))
    with pytest.raises(PackageBroken, match=words):
        load_runtime(package)


def test_an_artifact_that_is_no_skops_file_is_broken(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "model.skops"
    file.write_bytes(b"not a skops file")
    with pytest.raises(CannotScaffold, match="cannot load"):
        made(file)


def test_a_model_of_many_threads_uses_one(made: Made, tmp_path: Path) -> None:
    x, y = make_classification(200, 5, random_state=0)
    file = dumped(HistGradientBoostingClassifier(max_iter=5).fit(x, y), tmp_path)
    trusted = frozenset(skops.io.get_untrusted_types(file=file))
    runtime = load(made(file, trusted_types=trusted))
    threads: list[int] = []

    class Watching:
        """Stands in for the estimator: notes what OpenMP would do inside a call."""

        classes_ = (0, 1)

        def predict(self, values: Any) -> list[int]:
            threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
            return [0] * len(values)

    from foretell.inference.runtimes.sklearn import Column, Options, SklearnModel

    watched = SklearnModel(Watching(), Options([Column("x1")]), {"properties": {"x1": {"type": "number"}}})
    # Another thread than the one that loaded it, as in a worker.
    calling = threading.Thread(target=lambda: watched.predict([{"x1": 1.0}]))
    calling.start()
    calling.join()
    assert set(threads) == {1}
    assert runtime.predict([{f"x{place}": 0.5 for place in range(1, 6)}])[0]["prediction"] in (0, 1)
