"""What can be read off a trained model when a package is made for it: schemas, options, an example."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretell.contracts.fields import titled
from foretell.contracts.messages import Stage
from foretell.inference.schema import Validator

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


#: More columns than this are no model that people fill a form for; and a file may claim any number of them.
MOST_COLUMNS = 10_000


class CannotGuess(Exception):
    """Why nothing can be read off a file, and what to do; a sentence or two."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema. `kind` is a type of JSON; `choices` are the only values that are allowed."""

    name: str
    kind: str
    title: str = ""
    choices: Sequence[Any] = ()
    #: What a number counts: cm, say.
    unit: str = ""
    #: More keywords of JSON Schema, `minimum` say.
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
    """What was read off a model. Schemas are JSON Schema 2020-12 of objects."""

    features_schema: dict[str, Any]
    output_schema: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    input_schema: dict[str, Any] | None = None
    preprocessing: str | None = None
    #: Files to copy, by the name they get in the package.
    files: dict[str, Path] = field(default_factory=dict)
    #: Which of the files is the trained model; none for a class or another server.
    artifact: str = ""
    #: A value to try, if the model brought one along.
    example: tuple[Stage, dict[str, Any]] | None = None
    #: Features that may be missing, as far as whoever logged the model says; tried before it is promised.
    nullable: tuple[str, ...] = ()
    #: The most rows that the model takes in one call.
    max_batch: int = 64
    #: What could not be guessed and wants a look.
    remarks: tuple[str, ...] = ()


def numbered(width: int) -> list[str]:
    """Names for columns that have none: x1 to x`width`. Raises `CannotGuess` for more than anybody could mean."""
    if width > MOST_COLUMNS:
        raise CannotGuess(f"The model takes {width} columns; a package has at most {MOST_COLUMNS}.")
    return [f"x{place}" for place in range(1, width + 1)]


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`. Raises `CannotGuess` when it lies elsewhere, be it by a link."""
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
    """The guessed schema of an output, once an answer has shown what its fields really are.

    A field keeps what was guessed of it where the answer fits; lists get their length.
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
    """What one value says of its kind: lists of how many, and of what."""
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
    """What a column is called and counts: `sepal length (cm)` is "Sepal length", in cm. No unit where none is named."""
    named = re.fullmatch(r"(.*\w)\s*[(\[]([^()\[\]]{1,20})[)\]]\s*", column)
    title, unit = named.groups() if named else (column, "")
    return titled(title), unit.strip()


def field_names(columns: Sequence[str]) -> list[str]:
    """Names that are easy to type for columns that may not be: `sepal length (cm)` becomes `sepal_length_cm`.

    Columns that would end up with the same name keep theirs.
    """
    slugs = [re.sub(r"\W+", "_", column).strip("_").lower() for column in columns]
    if "" in slugs or len(set(slugs)) < len(slugs):
        return list(columns)
    return slugs
