"""A part of a JSON Schema as one flat set of keywords: references resolved, `allOf` merged, null separated."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

#: Limits of the parts that are read in one schema, and of their depth; parts beyond them are not flattened.
_MOST_STEPS = 50_000
_DEEPEST = 50

_NUMBERS = frozenset({"integer", "number"})
#: Keywords that do not restrict a value. If there are two, the one nearer to the field is used.
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format", "discriminator"}
)
_LOWER_BOUNDS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER_BOUNDS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
#: Types that follow from keywords, for a schema without a type.
_HINTS = {
    "properties": "object",
    "items": "array",
    "minItems": "array",
    "maxItems": "array",
    "pattern": "string",
    "minLength": "string",
    "maxLength": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
#: Keywords that define the values; all others only restrict them.
_SHAPES = frozenset({"type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf", *_HINTS})


@dataclass(frozen=True, slots=True)
class Part:
    """One flattened part of a schema. `options` are the alternatives of a union, without null."""

    keywords: Mapping[str, Any]
    nullable: bool = False
    options: tuple["Part", ...] = ()
    #: The references that were followed, to detect circular ones.
    followed: frozenset[str] = frozenset()

    @property
    def types(self) -> frozenset[str]:
        """The allowed JSON types, without null; empty if the schema does not restrict them."""
        if "type" in self.keywords:
            return _stated(self.keywords) - {"null"}
        hints = {hint for keyword, hint in _HINTS.items() if keyword in self.keywords}
        return frozenset(hints) if len(hints) == 1 else frozenset()

    def is_of_type(self, value: Any) -> bool:
        """Whether `value` has one of the types."""
        return bool(_types_of(value) & self.types)

    def values(self) -> list[Any] | None:
        """The allowed values, without null; None if the schema has no list."""
        if not self._lists_values:
            return None
        listed = [self.keywords["const"]] if "const" in self.keywords else self.keywords["enum"]
        if "const" in self.keywords and "enum" in self.keywords:
            listed = [value for value in listed if any(same(value, other) for other in self.keywords["enum"])]
        fitting = (value for value in listed if "type" not in self.keywords or self.is_of_type(value))
        return [value for value in fitting if value is not None]

    @property
    def _lists_values(self) -> bool:
        return "const" in self.keywords or isinstance(self.keywords.get("enum"), list)

    @property
    def only_null(self) -> bool:
        """Whether only null is allowed."""
        return self.nullable and not self.options and (self.values() == [] or _stated(self.keywords) == {"null"})


class Parts:
    """Reads the parts of one schema one by one."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._steps = 0
        self._depth = 0

    def part(self, schema: Any, followed: frozenset[str] = frozenset()) -> Part | None:
        """The flattened `schema`; None if it can't be flattened. `followed` is that of the enclosing part."""
        with self._step() as allowed:
            joined = self._joined(schema, followed) if allowed else None
            if joined is None:
                return None
            keywords, followed = joined
            unions = [name for name in ("anyOf", "oneOf") if keywords.get(name)]
            if not unions:
                return _single(keywords, followed)
            base = {name: value for name, value in keywords.items() if name not in unions}
            branches = keywords[unions[0]]
            if not any(isinstance(branch, dict) and _SHAPES & branch.keys() for branch in branches):
                # Alternatives of required fields, for example: only the schema validates these.
                return _single(base, followed)
            if len(unions) > 1:
                return None
            made = self._union(base, branches, followed)
            # If alternatives overlap, `oneOf` requires that only one matches.
            return _without_doubles(made) if made is not None and unions == ["anyOf"] else made

    def _union(self, base: dict[str, Any], branches: list[Any], followed: frozenset[str]) -> Part | None:
        """A union of `branches`, each combined with `base`."""
        options: list[Part] = []
        bare = {name: value for name, value in base.items() if not _is_annotation(name)}
        null_fits = _admits_null(bare)
        nullable = False
        for branch in branches:
            inner = self.part(branch, followed)
            if inner is None:
                return None
            nullable = nullable or (null_fits and inner.nullable)
            for option in inner.options or (() if inner.only_null else (inner,)):
                keywords = combined(bare, option.keywords)
                if keywords is not None:
                    options.append(_single(keywords, followed | option.followed))
        if len(options) == 1:
            return _chosen(options[0], base, nullable)
        return Part(base, nullable, tuple(options), followed) if options or nullable else None

    def _joined(self, schema: Any, followed: frozenset[str]) -> tuple[dict[str, Any], frozenset[str]] | None:
        """The keywords of a schema, merged with those of `$ref` and `allOf`; unions are not changed."""
        if schema is True:
            return {}, followed
        if not isinstance(schema, dict) or "$dynamicRef" in schema:
            return None
        made: dict[str, Any] = {}
        trail = followed
        reference = schema.get("$ref")
        if reference is not None:
            target = None if reference in followed else self._target(reference)
            others = [(target, followed | {reference})]
        else:
            others = []
        others += [(other, followed) for other in schema.get("allOf") or ()]
        for other, others_trail in others:
            with self._step() as allowed:
                joined = self._joined(other, others_trail) if allowed else None
            keywords = None if joined is None else combined(made, joined[0])
            if joined is None or keywords is None:
                return None
            made, trail = keywords, trail | joined[1]
        if reference is not None and "x-title-ru" not in made:
            # Most likely a class name; the field's own name is clearer.
            made.pop("title", None)
        own = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "$defs", "$schema")}
        together = combined(made, own)
        return None if together is None else (together, trail)

    def _target(self, reference: Any) -> Any:
        """The target of `#/$defs/Name`; None for other references."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            return None
        part: Any = self._root
        for step in reference.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(part, dict) and name in part:
                part = part[name]
            elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
                part = part[int(name)]
            else:
                return None
        return part

    @contextmanager
    def _step(self) -> Iterator[bool]:
        """Go one step deeper; yields whether the limits allow it."""
        self._steps += 1
        self._depth += 1
        try:
            yield self._steps <= _MOST_STEPS and self._depth <= _DEEPEST
        finally:
            self._depth -= 1


def combined(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any] | None:
    """The conjunction of two sets of keywords; None if it can't be flattened, or no value matches both."""
    made = dict(under)
    for name, value in over.items():
        if name not in made or _is_annotation(name) or same(made[name], value):
            made[name] = value
            continue
        both = _both(name, made[name], value)
        if both is None:
            return None
        made[name] = both
    return made


