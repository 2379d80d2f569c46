"""Generates values that match a JSON Schema, to try a model. The same schema gives the same values."""

import random
from typing import Any

from foretell.inference.schema import Validator

_MOST_TRIES = 20
_LARGE = 100.0
#: Limit for all samples together; characters of long texts count as values.
_MOST_VALUES = 300_000


def samples(schema: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Up to `count` matching objects; fewer if the schema has parts that can't be generated (such as a pattern)."""
    source = _Source(0)
    validator = Validator(schema)
    found: list[dict[str, Any]] = []
    for _ in range(count * _MOST_TRIES):
        try:
            value = _value(schema, schema, source)
        except (_TooLarge, RecursionError):
            break
        if validator.is_valid(value):
            found.append(value)
            if len(found) == count:
                break
    return found


class _TooLarge(Exception):
    """A matching value would be too large."""


class _Source(random.Random):
    """Random numbers, with a limit of generated values: a short schema can require billions of values."""

    left = _MOST_VALUES

    def take(self, count: int) -> None:
        """Count values, or characters. Raises `_TooLarge`."""
        self.left -= count
        if self.left < 0:
            raise _TooLarge


def _value(schema: dict[str, Any], root: dict[str, Any], source: _Source) -> Any:
    source.take(1)
    if "$ref" in schema:
        return _value(_referred(schema["$ref"], root), root, source)
    for keyword in ("anyOf", "oneOf"):
        if schema.get(keyword):
            return _value(source.choice(schema[keyword]), root, source)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return source.choice(schema["enum"])
    kinds = schema.get("type", "object" if "properties" in schema else "number")
    kind = kinds if isinstance(kinds, str) else source.choice(kinds)
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: _value(part, root, source) for name, part in properties.items()}
        case "array":
            least = schema.get("minItems", 1)
            source.take(least)
            return [_value(schema.get("items", {}), root, source) for _ in range(max(least, 1))]
        case "string":
            return _text(schema, source)
        case "boolean":
            return source.random() < 0.5
        case "null":
            return None
        case "integer":
            low, high = _bounds(schema)
            return source.randint(int(-(-low // 1)), int(high // 1))
    if schema.get("examples") and source.random() < 0.5:
        return source.choice(schema["examples"])
    low, high = _bounds(schema)
    return round(source.uniform(low, high), 3)


def _bounds(schema: dict[str, Any]) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0.0 if high is None else min(0.0, high - _LARGE)
    if high is None:
        high = low + _LARGE
    return low, high


def _text(schema: dict[str, Any], source: _Source) -> str:
    if schema.get("examples"):
        return str(source.choice(schema["examples"]))
    words = " ".join(source.choice(("good", "bad", "plane", "rain", "ok", "late")) for _ in range(source.randint(1, 6)))
    least: int = schema.get("minLength", 0)
    most: int = schema.get("maxLength", 1000)
    source.take(least)
    return (words + "x" * least)[: max(least, min(most, len(words)))]


def _referred(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    """The part of the schema at `#/$defs/Name`; empty for other references."""
    part: Any = root
    for step in reference.removeprefix("#/").split("/"):
        part = part.get(step, {}) if isinstance(part, dict) else {}
    return part if isinstance(part, dict) else {}
