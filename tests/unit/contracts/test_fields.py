"""The field model: what a form needs, from every schema that a package can have."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import UNSET

from foretell.contracts.fields import MAX_DEPTH, MAX_NESTED_FIELDS, Field, Words, fields_of, read_fields
from foretell.inference.registry import Registry, shipped_folder
from foretell.inference.schema import Validator


def one(schema: Any, **more: Any) -> Field:
    """The field `x` of an object that has it alone."""
    (field,) = fields_of({"type": "object", "properties": {"x": schema}, **more})
    return field


def said(schema: Any, **more: Any) -> dict[str, Any]:
    """What JSON says of the field `x` besides its name and title."""
    made = msgspec.to_builtins(one(schema, **more))
    quiet = {"description": None, "required": False, "nullable": False}
    return {name: value for name, value in made.items() if name not in ("name", "title") and value != quiet.get(name)}


def choices(*values: Any) -> list[dict[str, Any]]:
    """Choices that are called as they are written."""
    names = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return [{"value": value, "label": {"en": name, "ru": name}} for value, name in zip(values, names, strict=True)]


KINDS = {
    "number": ({"type": "number", "minimum": 0, "exclusiveMaximum": 5.5}, {"minimum": 0, "exclusive_maximum": 5.5}),
    "integer": ({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 5},
                {"exclusive_minimum": 0, "multiple_of": 5}),
    "boolean": ({"type": "boolean"}, {}),
    "text": ({"type": "string", "minLength": 1, "maxLength": 9.0, "pattern": "^a"},
             {"min_length": 1, "max_length": 9, "pattern": "^a"}),
    "time": ({"type": "string", "format": "time"}, {}),
    "date": ({"type": "string", "format": "date"}, {}),
    "datetime": ({"type": "string", "format": "date-time"}, {}),
    "choice": ({"enum": ["a", 1, True]}, {"choices": choices("a", 1, True)}),
    "list": ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3, "uniqueItems": True},
             {"min_items": 2, "max_items": 3, "unique_items": True, "items": {
                 "name": "x", "kind": "integer", "title": {"en": "X", "ru": "X"}, "description": None,
                 "required": True, "nullable": False}}),
    "object": ({"type": "object", "required": ["y"], "properties": {"y": {"type": "boolean"}}},
               {"fields": [{"name": "y", "kind": "boolean", "title": {"en": "Y", "ru": "Y"}, "description": None,
                            "required": True, "nullable": False}]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_says_what_there_is_to_say_and_no_more(kind: str) -> None:
    schema, more = KINDS[kind]
    assert said(schema) == {"kind": kind, **more}


NULLABLE = {
    "a list of types": {"type": ["integer", "null"], "minimum": 1},
    "anyOf, as pydantic writes it": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
    "oneOf": {"oneOf": [{"type": "null"}, {"type": "integer", "minimum": 1}]},
    "one union in another": {"anyOf": [{"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1}]}]},
    "behind a reference": {"anyOf": [{"$ref": "#/$defs/Count"}, {"const": None}]},
    "bounds of the whole": {"minimum": 1, "anyOf": [{"type": "integer"}, {"type": "null"}]},
}


@pytest.mark.parametrize("schema", NULLABLE.values(), ids=NULLABLE)
def test_null_beside_one_type_is_a_nullable_field_and_no_choice_of_types(schema: dict[str, Any]) -> None:
    definitions = {"Count": {"type": "integer", "minimum": 1}}
    assert said(schema, **{"$defs": definitions}) == {"kind": "integer", "minimum": 1, "nullable": True}


CHOICES = {
    "const": ({"const": "a"}, ["a"], False),
    "enum with null": ({"enum": ["a", None, "b"]}, ["a", "b"], True),
    "enum whose type leaves out null": ({"type": "string", "enum": ["a", None]}, ["a"], False),
    "values of another type": ({"type": "string", "enum": ["a", 5]}, ["a"], False),
    "oneOf of consts": ({"oneOf": [{"const": 1}, {"const": 2}]}, [1, 2], False),
    "enums in a union": ({"anyOf": [{"enum": ["a", "b"]}, {"const": 1}, {"type": "null"}]}, ["a", "b", 1], True),
    "one truth value": ({"type": "boolean", "const": True}, [True], False),
    "1 and true": ({"enum": [1, True]}, [1, True], False),
}


@pytest.mark.parametrize(("schema", "values", "nullable"), CHOICES.values(), ids=CHOICES)
def test_whatever_lists_its_values_is_a_choice(schema: dict[str, Any], values: list[Any], nullable: bool) -> None:
    field = one(schema)
    assert (field.kind, field.nullable) == ("choice", nullable)
    assert json.dumps([choice.value for choice in field.choices or []]) == json.dumps(values)


def test_labels_are_in_both_languages_where_they_were_written() -> None:
    words = {"x-enum-labels": {"1": "Clear", "2": "Cloudy"}, "x-enum-labels-ru": {"1": "Ясно"}}
    expected = [(1, Words("Clear", "Ясно")), (2, Words("Cloudy", "Cloudy")), (3, Words("3", "3"))]
    field = one({"enum": [1, 2, 3], **words})
    assert [(choice.value, choice.label) for choice in field.choices or []] == expected
    # Without a list, the values that have words are the usual ones among others.
    field = one({"type": "integer", **words})
    assert field.kind == "choice"
    assert [(choice.value, choice.label) for choice in field.choices or []] == expected[:2]
    field = one({"oneOf": [{"const": 1, "title": "Clear", "x-title-ru": "Ясно"}, {"const": 3}], "title": "Weather"})
    assert [(choice.value, choice.label) for choice in field.choices or []] == [expected[0], expected[2]]
    assert field.title == Words("Weather", "Weather")
    field = one({"enum": [True, False], "x-enum-labels": {"true": "Smokes", "false": "Does not"}})
    assert field.kind == "choice"
    assert [choice.label.en for choice in field.choices or []] == ["Smokes", "Does not"]


def test_two_truth_values_without_words_are_a_boolean() -> None:
    assert said({"type": "boolean", "enum": [False, True]}) == {"kind": "boolean"}
    assert said({"anyOf": [{"enum": [True, False]}, {"type": "null"}]}) == {"kind": "boolean", "nullable": True}


def test_words_come_from_the_schema_in_both_languages() -> None:
    schema = {"type": "number", "title": "Distance", "x-title-ru": "Расстояние", "description": "In miles",
              "x-description-ru": "В милях", "x-unit": "miles", "x-unit-ru": "мили"}  # fmt: skip
    field = one(schema)
    assert field.title == Words("Distance", "Расстояние")
    assert field.description == Words("In miles", "В милях")
    assert field.unit == Words("miles", "мили")
    assert one({"x-title-ru": "Текст"}).title == Words("Текст", "Текст")
    (field,) = fields_of({"properties": {"dep_hour": {"title": " "}}})
    assert field.title == Words("Dep hour", "Dep hour")


def test_words_of_another_kind_than_text_are_passed_over() -> None:
    schema = {"type": "string", "x-title-ru": 5, "x-enum-labels": ["a"], "x-enum-labels-ru": 1, "x-unit": {},
              "x-format": ["time"]}  # fmt: skip
    assert said(schema) == {"kind": "text"}
    assert one({"enum": ["a"], "x-enum-labels": {"a": 5}}).choices == one({"enum": ["a"]}).choices


def test_the_title_of_a_class_gives_way_to_the_name_of_the_field() -> None:
    definitions = {
        "Address": {"title": "Address", "type": "string"},
        "Carrier": {"title": "Carrier", "x-title-ru": "Перевозчик", "type": "string"},
    }
    made = fields_of(
        {
            "$defs": definitions,
            "properties": {
                "home": {"$ref": "#/$defs/Address"},
                "work": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]},
                "code": {"$ref": "#/$defs/Carrier"},
                "own": {"$ref": "#/$defs/Carrier", "title": "Airline"},
            },
        }
    )
    assert [field.title.en for field in made] == ["Home", "Work", "Carrier", "Airline"]


def test_examples_and_defaults_come_from_the_field_or_from_the_whole() -> None:
    schema = {
        "properties": {
            "a": {"type": "integer", "examples": [1, 2], "default": 5},
            "b": {"type": "integer"},
            "c": {"type": "array", "items": {"type": "string"}},
            "d": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            "e": {"type": "integer", "examples": ["no number"], "default": "none either"},
            "f": {"type": "integer"},
        },
        "examples": [{"a": 7, "b": 8}],
    }
    made = {field.name: field for field in fields_of(schema)}
    assert (made["a"].example, made["b"].example) == (1, 8)
    made = {field.name: field for field in fields_of({**schema, "examples": []}, {"a": 3, "b": 4, "c": ["x"]})}
    assert (made["a"].example, made["a"].default, made["b"].example, made["c"].example) == (1, 5, 4, ["x"])
    assert made["c"].items is not None
    assert made["c"].items.example == "x"
    assert made["d"].default is None
    assert (made["e"].example, made["e"].default, made["f"].example) == (UNSET, UNSET, UNSET)
    assert made["a"].example_ru is UNSET
    russian = {"type": "string", "examples": ["Kind", "Quick"], "x-examples-ru": ["Вежливо", 5]}
    (text,) = fields_of({"properties": {"text": russian}})
    assert (text.example, text.example_ru) == ("Kind", "Вежливо")
    (text,) = fields_of({"properties": {"text": {**russian, "x-examples-ru": [5]}}})
    assert text.example_ru is UNSET


def test_bounds_that_no_number_of_json_reaches_are_not_said() -> None:
    assert said({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}) == {"kind": "integer"}
    assert said({"type": "integer", "minimum": 2**53}) == {"kind": "integer", "minimum": 2**53}
    assert said({"type": "string", "minLength": 0}) == {"kind": "text"}


REFERENCES = {
    "a reference": ({"$ref": "#/$defs/a~1b%20c"}, {"kind": "integer", "minimum": 1}),
    "with a bound beside it": ({"$ref": "#/$defs/a~1b%20c", "maximum": 9},
                               {"kind": "integer", "minimum": 1, "maximum": 9}),
    "allOf": ({"allOf": [{"$ref": "#/$defs/a~1b%20c"}, {"type": "number", "minimum": 0}]},
              {"kind": "integer", "minimum": 1}),
    "into a list": ({"$ref": "#/$defs/Both/anyOf/1"}, {"kind": "text"}),
    "a number or its text": ({"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^[0-9.]+$"}]},
                             {"kind": "number"}),
    "numbers of both kinds": ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, {"kind": "number"}),
}  # fmt: skip
DEFINITIONS = {
    "a/b c": {"type": "integer", "minimum": 1},
    "Both": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}}},
    "Round": {"$ref": "#/$defs/Round"},
}


@pytest.mark.parametrize(("schema", "expected"), REFERENCES.values(), ids=REFERENCES)
def test_parts_are_put_together(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert said(schema, **{"$defs": DEFINITIONS}) == expected


NOT_FLAT = {
    "several types": {"type": ["integer", "string"]},
    "a union": {"$ref": "#/$defs/Both"},
    "numbers of which only one kind may fit": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "a circle": {"$ref": "#/$defs/Round"},
    "a reference to nothing": {"$ref": "#/$defs/Nothing"},
    "another document": {"$ref": "https://example.com/schema"},
    "a dictionary": {"type": "object", "additionalProperties": {"type": "number"}},
    "a tuple": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}]},
    "two patterns": {"allOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]},
    "types that exclude one another": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "a union of objects": {"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object"}]},
}


@pytest.mark.parametrize("schema", NOT_FLAT.values(), ids=NOT_FLAT)
def test_what_cannot_be_said_flat_is_json(schema: dict[str, Any]) -> None:
    assert said({"title": "Thing", **schema}, **{"$defs": DEFINITIONS}) == {"kind": "json"}
    assert one({"title": "Thing", **schema}, **{"$defs": DEFINITIONS}).title == Words("Thing", "Thing")


def test_anything_is_json_that_may_be_null() -> None:
    assert said({}) == said(True) == {"kind": "json", "nullable": True}
    assert said({"type": "null"}) == {"kind": "json", "nullable": True}
    # A field that no value fits is none.
    assert fields_of({"properties": {"x": False}}) == []
    (field,) = fields_of({"required": ["y"]})
    assert (field.name, field.kind, field.required) == ("y", "json", True)


def test_a_tree_ends_where_it_comes_round_again() -> None:
    field = one({"$ref": "#/$defs/Tree"}, **{"$defs": DEFINITIONS})
    assert field.fields is not None
    assert [inner.kind for inner in field.fields] == ["json"]


def test_forms_are_bounded_whatever_the_schema() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        deep = {"type": "object", "properties": {"x": deep}}
    depth, (field,) = 1, fields_of(deep)
    while field.fields:
        depth, (field,) = depth + 1, field.fields
    assert (depth, field.kind) == (MAX_DEPTH, "json")
    # Each of sixteen leads to sixteen more: a few lines, and 16 ** 6 fields.
    definitions = {
        f"D{level}": {
            "type": "object",
            "properties": {f"p{number}": {"$ref": f"#/$defs/D{level + 1}"} for number in range(16)},
        }
        for level in range(30)
    }
    made = fields_of({"$defs": definitions, **definitions["D0"]})
    assert len(json.dumps(msgspec.to_builtins(made)).split('"name"')) < 16 + MAX_NESTED_FIELDS * 17
    # The same with unions.
    definitions = {f"D{level}": {"anyOf": [{"$ref": f"#/$defs/D{level + 1}"}] * 2} for level in range(40)}
    assert one({"$ref": "#/$defs/D0"}, **{"$defs": definitions}).kind == "json"
    many = fields_of({"properties": {f"x{number}": {"type": "number"} for number in range(5_000)}})
    assert {field.kind for field in many} == {"number"}


def test_the_shipped_models_speak_both_languages_throughout() -> None:
    registry = Registry.discover(shipped_folder())
    made = {name: {field.name: field for field in registry.get(name).fields} for name in registry.names}
    assert {name: [field.kind for field in fields.values()] for name, fields in made.items()} == {
        "flight-delay": ["choice", "time", "number", "choice"],
        "sentiment": ["text"],
    }
    for fields in made.values():
        for field in fields.values():
            assert field.required
            assert field.example is not UNSET
            assert field.description is not None
            for words in (field.title, field.description):
                assert any("а" <= letter <= "я" for letter in words.ru.lower())
                assert words.en.isascii()
    flight = made["flight-delay"]
    carriers = {choice.value: choice.label.en for choice in flight["carrier"].choices or []}
    assert len(carriers) == 16
    assert carriers["B6"] == "JetBlue Airways"
    weather = [(choice.value, choice.label) for choice in flight["weather_code"].choices or []]
    assert weather == [
        (1, Words("Clear", "Ясно")),
        (2, Words("Cloudy", "Облачно")),
        (3, Words("Rain", "Дождь")),
        (4, Words("Thunderstorm", "Гроза")),
    ]
    assert flight["distance_miles"].unit == Words("miles", "мили")
    assert (flight["distance_miles"].exclusive_minimum, flight["distance_miles"].maximum) == (0, 5000)


# Whatever a schema says


_names = st.sampled_from(["a", "b", "c"])
_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
_counts = st.integers(0, 4)
_words = st.one_of(st.text(max_size=5), st.dictionaries(_names, _scalars, max_size=2), _scalars)
_types = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])
_references = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/$defs/nothing", "#/properties/a", "#/anyOf/0"])


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    branches = st.lists(inner, min_size=1, max_size=3)
    parts = {
        "type": _types | st.lists(_types, min_size=1, max_size=3, unique=True),
        "enum": st.lists(_scalars, min_size=1, max_size=3),
        "const": _scalars,
        "$ref": _references,
        "properties": st.dictionaries(_names, inner, max_size=3),
        "required": st.lists(_names, max_size=2, unique=True),
        "additionalProperties": inner,
        "items": inner,
        "prefixItems": branches,
        "anyOf": branches,
        "oneOf": branches,
        "allOf": branches,
        "not": inner,
        "default": _scalars,
        "examples": st.lists(_scalars, max_size=2),
        "format": st.sampled_from(["time", "date", "date-time", "email"]),
        "uniqueItems": st.booleans(),
        **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], st.integers(-5, 5)),
        **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems"], _counts | _counts.map(float)),
        **dict.fromkeys(["title", "description"], st.text(max_size=4)),
        **dict.fromkeys(["x-title-ru", "x-unit", "x-format", "x-enum-labels", "x-enum-labels-ru"], _words),
    }
    return st.lists(st.sampled_from(sorted(parts)), max_size=4, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({name: parts[name] for name in chosen})
    )


_schemas = st.recursive(st.booleans() | st.just({}), _keywords, max_leaves=8)


@given(_keywords(_schemas), st.dictionaries(_names, _schemas, max_size=2), _scalars | st.dictionaries(_names, _scalars))
def test_no_schema_makes_it_fail(schema: dict[str, Any], definitions: dict[str, Any], example: Any) -> None:
    whole = {**schema, "$defs": definitions}
    try:
        Validator(whole)
    except ValueError:
        assume(False)
    made = fields_of(whole, example)
    assert read_fields(msgspec.json.decode(msgspec.json.encode(made))) == made
