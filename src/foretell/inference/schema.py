"""Validates values against a JSON Schema in microseconds, and describes problems in plain words.

The module has few imports, because the app validates every request with it and loads no model.
"""

import json
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from math import isfinite
from typing import Any

import jsonschema_rs

#: A problem: the field ("carrier", "items.3.x", or "" for the value itself), and what it must be.
Problem = tuple[str, str]

#: More problems are not useful, and a hostile value could have millions.
MAX_PROBLEMS = 20

#: A larger integer can't be converted to a float, so no model can use it.
_LARGEST = 2**1023

#: Texts are cut at this length, or at the largest length in the schema if that is more, before errors are collected.
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

_TEXT_BOUNDS = frozenset({"minLength", "maxLength"})
_ITEM_BOUNDS = frozenset({"minItems", "maxItems", "minProperties", "maxProperties"})
#: Lists and objects with so many entries are never cut.
_MANY = 100


class Validator:
    """One compiled JSON Schema (2020-12). Raises `ValueError` if it is invalid.

    NaN, Infinity and integers beyond the range of a float never match, whatever the schema. References to other
    documents are never fetched.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        # The mask keeps the caller's values out of messages, which may be logged.
        self._compiled = jsonschema_rs.Draft202012Validator(schema, mask="the value", offline=True)
        self._fits = self._compiled.is_valid
        self._cut = _Cut(schema)
        # A schema with references within its document can't be nested in another one.
        self._fit_all: Callable[[Any], bool] | None = None
        if not _refers(schema):
            rows = {"items": {name: part for name, part in schema.items() if name != "$schema"}}
            self._fit_all = jsonschema_rs.Draft202012Validator(rows, offline=True).is_valid

    def is_valid(self, value: Any) -> bool:
        """Whether `value` (from a JSON decoder) matches. Never raises."""
        try:
            return self._fits(value) and is_finite(value)
        except (ValueError, RecursionError):
            # Keys that are not strings, lone surrogates, types that JSON does not have.
            return False

    def are_valid(self, values: list[Any]) -> bool:
        """Whether all `values` surely match, faster than one by one. False means unknown. Never raises."""
        return self.are_valid_if_finite(values) and all(map(is_finite, values))

    def are_valid_if_finite(self, values: list[Any]) -> bool:
        """The same for values whose numbers are known to be finite. False means unknown. Never raises."""
        try:
            return self._fit_all is not None and self._fit_all(values)
        except (ValueError, RecursionError):
            return False

    def problems(self, value: Any) -> list[Problem]:
        """The problems as `(field, message)`; empty if `value` matches. At most `MAX_PROBLEMS`."""
        try:
            # Each error of the library has a copy of the value, and there is one for each missing field.
            short = self._cut.of(value)
            found = self._found_in(short)
            # If the cut value matches (a pattern, for example), validate the full value.
            return found or ([] if short is value else self._found_in(value))
        except (ValueError, RecursionError):
            return [("", "must be JSON: texts in valid Unicode, and keys that are texts")]

    def _found_in(self, value: Any) -> list[Problem]:
        if not is_finite(value):
            return [(_dotted(_where_not_finite(value)), "must be a finite number")]
        # The errors are not kept, because each has a copy of the value.
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
                return "must be one of " + ", ".join(_shown(option) for option in details["options"])
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
        """The part of the schema at `path`, or empty if a reference can't be followed."""
        part: Any = self.schema
        for step in path:
            try:
                part = part[step]
            except (KeyError, IndexError, TypeError):
                return {}
        return part if isinstance(part, dict) else {}


def _shown(option: Any) -> str:
    """A value of the schema as the caller writes it: texts without quotes, all others as JSON."""
    return option if isinstance(option, str) else json.dumps(option, ensure_ascii=False)


#: Keywords that a value that fails `enum` may also fail, for the same reason.
_SAID_BY_ENUM = frozenset({"type", "pattern", "minLength", "maxLength", "minimum", "maximum"})


def _said_better(kind: str, kinds: set[str]) -> bool:
    """Whether another error of the same field (all are `kinds`) has the same cause and is more precise."""
    return ("enum" in kinds and kind in _SAID_BY_ENUM) or ("pattern" in kinds and kind == "minLength")


def _said_of_characters(pattern: str, text: str) -> str:
    """The problem of a text if the pattern only excludes blanks or NUL; empty for other patterns."""
    fits = jsonschema_rs.Draft202012Validator({"pattern": pattern}).is_valid
    if not text.strip() and all(map(fits, ("x", "Ж", "7", "?", "a word"))):
        return "must not be blank"
    if "\0" in text and fits(text.replace("\0", "x")):
        return "must not contain the character NUL"
    return ""


class _Cut:
    """Cuts long texts, lists and objects, so that explaining a value takes as long as for a usual one.

    What is longer than twice every bound in the schema is still too long after the cut.
    """

    def __init__(self, schema: Any) -> None:
        self._text, self._many = _LONG_TEXT, _MANY
        #: Names in the schema: fields with these names are kept.
        self._names: set[str] = set()
        self._read(schema)

    def _read(self, schema: Any) -> None:
        if isinstance(schema, list):
            self._names.update(each for each in schema if isinstance(each, str))
            for part in schema:
                self._read(part)
        elif isinstance(schema, dict):
            self._names.update(schema)
            for name, part in schema.items():
                if name in _TEXT_BOUNDS and isinstance(part, int):
                    self._text = max(self._text, 2 * part)
                elif name in _ITEM_BOUNDS and isinstance(part, int):
                    self._many = max(self._many, 2 * part)
                elif name == "contains":
                    # Any of the items may be the one.
                    self._many = sys.maxsize
                self._read(part)

    def of(self, value: Any) -> Any:
        """The same value, or a cut one. Raises `RecursionError`."""
        if isinstance(value, str):
            return value[: self._text] if len(value) > self._text else value
        if isinstance(value, dict):
            kept = value
            if len(value) > self._many + len(self._names):
                kept = {name: value[name] for name in islice(value, self._many)}
                kept |= {name: value[name] for name in self._names if name in value}
            parts = {name: self.of(part) for name, part in kept.items()}
            changed = kept is not value or any(parts[name] is not part for name, part in kept.items())
            return parts if changed else value
        if isinstance(value, list):
            items = [self.of(item) for item in islice(value, self._many)]
            changed = len(items) < len(value) or any(item is not value[place] for place, item in enumerate(items))
            return items if changed else value
        return value


def _refers(schema: Any) -> bool:
    if isinstance(schema, dict):
        return any((name != "$schema" and name[:1] == "$") or _refers(part) for name, part in schema.items())
    return isinstance(schema, list) and any(map(_refers, schema))


def sentence(problems: Sequence[Problem]) -> str:
    """Problems as one line for people: `carrier must be one of AA, UA; dep_hour is missing.`"""
    return "; ".join(f"{field or 'The value'} {message}" for field, message in problems) + "."


def is_finite(value: Any) -> bool:
    """Whether every number inside `value` is finite and within the range of a float."""
    if type(value) is dict:
        # Most rows are flat, with floats and texts, and this is called twice for each row.
        for part in value.values():
            kind = type(part)
            if kind is float:
                # inf - inf and nan - nan are NaN.
                if part - part != 0.0:
                    return False
            elif kind is not str and (kind is not int or not -_LARGEST < part < _LARGEST):
                break
        else:
            return True
    # A stack, not recursion, because the caller controls the depth.
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
    """A field's name from the caller, cut and without control characters."""
    return "".join(character if character.isprintable() else "?" for character in name[:60])
