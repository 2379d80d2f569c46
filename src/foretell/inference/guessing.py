"""What can be read off a trained model when a package is made for it: schemas, options, an example."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretell.contracts.messages import Stage

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class CannotGuess(Exception):
    """Why nothing can be read off a file, and what to do; a sentence or two."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema. `kind` is a type of JSON; `choices` are the only values that are allowed."""

    name: str
    kind: str
    title: str = ""
    choices: Sequence[Any] = ()
    #: More keywords of JSON Schema, `minimum` say.
    bounds: dict[str, Any] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """This field as JSON Schema."""
        made: dict[str, Any] = {"title": self.title or titled(self.name), "type": self.kind, **self.bounds}
        if self.choices:
            made["enum"] = list(self.choices)
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
    #: What could not be guessed and wants a look.
    remarks: tuple[str, ...] = ()


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


def titled(name: str) -> str:
    """A field's name as words: `dep_hour` is "Dep hour"."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:] or name


def field_names(columns: Sequence[str]) -> list[str]:
    """Names that are easy to type for columns that may not be: `sepal length (cm)` becomes `sepal_length_cm`.

    Columns that would end up with the same name keep theirs.
    """
    slugs = [re.sub(r"\W+", "_", column).strip("_").lower() for column in columns]
    if "" in slugs or len(set(slugs)) < len(slugs):
        return list(columns)
    return slugs
