"""Checks of packages: what is right passes, and each thing that is wrong is found and named."""

from collections.abc import Callable
from typing import Any

import pytest

from foretell.inference.checking import Finding, check
from foretell.inference.differences import differs
from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.reference import Numbers, Reference, write_reference
from foretell.inference.sampling import samples
from foretell.inference.schema import Validator

from .conftest import MakePackage, Model

EXAMPLE = "[[examples]]\nfeatures = { x = 2.0 }\noutput = { y = 4.0 }\n"
Answer = Callable[[dict[str, Any]], dict[str, Any]]


def double(row: dict[str, Any]) -> dict[str, Any]:
    return {"y": row["x"] * 2.0}


class Together(Model):
    """Answers rows that come together with their sum: the mistake that a check of batches is there for."""

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        total = sum(row["x"] for row in rows)
        return [{"y": total * 2.0} for _ in rows]


@pytest.fixture
def checked(make_package: MakePackage) -> Callable[..., dict[str, Finding]]:
    """What is found in a package around a model, by step."""

    def run(model: Any, **package: Any) -> dict[str, Finding]:
        findings: list[Finding] = []
        sound = check(make_package(**package), lambda _: model, findings.append)
        assert (sound is None) == any(finding.outcome == "wrong" for finding in findings)
        return {finding.step: finding for finding in findings}

    return run


Checked = Callable[..., dict[str, Finding]]


def test_a_sound_package_passes_every_step(checked: Checked) -> None:
    findings = checked(Model(double), more=EXAMPLE)
    assert {step: finding.outcome for step, finding in findings.items()} == {
        "package": "ok",
        "load": "ok",
        "examples": "ok",
        "rows": "ok",
        "batch": "ok",
        "time": "ok",
        "reference": "ok",
    }


def test_without_examples_there_is_a_warning(checked: Checked) -> None:
    assert checked(Model(double))["examples"].outcome == "warning"


@pytest.mark.parametrize(
    ("more", "outcome"), [("", "wrong"), ("tolerance = 0.03\n", "ok"), ("tolerance = 0.01\n", "wrong")]
)
def test_numbers_may_be_as_far_from_the_examples_as_the_manifest_says(
    checked: Checked, more: str, outcome: str
) -> None:
    findings = checked(Model(lambda row: {"y": row["x"] * 2.0 + 0.02}), more=more + EXAMPLE)
    assert findings["examples"].outcome == outcome


def test_what_its_reference_lacks_is_named(make_package: MakePackage) -> None:
    folder = make_package(more=EXAMPLE)
    write_reference(folder, Reference(500, {"x": Numbers([0.0, 1.0, 2.0], [250, 250])}))
    findings: list[Finding] = []
    assert check(folder, lambda _: Model(double), findings.append) is not None
    found = next(each for each in findings if each.step == "reference")
    assert found.outcome == "warning"
    assert found.detail == "drift of these can't be seen: output y: The reference lacks it"


@pytest.mark.parametrize(
    ("answer", "step", "words"),
    [
        (lambda row: {"y": 4.1}, "examples", "y is 4.1, not 4.0"),
        (lambda row: {"y": 4.0, "z": 1}, "examples", "another output"),
        (lambda row: {"y": 1 / 0}, "examples", "ZeroDivisionError: division by zero"),
        (lambda row: {"y": 4.0} if row["x"] == 2 else {"y": "many"}, "rows", "y must be a number"),
        (lambda row: {"y": 4.0} if row["x"] == 2 else {"y": [][0]}, "rows", "IndexError"),
    ],
)
def test_what_the_model_does_wrong_is_named(checked: Checked, answer: Answer, step: str, words: str) -> None:
    finding = checked(Model(answer), more=EXAMPLE)[step]
    assert finding.outcome == "wrong"
    assert words in finding.detail


def test_rows_that_influence_one_another_are_found(checked: Checked) -> None:
    finding = checked(Together(double), more=EXAMPLE)["batch"]
    assert finding.outcome == "wrong"
    assert "max_batch = 1" in finding.detail
    assert checked(Together(double), folder="alone", max_batch=1)["batch"].outcome == "ok"


def test_a_package_that_cannot_be_read_or_loaded_is_not_checked_further(
    checked: Checked, make_package: MakePackage
) -> None:
    assert list(checked(Model(double), more="price = 3")) == ["package"]

    def load(package: ModelPackage) -> Any:
        raise PackageBroken("The model is made of clay", package.path, "Bake it.")

    findings: list[Finding] = []
    assert check(make_package("clay"), load, findings.append) is None
    assert [finding.step for finding in findings] == ["package", "load"]
    assert "clay" in findings[-1].detail


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ({"a": 0.1234}, {"a": 0.1235}, None),
        ({"a": 0.1234}, {"a": 0.1240}, "a is 0.124, not 0.1234"),
        ({"a": 1}, {"a": 2}, "a is 2, not 1"),
        ({"a": 1}, {"a": True}, "a is True, not 1"),
        ({"a": [1.0, {"b": "x"}]}, {"a": [1.0, {"b": "y"}]}, "a[1].b is y, not x"),
        ({"a": 1}, {"b": 1}, "the output is {'b': 1}, not {'a': 1}"),
        ({"a": None}, {"a": None}, None),
    ],
)
def test_differences(one: Any, other: Any, difference: str | None) -> None:
    assert differs(one, other) == difference


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 7}}},
        {"type": "object", "required": ["a"], "properties": {"a": {"enum": ["x", 3, None]}}},
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "minLength": 9, "maxLength": 9}}},
        {"type": "object", "required": ["a"], "properties": {"a": {"type": ["number", "null"], "exclusiveMaximum": 0}}},
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "array", "items": {"type": "boolean"}}}},
        {
            "$defs": {"Part": {"type": "object", "required": ["n"], "properties": {"n": {"const": 3}}}},
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]}},
        },
    ],
)
def test_made_up_values_fit_and_are_always_the_same(schema: dict[str, Any]) -> None:
    rows = samples(schema, 10)
    assert len(rows) == 10
    assert all(Validator(schema).is_valid(row) for row in rows)
    assert rows == samples(schema, 10)


def test_what_cannot_be_made_up_is_left_out() -> None:
    code = {"type": "string", "pattern": "^[A-Z]{9}$"}
    assert samples({"type": "object", "required": ["a"], "properties": {"a": code}}, 10) == []
