"""A new version of a model takes over what people wrote for the one before."""

import json
from pathlib import Path
from typing import Any

import pytest

from foretell.inference.inheriting import version_before
from foretell.inference.package import ModelPackage, load_package
from foretell.inference.runtimes import NOTHING_MORE
from foretell.inference.scaffolding import scaffold

_CODE = """
from pydantic import BaseModel

class Features(BaseModel):
    size: float
    {more}

class Answer(BaseModel):
    price: float

class Model:
    def predict(self, batch: list[Features]) -> list[Answer]:
        return [Answer(price=each.size) for each in batch]
"""


def python_package(folder: Path, version: str, known: list[ModelPackage], more: str = "") -> ModelPackage:
    code = folder / "code.py"
    code.write_text(_CODE.format(more=more))
    made = folder / version
    scaffold(code, made, name="houses", version=version, permissions=NOTHING_MORE, known=known)
    return load_package(made)


def rewritten(package: ModelPackage, changes: dict[str, str]) -> ModelPackage:
    manifest = package.path / "model.toml"
    text = manifest.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text, encoding="utf-8")
    return load_package(package.path)


def test_price_words_time_limit_and_pool_are_those_of_the_version_before(tmp_path: Path) -> None:
    first = python_package(tmp_path, "1.0.0", [])
    assert (first.price_credits, first.title.en) == (1, "Houses")
    first = rewritten(
        first,
        {
            "price_credits = 1": 'price_credits = 7\nqueue = "gpu"\nlabels = { "0" = { en = "a \\"b\\"", ru = "в" } }',
            "timeout_s = 10": "timeout_s = 2.5",
            '"Houses: say what it predicts, and from what."': '"What a house costs"',
        },
    )
    second = python_package(tmp_path, "1.1.0", [first])
    before, after = first.manifest, second.manifest
    for name in ("title", "description", "price_credits", "timeout_s", "queue", "labels"):
        assert getattr(after, name) == getattr(before, name), name
    assert (after.version, after.labels["0"].en) == ("1.1.0", 'a "b"')


def test_a_class_says_by_itself_what_its_fields_are_called(tmp_path: Path) -> None:
    first = python_package(tmp_path, "1.0.0", [])
    schema = first.path / "features.schema.json"
    schema.write_text(schema.read_text().replace('"Size"', '"Floor space"'))
    second = python_package(tmp_path, "2.0.0", [load_package(first.path)], more="rooms: int = 1")
    assert second.features_schema["properties"]["size"]["title"] == "Size"


@pytest.mark.parametrize(
    ("version", "before"), [("1.9.0", "1.2.0"), ("1.10.1", "1.10.0"), ("1.2.0", None), ("0.1.0", None)]
)
def test_before_is_the_newest_that_is_older(tmp_path: Path, version: str, before: str | None) -> None:
    known = [python_package(tmp_path, each, []) for each in ("1.10.0", "1.2.0")]
    found = version_before(known, "houses", version)
    assert (found and found.version) == before
    assert version_before(known, "other", version) is None


def worded(package: Path, stage: str, changes: dict[str, Any]) -> None:
    file = package / f"{stage}.schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    for name, words in changes.items():
        schema["properties"][name] |= words
    file.write_text(json.dumps(schema, ensure_ascii=False), encoding="utf-8")


def test_fields_keep_their_words_where_they_still_say_something_true(tmp_path: Path) -> None:
    pytest.importorskip("skops")
    import pandas
    import skops.io
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def train(version: str, data: dict[str, list[Any]], known: list[ModelPackage]) -> ModelPackage:
        frame = pandas.DataFrame(data)
        encoder = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
        model = make_pipeline(encoder, LinearRegression()).fit(frame, [1.0, 2.0, 3.0])
        skops.io.dump(model, tmp_path / "houses.skops")
        made = tmp_path / version
        scaffold(tmp_path / "houses.skops", made, name=None, version=version, permissions=NOTHING_MORE, known=known)
        return load_package(made)

    first = train("1.0.0", {"town": ["Ulm", "Bonn", "Ulm"], "size": [1.0, 2.0, 3.0]}, [])
    labels = {"Ulm": "Ulm on the Danube", "Bonn": "Bonn on the Rhine"}
    worded(
        first.path,
        "features",
        {
            "town": {"title": "Where", "x-title-ru": "Где", "x-enum-labels": labels, "x-enum-labels-ru": labels},
            "size": {"title": "Floor space", "x-unit": "square metres", "minimum": 0},
        },
    )
    worded(first.path, "output", {"prediction": {"title": "Price", "x-title-ru": "Цена"}})
    first = load_package(first.path)
    second = train("1.1.0", {"town": ["Ulm", "Köln", "Ulm"], "size": [1.0, 2.0, 3.0], "rooms": [1, 2, 3]}, [first])
    town, size, rooms = (second.features_schema["properties"][name] for name in ("town", "size", "rooms"))
    assert (town["title"], town["x-title-ru"], sorted(town["enum"])) == ("Where", "Где", ["Köln", "Ulm"])
    assert town["x-enum-labels"] == town["x-enum-labels-ru"] == {"Ulm": "Ulm on the Danube"}
    assert (size["title"], size["x-unit"]) == ("Floor space", "square metres")
    # What may be asked is the new model's matter.
    assert "minimum" not in size
    assert rooms["title"] == "Rooms"
    assert second.output_schema["properties"]["prediction"]["title"] == "Price"
