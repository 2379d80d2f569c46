"""Derives schemas, options and an example from a trained model, to make a package for it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretell.contracts.fields import titled
from foretell.contracts.messages import Stage
from foretell.inference.schema import Validator

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


#: A form can't have more columns; a file may claim any number of them.
MOST_COLUMNS = 10_000


class CannotGuess(Exception):
    """Why nothing can be derived from a file, and a remedy; a sentence or two."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema. `kind` is a type of JSON; `choices` are the only values that are allowed."""

    name: str
    kind: str
    title: str = ""
    choices: Sequence[Any] = ()
    #: The unit of a number, such as cm.
    unit: str = ""
    #: More keywords of JSON Schema, such as `minimum`.
    bounds: dict[str, Any] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """This field as JSON Schema."""
        made: dict[str, Any] = {"title": self.title or titled(self.name), "type": self.kind, **self.bounds}
        if self.choices:
            made["enum"] = list(self.choices)
        if self.unit:
            made["x-unit"] = self.unit
        return made


@dataclass(frozen=True, slots=True)
class Guess:
    """The result of guessing. Schemas are JSON Schema 2020-12 of objects."""

    features_schema: dict[str, Any]
    output_schema: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    input_schema: dict[str, Any] | None = None
    preprocessing: str | None = None
    #: Files to copy, by their names in the package.
    files: dict[str, Path] = field(default_factory=dict)
    #: The file of the trained model; empty for a class or another server.
    artifact: str = ""
    #: A value to try, if the model has one.
    example: tuple[Stage, dict[str, Any]] | None = None
    #: Features that may be missing, according to the logged model; tested before the schema allows it.
    nullable: tuple[str, ...] = ()
    #: The most rows in one call of the model.
    max_batch: int = 64
    #: Remarks on parts that could not be guessed and should be checked.
    remarks: tuple[str, ...] = ()


def numbered(width: int) -> list[str]:
    """Names for columns without names: x1 to x`width`. Raises `CannotGuess` for too many."""
    if width > MOST_COLUMNS:
        raise CannotGuess(f"The model takes {width} columns; a package has at most {MOST_COLUMNS}.")
    return [f"x{place}" for place in range(1, width + 1)]


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`. Raises `CannotGuess` if it is outside, also by a link."""
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise CannotGuess(f"{name} lies outside of {folder}. Copy it there, and name it from there.")
    return file


def object_schema(title: str, fields: Iterable[Field]) -> dict[str, Any]:
    """The schema of an object with exactly these fields."""
    made = list(fields)
    return {
        "$schema": _DRAFT,
        "title": title,
        "type": "object",
        "additionalProperties": False,
        "required": [each.name for each in made],
        "properties": {each.name: each.schema() for each in made},
    }


def with_nulls(schema: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The schema of an object in which these fields may be null."""
    properties = dict(schema["properties"])
    for name in names:
        field = properties[name]
        properties[name] = {**field, "type": [field["type"], "null"]}
        if "enum" in field:
            properties[name]["enum"] = [*field["enum"], None]
    return {**schema, "properties": properties}


def settled(schema: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The guessed schema of an output, corrected by a real answer.

    A field keeps its guess if the answer matches; lists get their length.
    """
    properties = {}
    for name, value in answer.items():
        guessed = schema["properties"].get(name, {"title": titled(name)})
        fits = Validator({key: part for key, part in guessed.items() if key != "title"}).is_valid(value)
        seen = _shape(value)
        properties[name] = {**guessed, **seen} if isinstance(value, list) else guessed
        if not fits and not isinstance(value, list):
            properties[name] = {"title": guessed.get("title", titled(name)), **seen}
    return {**schema, "required": list(answer), "properties": properties}


def _shape(value: Any) -> dict[str, Any]:
    """The schema of one value; lists with their length and items."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list():
            items = {key: part for part in map(_shape, value) for key, part in part.items()}
            if {part.get("type") for part in map(_shape, value)} == {"integer", "number"}:
                items["type"] = "number"
            return {"type": "array", "items": items, "minItems": len(value), "maxItems": len(value)}
        case dict():
            properties = {name: _shape(part) for name, part in value.items()}
            return {"type": "object", "required": list(value), "properties": properties}
    return {}


def title_and_unit(column: str) -> tuple[str, str]:
    """The title and unit of a column: `sepal length (cm)` gives "Sepal length" and "cm"; the unit may be empty."""
    named = re.fullmatch(r"(.*\w)\s*[(\[]([^()\[\]]{1,20})[)\]]\s*", column)
    title, unit = named.groups() if named else (column, "")
    return titled(title), unit.strip()


def field_names(columns: Sequence[str]) -> list[str]:
    """Names that are easy to type: `sepal length (cm)` becomes `sepal_length_cm`.

    Columns that would get the same name keep their own.
    """
    slugs = [re.sub(r"\W+", "_", column).strip("_").lower() for column in columns]
    if "" in slugs or len(set(slugs)) < len(slugs):
        return list(columns)
    return slugs
