"""A part of a JSON Schema as one flat set of keywords: references followed, `allOf` joined, null set apart."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

#: So many parts of one schema are looked at, and so deep; what is beyond can't be said flat.
_MOST_STEPS = 50_000
_DEEPEST = 50

_NUMBERS = frozenset({"integer", "number"})
#: Words about a value that ask nothing of it. Of two, the one that stands nearer to the field counts.
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format", "discriminator"}
)
_LOWER_BOUNDS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER_BOUNDS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
#: What a schema without a type must be about.
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
#: What says which values are meant; everything else only narrows them.
_SHAPES = frozenset({"type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf", *_HINTS})


@dataclass(frozen=True, slots=True)
class Part:
    """What a schema says in one place. `options` are the several kinds of value of a union, null not among them."""

    keywords: Mapping[str, Any]
    nullable: bool = False
    options: tuple["Part", ...] = ()
    #: The references that led here: one that comes again leads round in a circle.
    followed: frozenset[str] = frozenset()

    @property
    def types(self) -> frozenset[str]:
        """The types of JSON that fit, null not among them; none where nothing says so."""
        if "type" in self.keywords:
            return _stated(self.keywords) - {"null"}
        hints = {hint for keyword, hint in _HINTS.items() if keyword in self.keywords}
        return frozenset(hints) if len(hints) == 1 else frozenset()

    def is_of_type(self, value: Any) -> bool:
        """Whether `value` has one of the types."""
        return bool(_types_of(value) & self.types)

    def values(self) -> list[Any] | None:
        """The only values that fit, null not among them; None where the schema lists none."""
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
        """Whether no value but null fits."""
        return self.nullable and not self.options and (self.values() == [] or _stated(self.keywords) == {"null"})


class Parts:
    """The parts of one schema, looked at one by one."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._steps = 0
        self._depth = 0

    def part(self, schema: Any, followed: frozenset[str] = frozenset()) -> Part | None:
        """What `schema` says; None when that can't be said flat. `followed` is that of the part it stands in."""
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
                # Either this or that must be there, say: the schema itself sees to it.
                return _single(base, followed)
            if len(unions) > 1:
                return None
            made = self._union(base, branches, followed)
            # Of two that overlap, `oneOf` wants that only one fits.
            return _without_doubles(made) if made is not None and unions == ["anyOf"] else made

    def _union(self, base: dict[str, Any], branches: list[Any], followed: frozenset[str]) -> Part | None:
        """One of `branches`, within what `base` says of all of them."""
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
        """The keywords of a schema with those of `$ref` and `allOf`; unions stay as they are."""
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
            # The name of a class, most likely, where the field's own name says more.
            made.pop("title", None)
        own = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "$defs", "$schema")}
        together = combined(made, own)
        return None if together is None else (together, trail)

    def _target(self, reference: Any) -> Any:
        """What `#/$defs/Name` names; None for a reference that leads elsewhere."""
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
        """One step deeper; whether it is still allowed."""
        self._steps += 1
        self._depth += 1
        try:
            yield self._steps <= _MOST_STEPS and self._depth <= _DEEPEST
        finally:
            self._depth -= 1


def combined(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any] | None:
    """Keywords that ask for both; None when that can't be said flat, or nothing fits both."""
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
    """The value of a keyword that asks for both; None when there is none."""
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
    """Whether two values are the same in JSON, where true is no 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _single(keywords: dict[str, Any], followed: frozenset[str]) -> Part:
    """A part without a union."""
    # Who asks something of numbers, say, and names no type, most likely means numbers and not null as well.
    means_null = "type" in keywords or "enum" in keywords or "const" in keywords or not Part(keywords).types
    return Part(keywords, means_null and _admits_null(keywords), (), followed)


def _admits_null(keywords: Mapping[str, Any]) -> bool:
    by_type = "type" not in keywords or "null" in _stated(keywords)
    by_value = keywords.get("const") is None and None in keywords.get("enum", (None,))
    return by_type and by_value


def _chosen(option: Part, base: Mapping[str, Any], nullable: bool) -> Part:
    """The only option of a union, under the words of the whole."""
    words = {name: value for name, value in base.items() if _is_annotation(name)}
    return Part({**option.keywords, **words}, nullable, (), option.followed)


def _without_doubles(union: Part) -> Part:
    """A union of numbers alone, or of a number and a text, as the number: pydantic writes a decimal so."""
    numbers = [each for each in union.options if each.types and each.types <= _NUMBERS and each.values() is None]
    others = [each for each in union.options if each not in numbers]
    if len(numbers) > 1:
        # All whole numbers are numbers.
        numbers = [each for each in numbers if not _HINTS.keys() & each.keywords.keys()]
    numbers = [each for each in numbers if "number" in each.types]
    if len(numbers) != 1 or not all(each.types == {"string"} and each.values() is None for each in others):
        return union
    return _chosen(numbers[0], union.keywords, union.nullable)


def _stated(keywords: Mapping[str, Any]) -> frozenset[str]:
    stated = keywords.get("type", ())
    return frozenset((stated,) if isinstance(stated, str) else stated)


def _wide(keywords: Mapping[str, Any]) -> frozenset[str]:
    """The stated types, and whole numbers beside numbers."""
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
