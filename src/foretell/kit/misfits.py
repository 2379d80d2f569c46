"""Converts validation errors of msgspec to the field and a plain description.

The texts of msgspec, such as "Expected `float`, got `str` - at `$.for_s`" or "Object missing required field `model`",
are unsuitable both for programs and for users.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from foretell.kit.problems import pointer

_PLACE = re.compile(r"(?P<detail>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|(?P<unknown>\[\.\.\.\])")
_MISSING = re.compile(r"Object missing required field `(?P<name>.+)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.+)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]+)`(?P<bounds>.*?)(?:, got `(?P<given>[^`]+)`)?", re.DOTALL)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TYPES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "a text",
}


class Misfit(NamedTuple):
    """One problem of a value."""

    path: tuple[str | int, ...]
    #: The problem of the field: `must be a text, not a whole number`, `is missing`.
    detail: str

    @property
    def problem(self) -> dict[str, str]:
        """The same as one of the `errors` of an `InvalidRequest`."""
        return {"detail": self.detail, "pointer": pointer(*self.path)}

    @property
    def field(self) -> str:
        """The field in TOML notation, `weights."1.0.0"` or `files[2]`; empty for the value itself."""
        parts = (f"[{step}]" if isinstance(step, int) else "." + _written(step) for step in self.path)
        return "".join(parts).removeprefix(".")

    @property
    def sentence(self) -> str:
        """Field and detail as one text, without a full stop."""
        return f"{self.field or 'The value'} {self.detail}"


def misfit_of(error: msgspec.ValidationError, *path: str | int) -> Misfit:
    """The problem in `error`; `path` is the path of the decoded value.

    msgspec does not name the key of a mapping: then the path ends at the mapping.
    """
    match = _PLACE.fullmatch(str(error))
    assert match is not None, "everything matches"
    detail = match["detail"]
    steps = (*path, *_steps(match["path"] or ""))
    if missing := _MISSING.fullmatch(detail):
        return Misfit((*steps, missing["name"]), "is missing")
    if unknown := _UNKNOWN.fullmatch(detail):
        return Misfit((*steps, unknown["name"]), "is not a known field")
    if expected := _EXPECTED.fullmatch(detail):
        given = f", not {_in_words(expected['given'])}" if expected["given"] else ""
        return Misfit(steps, f"must be {_in_words(expected['wanted'])}{expected['bounds']}{given}")
    return Misfit(steps, f"does not fit: {detail}")


def _steps(path: str) -> Iterator[str | int]:
    for step in _STEP.finditer(path):
        if step["unknown"] is not None:
            return
        yield step["name"] if step["name"] is not None else int(step["index"])


def _in_words(types: str) -> str:
    return " or ".join(_TYPES.get(name, name) for name in types.split(" | "))


def _written(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
