"""A Python class as a model: its types are the schemas, its methods the steps."""

from pathlib import Path

import pytest

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.installing import update
from foretell.inference.package import ModelPackage, PackageBroken, load_package
from foretell.inference.registry import Registry
from foretell.inference.runtimes import load_runtime
from foretell.inference.scaffolding import CannotScaffold

from .conftest import Made

CLASS = """
from pathlib import Path
from pydantic import BaseModel, ConfigDict, Field, field_validator
from foretell.inference.package import InvalidField

class Raw(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1, examples=["12"])

    @field_validator("text")
    @classmethod
    def no_secret(cls, text: str) -> str:
        if text == "secret":
            raise ValueError("must not be that")
        return text

class Features(BaseModel):
    x: float = Field(ge=0)

class Answer(BaseModel):
    y: float
    by: int

class Multiplier:
    def __init__(self) -> None:
        self.factor = 0

    def load(self, folder: Path) -> None:
        self.factor = int((folder / "factor.txt").read_text())

    def preprocess(self, batch: list[Raw]) -> list[Features]:
        if any(raw.text == "nobody knows why" for raw in batch):
            raise RuntimeError(batch)
        return [Features.model_construct(x=float(raw.text)) if raw.text != "none" else InvalidField("text", "is none")
                for raw in batch]

    def predict(self, batch: list[Features]) -> list[Answer]:
        if any(features.x == 13 for features in batch):
            raise ValueError("not 13")
        return [Answer(y=features.x * self.factor, by=self.factor) for features in batch]
"""


@pytest.fixture
def package(made: Made, tmp_path: Path) -> ModelPackage:
    code = CLASS.replace('(folder / "factor.txt").read_text()', "3")
    return made(_written(tmp_path, code))


def _written(folder: Path, code: str) -> Path:
    file = folder / "multiplier.py"
    file.write_text(code)
    return file


def test_the_types_are_the_schemas(package: ModelPackage) -> None:
    assert package.manifest.artifact == ""
    assert package.manifest.preprocessing == "model:Multiplier"
    assert package.input_schema["properties"]["text"]["minLength"] == 1
    assert package.features_schema["properties"]["x"]["minimum"] == 0
    assert package.output_schema["required"] == ["y", "by"]
    (example,) = package.examples
    assert (example.input, example.output) == ({"text": "12"}, {"y": 36.0, "by": 3})


def test_each_row_ends_as_it_deserves(package: ModelPackage) -> None:
    engine = Engine(Registry([package]))
    texts = ["1", "secret", "none", "nobody knows why", "2", "13", "-1"]
    outcomes = engine.predict(package, [{"text": text} for text in texts], "input")
    assert [outcome for outcome in outcomes if not isinstance(outcome, Failure)] == [
        {"y": 3.0, "by": 3},
        {"y": 6.0, "by": 3},
    ]
    failures = {
        text: (outcome.code, outcome.message)
        for text, outcome in zip(texts, outcomes, strict=True)
        if isinstance(outcome, Failure)
    }
    assert failures == {
        "secret": ("invalid_input", "text is wrong: Value error, must not be that."),
        "none": ("invalid_input", "text is none."),
        "nobody knows why": ("invalid_input", "The preprocessing of this model cannot use this input."),
        "13": ("model_error", "The model failed on this input."),
        "-1": ("invalid_input", "After preprocessing: x must be at least 0."),
    }


def test_an_answer_of_another_type_fails_its_row_without_a_word_of_it(made: Made, tmp_path: Path) -> None:
    code = CLASS.replace('(folder / "factor.txt").read_text()', "3").replace(
        "        return [Answer(y=",
        "        strange = {2: None, 3: Answer.model_construct(y='a secret', by=1), 4: {'y': 1.0}}\n"
        "        return [strange[f.x] if f.x in strange else Answer(y=f.x, by=3) for f in batch]\n"
        "        return [Answer(y=",
    )
    package = made(_written(tmp_path, code))
    rows = [{"x": number} for number in (1, 2, 3, 4, 5)]
    # Warnings are errors in tests: pydantic's would hold the value.
    outcomes = Engine(Registry([package])).predict(package, rows, "features")
    failed = Failure("model_error", "The model's answer to this input does not fit its schema.")
    assert outcomes == [{"y": 1.0, "by": 3}, failed, failed, failed, {"y": 5.0, "by": 3}]


