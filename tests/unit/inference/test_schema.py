"""What fits a schema, and how misfits are explained."""

import tracemalloc
from typing import Any

import pytest

from foretell.inference.schema import MAX_PROBLEMS, Validator, is_finite, sentence

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["carrier", "hour"],
    "properties": {
        "carrier": {"type": "string", "enum": ["AA", "UA"]},
        "hour": {"type": "integer", "minimum": 0, "maximum": 23},
        "distance": {"type": "number", "exclusiveMinimum": 0},
        "time": {"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$", "examples": ["08:45"]},
        "note": {"type": ["string", "null"], "maxLength": 3},
        "items": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    },
}


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator(SCHEMA)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"carrier": "ZZ"}, ("carrier", "must be one of AA, UA")),
        ({"hour": 24}, ("hour", "must be at most 23")),
        ({"hour": -1}, ("hour", "must be at least 0")),
        ({"hour": True}, ("hour", "must be a whole number")),
        ({"hour": "9"}, ("hour", "must be a whole number")),
        ({"distance": 0}, ("distance", "must be greater than 0")),
        ({"distance": float("nan")}, ("distance", "must be a finite number")),
        ({"distance": float("inf")}, ("distance", "must be a finite number")),
        ({"distance": 10**400}, ("distance", "must be a finite number")),
        ({"time": "8:45"}, ("time", 'must look like "08:45"')),
        ({"time": "08:45\n"}, ("time", 'must look like "08:45"')),
        ({"note": "long"}, ("note", "must have at most 3 characters")),
        ({"items": [{}, {}, {}, {"x": "1"}]}, ("items.3.x", "must be a whole number")),
        ({"colour": 1}, ("colour", "is not a field of this model")),
    ],
)
def test_a_misfit_is_refused_and_named(validator: Validator, change: dict[str, Any], problem: tuple[str, str]) -> None:
    value = {"carrier": "AA", "hour": 9, **change}
    assert not validator.is_valid(value)
    assert not validator.are_valid([{"carrier": "AA", "hour": 9}, value])
    assert validator.problems(value) == [problem]


@pytest.mark.parametrize("pattern", [r"\S", r"^[^\u0000]*[^\s\u0000][^\u0000]*$", r"^.*[^\s].*$"])
@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0"])
def test_a_blank_text_is_said_to_be_blank_once(pattern: str, text: str) -> None:
    field = {"type": "string", "minLength": 1, "pattern": pattern, "examples": ["The crew was kind."]}
    assert Validator({"properties": {"text": field}}).problems({"text": text}) == [("text", "must not be blank")]


def test_a_text_with_nul_is_not_told_to_look_like_another() -> None:
    field = {"type": "string", "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$", "examples": ["The crew was kind."]}
    problems = Validator({"properties": {"text": field}}).problems({"text": "kind\0"})
    assert problems == [("text", "must not contain the character NUL")]


def test_options_are_named_as_a_caller_writes_them() -> None:
    validator = Validator({"properties": {"field": {"enum": [True, None, 1.5, "да"]}}})
    assert validator.problems({"field": "True"}) == [("field", "must be one of true, null, 1.5, да")]


def test_one_cause_is_one_problem_and_two_are_two() -> None:
    properties = {
        "carrier": {"type": "string", "minLength": 2, "maxLength": 2, "enum": ["AA", "UA"]},
        "time": {"type": "string", "minLength": 5, "pattern": "^[0-9]{2}:[0-9]{2}$", "examples": ["08:45"]},
        "step": {"type": "integer", "maximum": 3, "multipleOf": 2},
    }
    validator = Validator({"properties": properties})
    for carrier in ("", "A", "AAA", 5):
        assert validator.problems({"carrier": carrier}) == [("carrier", "must be one of AA, UA")]
    for time in ("", " ", "8:45"):
        assert validator.problems({"time": time}) == [("time", 'must look like "08:45"')]
    assert {message for _, message in validator.problems({"step": 5})} == {
        "must be at most 3",
        "must be a multiple of 2",
    }


def test_what_fits_has_no_problems(validator: Validator) -> None:
    value = {"carrier": "AA", "hour": 9, "distance": 5e-324, "time": "08:45", "note": None, "items": [{"x": 1}]}
    assert validator.is_valid(value)
    assert validator.are_valid([value, {"carrier": "UA", "hour": 0}])
    assert validator.problems(value) == []


def test_every_missing_field_is_named(validator: Validator) -> None:
    assert validator.problems({}) == [("carrier", "is missing"), ("hour", "is missing")]
    assert sentence(validator.problems({})) == "carrier is missing; hour is missing."


@pytest.mark.parametrize("value", [None, [], "text", 1, b"bytes", {1: 2}, {"carrier": "\ud800", "hour": 1}, object()])
def test_what_is_no_object_or_no_json_is_refused(validator: Validator, value: Any) -> None:
    assert not validator.is_valid(value)
    assert not validator.are_valid([{"carrier": "AA", "hour": 9}, value])
    assert validator.problems(value)


@pytest.mark.parametrize("hidden", [float("nan"), float("-inf"), 10**309, [[{"a": (1, float("nan"))}]]])
def test_a_schema_that_allows_anything_still_wants_finite_numbers(hidden: Any) -> None:
    validator = Validator({"type": "object"})
    assert not validator.is_valid({"deep": [hidden]})
    assert not validator.are_valid([{"deep": []}, {"deep": [hidden]}])
    ((field, message),) = validator.problems({"deep": [hidden]})
    assert field.startswith("deep.0")
    assert message == "must be a finite number"


