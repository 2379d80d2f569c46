"""Checks values against a JSON Schema in microseconds, and says in plain words what does not fit.

Light to import: the API service checks every request with it and loads no model.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from math import isfinite
from typing import Any

import jsonschema_rs

#: A problem names a field ("carrier", "items.3.x", or "" for the value itself) and says what it must be.
Problem = tuple[str, str]

#: More problems than this help nobody, and a hostile value could have millions.
MAX_PROBLEMS = 20

#: Beyond this an integer has no floating-point form, so no model can use it.
_LARGEST = 2**1023

#: A text that is longer, and longer than any that the schema speaks of, is long enough to be wrong when cut off here.
_LONG_TEXT = 64 * 1024

_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a text",
}


class Validator:
    """One JSON Schema (2020-12), compiled. Raises `ValueError` when it is no valid schema.

    NaN, Infinity and integers beyond the range of a float never fit, whatever the schema says. References to other
    documents are never fetched.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        # The mask keeps the caller's values out of messages: they end in logs and in other people's screens.
        self._compiled = jsonschema_rs.Draft202012Validator(schema, mask="the value", offline=True)
        self._fits = self._compiled.is_valid
        self._longest_text = max(_LONG_TEXT, 2 * _longest_text(schema))
        # What refers to places in its document can't be put into another one.
        self._fit_all: Callable[[Any], bool] | None = None
        if not _refers(schema):
            rows = {"items": {name: part for name, part in schema.items() if name != "$schema"}}
            self._fit_all = jsonschema_rs.Draft202012Validator(rows, offline=True).is_valid

    def is_valid(self, value: Any) -> bool:
        """Whether `value` (what a JSON decoder returns) fits. Never raises."""
        try:
            return self._fits(value) and is_finite(value)
        except (ValueError, RecursionError):
            # Keys that are no strings, lone surrogates, types that JSON does not have.
            return False

    def are_valid(self, values: list[Any]) -> bool:
        """Whether every one of `values` surely fits, in less time than one by one. False says nothing. Never raises."""
        return self.are_valid_if_finite(values) and all(map(is_finite, values))

    def are_valid_if_finite(self, values: list[Any]) -> bool:
        """The same for values whose numbers are known to be finite. False says nothing. Never raises."""
        try:
            return self._fit_all is not None and self._fit_all(values)
        except (ValueError, RecursionError):
            return False

    def problems(self, value: Any) -> list[Problem]:
        """What does not fit, as `(field, message)`; empty when `value` fits. At most `MAX_PROBLEMS`."""
        try:
            if not is_finite(value):
                return [(_dotted(_where_not_finite(value)), "must be a finite number")]
            # Each error of the library has a copy of the value, and there is one for each missing field.
            short = _without_long_texts(value, self._longest_text)
            found = self._found(short)
            # What is right once it is cut off (a pattern, say) has to be looked at as it is.
            return found or ([] if short is value else self._found(value))
        except (ValueError, RecursionError):
            return [("", "must be JSON: texts in valid Unicode, and keys that are texts")]

    def _found(self, value: Any) -> list[Problem]:
        # The errors themselves are not kept: each holds a copy of the value.
        explained: list[tuple[str, tuple[str | int, ...], list[Problem]]] = []
        kinds: dict[tuple[str | int, ...], set[str]] = {}
        for error in islice(self._compiled.iter_errors(value), MAX_PROBLEMS):
            kind, path = error.kind.name, tuple(error.instance_path)
            kinds.setdefault(path, set()).add(kind)
            explained.append((kind, path, self._explain(error)))
        found = [each for kind, path, some in explained if not _said_better(kind, kinds[path]) for each in some]
        return found[:MAX_PROBLEMS]

    def _explain(self, error: jsonschema_rs.ValidationError) -> list[Problem]:
        """One error of the library as problems: one for each missing or unexpected field, else one."""
        path = list(error.instance_path)
        kind = error.kind.name
        details = error.kind.as_dict()
        if kind == "required":
            return [(_dotted([*path, _short(details["property"])]), "is missing")]
        if kind in ("additionalProperties", "unevaluatedProperties"):
            return [(_dotted([*path, _short(name)]), "is not a field of this model") for name in details["unexpected"]]
        return [(_dotted(path), self._requirement(kind, details, error))]

    def _requirement(self, kind: str, details: dict[str, Any], error: jsonschema_rs.ValidationError) -> str:
        limit = details.get("limit")
        match kind:
            case "type":
                return "must be " + " or ".join(_TYPES.get(name, name) for name in details["types"])
            case "enum":
                return "must be one of " + ", ".join(str(option) for option in details["options"])
            case "minimum":
                return f"must be at least {limit}"
            case "maximum":
                return f"must be at most {limit}"
            case "exclusiveMinimum":
                return f"must be greater than {limit}"
            case "exclusiveMaximum":
                return f"must be less than {limit}"
            case "minLength":
                return f"must have at least {limit} character{'' if limit == 1 else 's'}"
            case "maxLength":
                return f"must have at most {limit} character{'' if limit == 1 else 's'}"
            case "minItems":
                return f"must have at least {limit} item{'' if limit == 1 else 's'}"
            case "maxItems":
                return f"must have at most {limit} item{'' if limit == 1 else 's'}"
            case "pattern":
                said = _said_of_characters(details["pattern"], str(error.instance))
                if said:
                    return said
                examples = self._subschema(list(error.schema_path)[:-1]).get("examples")
                return f'must look like "{examples[0]}"' if examples else f"must match {details['pattern']}"
            case "multipleOf":
                return f"must be a multiple of {details.get('multiple_of')}"
            case "falseSchema":
                return "is not a field of this model"
        return error.message

    def _subschema(self, path: list[str | int]) -> dict[str, Any]:
        """The part of the schema at `path`, or nothing where a reference leads elsewhere."""
        part: Any = self.schema
        for step in path:
            try:
                part = part[step]
            except (KeyError, IndexError, TypeError):
                return {}
        return part if isinstance(part, dict) else {}


