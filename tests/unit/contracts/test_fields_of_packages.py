"""Whatever our packages write as a schema gives fields, and whoever fills them in as they say is understood."""

import re
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from pydantic import BaseModel, TypeAdapter, create_model

from foretell.contracts.fields import Field, fields_of
from foretell.inference import guessing
from foretell.inference.registry import Registry, shipped_folder
from foretell.inference.schema import Validator


def filled(fields: Sequence[Field], at_hand: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Every way to fill in a form. `at_hand` has values of fields that are `json`, by name."""
    values = {field.name: _value(field, at_hand) for field in fields}
    required = {field.name for field in fields if field.required}
    return st.fixed_dictionaries(
        {name: value for name, value in values.items() if name in required},
        optional={name: value for name, value in values.items() if name not in required},
    )


def _value(field: Field, at_hand: dict[str, Any]) -> st.SearchStrategy[Any]:
    value = _of_kind(field, at_hand)
    if field.example is not UNSET:
        value = st.just(field.example) | value
    return st.none() | value if field.nullable else value


def _of_kind(field: Field, at_hand: dict[str, Any]) -> st.SearchStrategy[Any]:
    match field.kind:
        case "choice":
            return st.sampled_from([choice.value for choice in field.choices or []])
        case "boolean":
            return st.booleans()
        case "integer":
            return _whole(field)
        case "number":
            return _whole(field) if field.multiple_of else _whole(field) | _float(field)
        case "text":
            return _text(field)
        case "time":
            return _text(field) if field.pattern else st.times().map(lambda at: f"{at:%H:%M}")
        case "date":
            return st.dates().map(date.isoformat)
        case "datetime":
            return st.datetimes().map(datetime.isoformat)
        case "object":
            return filled(field.fields or [], at_hand)
        case "list":
            assert field.items is not None
            most = 4 if field.max_items is None else field.max_items
            return st.lists(
                _value(field.items, at_hand),
                min_size=field.min_items or 0,
                max_size=max(most, field.min_items or 0),
                unique_by=repr if field.unique_items else None,
            )
    return st.just(at_hand[field.name])


def _whole(field: Field) -> st.SearchStrategy[int]:
    step = int(field.multiple_of or 1)
    low = -(2**53) if field.minimum is None else -int(-field.minimum // 1)
    high = 2**53 if field.maximum is None else int(field.maximum // 1)
    if field.exclusive_minimum is not None:
        low = max(low, int(field.exclusive_minimum // 1) + 1)
    if field.exclusive_maximum is not None:
        high = min(high, -int(-field.exclusive_maximum // 1) - 1)
    return st.integers(-(-low // step), high // step).map(lambda number: number * step)


def _float(field: Field) -> st.SearchStrategy[float]:
    low = field.minimum if field.exclusive_minimum is None else field.exclusive_minimum
    high = field.maximum if field.exclusive_maximum is None else field.exclusive_maximum
    return st.floats(
        low,
        high,
        exclude_min=field.exclusive_minimum is not None,
        exclude_max=field.exclusive_maximum is not None,
        allow_nan=False,
        allow_infinity=False,
        width=64,
    )


def _text(field: Field) -> st.SearchStrategy[str]:
    least, most = field.min_length or 0, 60 if field.max_length is None else field.max_length
    if field.pattern is None:
        return st.text(min_size=least, max_size=most)
    # Only up to a line's end does `$` mean the same in every language.
    matching = st.from_regex(field.pattern.replace("$", r"\Z"))
    return matching.filter(lambda text: least <= len(text) <= most and text.isprintable())


# Packages that `foretell models new` makes


_bounds = st.sampled_from([{}, {"minimum": 0}, {"minimum": 0, "maximum": 7}])
_whole_bounds = _bounds | st.sampled_from([{"minimum": -(2**63), "maximum": 2**63 - 1}, {"minimum": 0, "maximum": 255}])
_guessed = st.one_of(
    st.builds(lambda bounds: ("number", (), bounds), _bounds),
    st.builds(lambda bounds: ("integer", (), bounds), _whole_bounds),
    st.just(("boolean", (), {})),
    st.just(("boolean", (False, True), {})),
    st.just(("string", (), {"minLength": 1, "maxLength": 10_000})),
    st.just(("array", (), {"items": {"type": "number"}, "minItems": 2, "maxItems": 2})),
    st.lists(st.text(max_size=5), min_size=1, max_size=5, unique=True).map(lambda names: ("string", names, {})),
    st.lists(st.integers(-9, 9), min_size=1, max_size=5, unique=True).map(lambda codes: ("integer", codes, {})),
    st.lists(st.floats(-9, 9), min_size=1, max_size=5, unique=True).map(lambda codes: ("number", codes, {})),
)
_columns = st.dictionaries(st.text(min_size=1, max_size=8), _guessed, min_size=1, max_size=6)


@given(_columns, st.data())
def test_what_is_read_off_a_model_can_be_filled_in(columns: dict[str, Any], data: st.DataObject) -> None:
    fields = [
        guessing.Field(name, kind, choices=choices, bounds=bounds) for name, (kind, choices, bounds) in columns.items()
    ]
    # Only of single values does a model say that they may be missing.
    single = [field.name for field in fields if field.kind != "array"]
    nullable = data.draw(st.lists(st.sampled_from(single), unique=True)) if single else []
    schema = guessing.with_nulls(guessing.object_schema("Features", fields), nullable)
    made = fields_of(schema)
    assert [(field.name, field.required, field.nullable) for field in made] == [
        (name, True, name in nullable) for name in columns
    ]
    assert "json" not in {field.kind for field in made}
    value = data.draw(filled(made, {}))
    assert Validator(schema).problems(value) == []


# Python classes


class Colour(Enum):
    """A colour."""

    red = "red"
    green = "green"


class Size(IntEnum):
    small = 1
    large = 2


class Point(BaseModel):
    x: float
    y: float | None = None


class Tree(BaseModel):
    value: int
    children: "list[Tree]" = []


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


#: Types that a class may name, and the kind of field that each is.
TYPES: dict[str, tuple[Any, str]] = {
    "whole": (int, "integer"),
    "number": (float, "number"),
    "decimal": (Decimal, "number"),
    "either_number": (int | float, "number"),
    "truth": (bool, "boolean"),
    "text": (str, "text"),
    "uuid": (UUID, "text"),
    "day": (date, "date"),
    "hour": (time, "time"),
    "moment": (datetime, "datetime"),
    "colour": (Colour, "choice"),
    "size": (Size, "choice"),
    "literal": (Literal["a", 1, True], "choice"),
    "only": (Literal["a"], "choice"),
    "bounded": (Annotated[int, pydantic.Field(gt=0, lt=10, multiple_of=3)], "integer"),
    "share": (Annotated[float, pydantic.Field(ge=0, le=1)], "number"),
    "short": (Annotated[str, pydantic.Field(min_length=2, max_length=5)], "text"),
    "code": (Annotated[str, pydantic.Field(pattern=r"^[A-Z]{2}$")], "text"),
    "point": (Point, "object"),
    "points": (Annotated[list[Point], pydantic.Field(min_length=1, max_length=3)], "list"),
    "colours": (set[Colour], "list"),
    "numbers": (list[float], "list"),
    "anything": (Any, "json"),
    "by_name": (dict[str, float], "json"),
    "pair": (tuple[int, str], "json"),
    "union": (int | str, "json"),
    "animal": (Annotated[Cat | Dog, pydantic.Field(discriminator="kind")], "json"),
    "tree": (Tree, "object"),
}
_AT_HAND = {
    "anything": [None, {"x": 1}],
    "by_name": {"x": 1.5},
    "pair": [1, "a"],
    "union": "a",
    "animal": {"kind": "dog"},
    "children": {"value": 1},
}


def test_a_tree_has_children_that_are_json() -> None:
    (field,) = fields_of(create_model("Row", tree=Tree).model_json_schema())
    assert [(inner.name, inner.kind) for inner in field.fields or []] == [("value", "integer"), ("children", "list")]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("nullable", [False, True], ids=["", "or null"])
def test_each_type_of_a_class_is_the_kind_that_it_should_be(name: str, nullable: bool) -> None:
    kind, expected = TYPES[name]
    row = create_model("Row", **{name: ((kind | None) if nullable else kind, ...)})  # type: ignore[call-overload]
    (field,) = fields_of(row.model_json_schema())
    assert (field.kind, field.nullable) == (expected, nullable or name == "anything")


@given(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=5, unique=True), st.data())
def test_what_a_class_takes_can_be_filled_in(names: list[str], data: st.DataObject) -> None:
    fields: dict[str, Any] = {}
    for name in names:
        kind, _ = TYPES[name]
        way = data.draw(st.sampled_from(["required", "nullable", "optional"]))
        fields[name] = (kind, ...) if way == "required" else (kind | None, ... if way == "nullable" else None)
    row = create_model("Row", **fields)
    schema = TypeAdapter(row).json_schema()
    value = data.draw(filled(fields_of(schema), _AT_HAND))
    assert Validator(schema).problems(value) == []


@given(st.data())
def test_the_shipped_models_can_be_filled_in(data: st.DataObject) -> None:
    registry = Registry.discover(shipped_folder())
    package = registry.get(data.draw(st.sampled_from(registry.names)))
    value = data.draw(filled(package.fields, {}))
    assert package.input_validator.problems(value) == []


def test_descriptions_of_the_shipped_models_leave_the_bounds_to_the_form() -> None:
    """Bot and page say the bounds of each field; a description that says them, too, says everything twice."""
    registry = Registry.discover(shipped_folder())
    bounds = []
    for package in map(registry.get, registry.names):
        for field in [*package.fields, *fields_of(package.features_schema)]:
            for bound in (field.maximum, field.exclusive_maximum, field.max_length):
                if bound is None or field.kind == "choice":
                    continue
                bounds.append(bound)
                said = "" if field.description is None else f"{field.description.en} {field.description.ru}"
                assert str(int(bound)) not in re.findall(r"\d+", said)
    assert sorted(set(bounds)) == [23, 2000, 5000]