def test_preprocessing_needs_no_weights(made: Made, tmp_path: Path) -> None:
    file = _written(tmp_path, CLASS)
    with pytest.raises(CannotScaffold, match=r"cannot be made ready: FileNotFoundError"):
        made(file)
    package = made(_written(tmp_path, CLASS.replace('(folder / "factor.txt").read_text()', "3")))
    (package.path / "model.py").write_text(CLASS)
    engine = Engine(Registry([package]))
    assert engine.preprocess(package, [{"text": "5"}]) == [{"x": 5.0}]
    with pytest.raises(PackageBroken, match=r"factor\.txt"):
        engine.warm("multiplier")
    (package.path / "factor.txt").write_text("7")
    assert engine.predict(package, [{"x": 2}], "features") == [{"y": 14.0, "by": 7}]


def test_types_and_schemas_that_drifted_apart_are_noticed_and_brought_together(package: ModelPackage) -> None:
    file = package.path / "model.py"
    file.write_text(file.read_text().replace("x: float = Field(ge=0)", "x: float"))
    with pytest.raises(PackageBroken, match=r"check --update.*|features\.schema\.json"):
        load_runtime(package)
    assert update(package.path) == ["features.schema.json"]
    fresh = load_package(package.path)
    assert "minimum" not in fresh.features_schema["properties"]["x"]
    assert load_runtime(fresh).predict([{"x": -2}]) == [{"y": -6.0, "by": 3}]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class Silent:\n    def predict(self, batch):\n        return batch", "must say what it takes"),
        (
            "class Loose:\n    def predict(self, batch: list[int]) -> list[int]:\n        return batch",
            "must be an object",
        ),
        ("class Lost:\n    def predict(self, batch: 'list[Gone]') -> list[int]:\n        return batch", "Gone"),
        ("x = 1", "it has none"),
        (
            "class Late:\n    async def predict(self, batch: list[dict[str, int]]) -> list[dict[str, int]]: ...",
            "Late.predict is asynchronous",
        ),
        (
            "class Own: ...\nclass Odd:\n    def predict(self, batch: list[Own]) -> list[Own]: ...",
            "Odd.predict names a type that pydantic can't check",
        ),
        (
            "from typing import Any, Callable\nfrom pydantic import BaseModel\n"
            "class Deed(BaseModel):\n    do: Callable[[], Any]\n"
            "class Doer:\n    def predict(self, batch: list[Deed]) -> list[Deed]: ...",
            "Doer names a type that JSON does not have",
        ),
        ("import no_such_module", "ModuleNotFoundError"),
        ("def", "SyntaxError"),
    ],
)
def test_what_a_file_lacks_is_said(made: Made, tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(CannotScaffold, match=words):
        made(_written(tmp_path, code))


def test_an_artifact_that_was_exchanged_is_not_used(package: ModelPackage) -> None:
    manifest = package.path / "model.toml"
    (package.path / "weights.bin").write_bytes(b"other")
    text = manifest.read_text().replace(
        "price_credits", f'artifact = "weights.bin"\nsha256 = "{"0" * 64}"\nprice_credits'
    )
    manifest.write_text(text)
    with pytest.raises(PackageBroken, match="sha256"):
        load_runtime(load_package(package.path))
    assert update(package.path) == ["model.toml"]
    assert load_runtime(load_package(package.path)).predict([{"x": 1}]) == [{"y": 3.0, "by": 3}]