#: What a value that fails `enum` may fail besides, all for the same cause.
_SAID_BY_ENUM = frozenset({"type", "pattern", "minLength", "maxLength", "minimum", "maximum"})


def _said_better(kind: str, kinds: set[str]) -> bool:
    """Whether another error of the same field (all are `kinds`) has the same cause and says more."""
    return ("enum" in kinds and kind in _SAID_BY_ENUM) or ("pattern" in kinds and kind == "minLength")


def _said_of_characters(pattern: str, text: str) -> str:
    """What is wrong with a text where a pattern, however it is written, wants no form, but no blanks or no NUL."""
    fits = jsonschema_rs.Draft202012Validator({"pattern": pattern}).is_valid
    if not text.strip() and all(map(fits, ("x", "Ж", "7", "?", "a word"))):
        return "must not be blank"
    if "\0" in text and fits(text.replace("\0", "x")):
        return "must not contain the character NUL"
    return ""


def _longest_text(schema: Any) -> int:
    """The largest number of characters that a schema speaks of."""
    if isinstance(schema, list):
        return max(map(_longest_text, schema), default=0)
    if not isinstance(schema, dict):
        return 0
    said = [schema[name] for name in ("minLength", "maxLength") if isinstance(schema.get(name), int)]
    return max([*said, *map(_longest_text, schema.values())], default=0)


def _without_long_texts(value: Any, longest: int) -> Any:
    """The same value, or one whose texts have at most `longest` characters. Raises `RecursionError`."""
    if isinstance(value, str):
        return value[:longest] if len(value) > longest else value
    if isinstance(value, dict):
        parts = {name: _without_long_texts(part, longest) for name, part in value.items()}
        return parts if any(parts[name] is not part for name, part in value.items()) else value
    if isinstance(value, list):
        items = [_without_long_texts(item, longest) for item in value]
        return items if any(item is not before for item, before in zip(items, value, strict=True)) else value
    return value


def _refers(schema: Any) -> bool:
    if isinstance(schema, dict):
        return any((name != "$schema" and name[:1] == "$") or _refers(part) for name, part in schema.items())
    return isinstance(schema, list) and any(map(_refers, schema))


def sentence(problems: Sequence[Problem]) -> str:
    """Problems as one line for a person: `carrier must be one of AA, UA; dep_hour is missing.`"""
    return "; ".join(f"{field or 'The value'} {message}" for field, message in problems) + "."


def is_finite(value: Any) -> bool:
    """Whether every number inside `value` is finite and within the range of a float."""
    if type(value) is dict:
        # Most rows are flat and of floats and texts, and this is asked twice for each row.
        for part in value.values():
            kind = type(part)
            if kind is float:
                # Infinity less itself, and NaN less itself, are NaN.
                if part - part != 0.0:
                    return False
            elif kind is not str and (kind is not int or not -_LARGEST < part < _LARGEST):
                break
        else:
            return True
    # A stack, not recursion: the depth is the caller's choice.
    stack = list(value.values()) if type(value) is dict else [value]
    while stack:
        part = stack.pop()
        kind = type(part)
        if kind is float:
            if not isfinite(part):
                return False
        elif kind is int:
            if not -_LARGEST < part < _LARGEST:
                return False
        elif kind is dict:
            stack.extend(part.values())
        elif kind is list or kind is tuple:
            stack.extend(part)
        elif isinstance(part, float) and not isfinite(part):
            return False
    return True


def _where_not_finite(value: Any) -> list[str | int]:
    stack: list[tuple[list[str | int], Any]] = [([], value)]
    while stack:
        path, part = stack.pop()
        if isinstance(part, dict):
            stack.extend(([*path, str(key)], inner) for key, inner in part.items())
        elif isinstance(part, list | tuple):
            stack.extend(([*path, index], inner) for index, inner in enumerate(part))
        elif not is_finite(part):
            return path
    return []


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(str(step) for step in path)


def _short(name: str) -> str:
    """A field's name as the caller wrote it, cut and without what could forge a line."""
    return "".join(character if character.isprintable() else "?" for character in name[:60])