def test_the_callers_values_are_not_in_the_messages() -> None:
    validator = Validator({"type": "object", "properties": {"a": {"not": {"type": "string"}}, "b": {"const": 1}}})
    text = sentence(validator.problems({"a": "hunter2", "b": "hunter2"}))
    assert "hunter2" not in text
    assert "a " in text


def test_a_hostile_value_gets_a_bounded_answer(validator: Validator) -> None:
    value = {f"field\n{number}" + "x" * 1000: 1 for number in range(10_000)}
    problems = validator.problems(value)
    assert len(problems) <= MAX_PROBLEMS
    assert "\n" not in sentence(problems)
    assert all(len(field) <= 60 for field, _ in problems)


def test_what_is_wrong_with_a_long_text_is_said_without_a_copy_of_it_for_each_problem() -> None:
    schema = {
        "type": "object",
        "required": ["a", "b", "c", "d"],
        "properties": {"text": {"type": "string", "maxLength": 100_000}, "many": {"items": {"pattern": "^x*$"}}},
    }
    checked = Validator(schema)
    value = {"text": "x" * 8_000_000, "many": ["x", "x" * 8_000_000]}
    tracemalloc.start()
    try:
        found = checked.problems(value)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ("text", "must have at most 100000 characters") in found
    assert len(found) == 5
    assert most < 8_000_000
    # What was all right up to where it is cut off is looked at as a whole.
    assert checked.problems({**dict.fromkeys("abcd"), "text": "x" * 100_001}) == [
        ("text", "must have at most 100000 characters")
    ]
    odd = {**dict.fromkeys("abcd"), "many": ["x" * 300_000 + "y"]}
    assert checked.problems(odd) == [("many.0", "must match ^x*$")]
    assert checked.problems({**dict.fromkeys("abcd"), "text": "x" * 100_000}) == []


def test_depth_does_not_overflow(validator: Validator) -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert is_finite(deep)
    value = {"carrier": "AA", "hour": 9, "items": deep}
    assert not validator.is_valid(value)
    assert not validator.are_valid([value, value])


def test_what_refers_to_its_own_document_is_asked_one_by_one() -> None:
    whole = {"type": "integer", "minimum": 1}
    for schema in (
        {"$defs": {"n": whole}, "properties": {"n": {"$ref": "#/$defs/n"}}},
        {"properties": {"n": {"$id": "urn:n", **whole}}},
        {"properties": {"n": whole, "more": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
    ):
        validator = Validator(schema)
        assert validator.is_valid({"n": 1, "more": None})
        assert not validator.is_valid({"n": 0})
        assert not validator.are_valid([{"n": 1}, {"n": 1}])


def test_a_schema_that_names_its_dialect_can_be_asked_for_many() -> None:
    validator = Validator({"$schema": "https://json-schema.org/draft/2020-12/schema", **SCHEMA})
    assert validator.are_valid([{"carrier": "AA", "hour": 9}] * 2)
    assert not validator.are_valid([{"carrier": "AA", "hour": 9}, {"carrier": "AA", "hour": 99}])


def test_a_reference_elsewhere_is_never_fetched() -> None:
    with pytest.raises(ValueError, match="Retrieval is disabled"):
        Validator({"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}})


@pytest.mark.parametrize(
    "large",
    [[[] for _ in range(50_000)], {str(number): 0 for number in range(50_000)}, [{"a": [0] * 200}] * 500],
)
def test_a_large_value_is_explained_without_a_walk_through_it(large: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "number"}, "y": {"type": "array", "maxItems": 3}},
        "required": ["x", "z"],
    }
    validator = Validator(schema)
    cut = validator._cut.of({"x": large, "y": large, "z": large})
    assert all(len(part) <= 110 for part in cut.values())
    kind = "y" if isinstance(large, list) else "x"
    assert ("z", "is missing") in validator.problems({"x": 1, "y": large})
    told = dict(validator.problems({"x": large, "y": large, "z": 1}))
    assert told["x"] == "must be a number"
    assert told[kind] == {"x": "must be a number", "y": "must have at most 3 items"}[kind]
    # A field of the schema far behind is still seen.
    assert validator.problems({str(number): 0 for number in range(5000)} | {"x": 1, "z": 1}) == []
    behind = {str(number): 0 for number in range(5000)} | {"x": "1", "z": 1}
    assert validator.problems(behind) == [("x", "must be a number")]


def test_what_only_the_whole_value_shows_is_still_found() -> None:
    late = [1.0] * 5000 + ["x"]
    assert Validator({"type": "array", "items": {"type": "number"}}).problems(late) == [("5000", "must be a number")]
    assert Validator({"type": "array"}).problems([1.0] * 5000 + [float("inf")]) == [("5000", "must be a finite number")]
    assert Validator({"type": "array", "contains": {"const": 1}, "maxItems": 3}).problems([0] * 500 + [1]) == [
        ("", "must have at most 3 items")
    ]
    assert Validator({"type": "array", "minItems": 300}).problems([0] * 299) == [("", "must have at least 300 items")]