def _both(name: str, one: Any, other: Any) -> Any:
    """The value of a keyword that combines both; None if there is none."""
    if name == "type":
        return sorted(_wide({"type": one}) & _wide({"type": other})) or None
    if name in _LOWER_BOUNDS:
        return max(one, other)
    if name in _UPPER_BOUNDS:
        return min(one, other)
    if name == "enum":
        return [value for value in one if any(same(value, another) for another in other)] or None
    if name == "required":
        return [*one, *(each for each in other if each not in one)]
    if name == "properties":
        twice = {each: {"allOf": [one[each], other[each]]} for each in one.keys() & other.keys()}
        return {**one, **other, **twice}
    if name == "items":
        return {"allOf": [one, other]}
    if name in ("additionalProperties", "unevaluatedProperties"):
        return False if one is False or other is False else other
    return None


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where true differs from 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _single(keywords: dict[str, Any], followed: frozenset[str]) -> Part:
    """A part without a union."""
    # A schema with keywords for numbers (for example) but without a type most likely excludes null.
    means_null = "type" in keywords or "enum" in keywords or "const" in keywords or not Part(keywords).types
    return Part(keywords, means_null and _admits_null(keywords), (), followed)


def _admits_null(keywords: Mapping[str, Any]) -> bool:
    by_type = "type" not in keywords or "null" in _stated(keywords)
    by_value = keywords.get("const") is None and None in keywords.get("enum", (None,))
    return by_type and by_value


def _chosen(option: Part, base: Mapping[str, Any], nullable: bool) -> Part:
    """The only option of a union, with the annotations of the union."""
    words = {name: value for name, value in base.items() if _is_annotation(name)}
    return Part({**option.keywords, **words}, nullable, (), option.followed)


def _without_doubles(union: Part) -> Part:
    """A union of numbers only, or of a number and a text, as the number: pydantic describes a decimal in this way."""
    numbers = [each for each in union.options if each.types and each.types <= _NUMBERS and each.values() is None]
    others = [each for each in union.options if each not in numbers]
    if len(numbers) > 1:
        # Every integer is a number.
        numbers = [each for each in numbers if not _HINTS.keys() & each.keywords.keys()]
    numbers = [each for each in numbers if "number" in each.types]
    if len(numbers) != 1 or not all(each.types == {"string"} and each.values() is None for each in others):
        return union
    return _chosen(numbers[0], union.keywords, union.nullable)


def _stated(keywords: Mapping[str, Any]) -> frozenset[str]:
    stated = keywords.get("type", ())
    return frozenset((stated,) if isinstance(stated, str) else stated)


def _wide(keywords: Mapping[str, Any]) -> frozenset[str]:
    """The stated types; with numbers, also integers."""
    stated = _stated(keywords)
    return stated | {"integer"} if "number" in stated else stated


def _types_of(value: Any) -> frozenset[str]:
    match value:
        case bool():
            return frozenset({"boolean"})
        case int():
            return _NUMBERS
        case float():
            return _NUMBERS if value.is_integer() else frozenset({"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
        case dict():
            return frozenset({"object"})
    return frozenset()


def _is_annotation(name: str) -> bool:
    return name in _ANNOTATIONS or name.startswith(("x-", "$"))
