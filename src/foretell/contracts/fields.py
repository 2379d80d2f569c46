"""The form of a model's input, made from its JSON Schema.

`GET /models/{name}` returns it as `fields`. The bot, the page and file templates use it, and no other code makes forms
from schemas. It is a simplification: the schema itself validates the input. Texts are in the schema, under `title`,
`description`, `x-enum-labels` and `x-unit`, and in Russian under `x-title-ru` and so on; `x-format` is a `format`
that validators ignore (docs/models.md).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta

from foretell.contracts.schema_parts import Part, Parts, same
from foretell.kit import structs

Kind = Literal["choice", "number", "integer", "text", "time", "date", "datetime", "boolean", "list", "object", "json"]

#: Deeper parts are `json`, because nobody would fill in such a form.
MAX_DEPTH = 6
#: Limit of nested fields in a form; those of the first level are always included.
MAX_NESTED_FIELDS = 2_000

#: JSON numbers can't represent every larger integer exactly, so such a bound is not shown.
_LARGEST_EXACT = 2**53
_TEXT_KINDS: dict[Any, Kind] = {"time": "time", "date": "date", "date-time": "datetime"}


class Words(msgspec.Struct, frozen=True):
    """A text in the two languages of the product; if there is only one, it is used for both."""

    en: str
    ru: str


class Choice(msgspec.Struct, frozen=True):
    """A possible value and its label."""

    value: Any
    label: Words


class Field(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field of a form. In JSON, a key with its default is absent.

    A `time` is HH:MM or HH:MM:SS, a `date` YYYY-MM-DD, a `datetime` both in ISO 8601; all are texts.
    `json` is any value that is too complex for a field; only the schema validates it.
    """

    name: Annotated[str, Meta(description="The key of the value; the items of a list have the name of the list")]
    kind: Kind
    title: Words
    description: Words | None
    required: Annotated[bool, Meta(description="Whether it may not be left out")]
    nullable: Annotated[bool, Meta(description="Whether null may stand for a value that is not known")]
    default: Annotated[Any, Meta(description="What it is when it is left out")] = UNSET
    example: Annotated[Any, Meta(description="A value to try")] = UNSET
    example_ru: Annotated[Any, Meta(description="One for whoever reads Russian, if there is another")] = UNSET
    unit: Annotated[Words | None, Meta(description="What a number counts: miles, say")] = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    exclusive_minimum: Annotated[int | float | None, Meta(description="The value must be greater")] = None
    exclusive_maximum: Annotated[int | float | None, Meta(description="The value must be less")] = None
    multiple_of: int | float | None = None
    min_length: Annotated[int | None, Meta(description="In characters")] = None
    max_length: Annotated[int | None, Meta(description="In characters")] = None
    pattern: Annotated[str | None, Meta(description="A regular expression (ECMA 262) that is found in the text")] = None
    choices: Annotated[list[Choice] | None, Meta(description="Of a `choice`: the values to choose from")] = None
    items: Annotated["Field | None", Meta(description="Of a `list`: what each item is")] = None
    min_items: int | None = None
    max_items: int | None = None
    unique_items: Annotated[bool, Meta(description="Of a `list`: whether no item may come twice")] = False
    fields: Annotated["list[Field] | None", Meta(description="Of an `object`: what is in it")] = None


def fields_of(schema: Mapping[str, Any], example: Mapping[str, Any] | None = None) -> list[Field]:
    """The fields of the object in `schema` (JSON Schema 2020-12), in its order. Never fails.

    `example` is a valid object; it provides the example of each field whose schema has none.
    """
    return _Reader(schema).fields(example)


def read_fields(value: Any) -> list[Field]:
    """The fields from `fields` in the answer of `GET /models/{name}`. Raises `msgspec.ValidationError`."""
    return structs.convert(value, list[Field])


def titled(name: str) -> str:
    """A field's name as words: `dep_hour` is "Dep hour"."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:] or name


class _Reader:
    """Reads one schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = dict(root)
        self._parts = Parts(self._root)
        self._nested = 0

    def fields(self, example: Any) -> list[Field]:
        # Even if the whole schema is too complex, it may have properties.
        part = self._parts.part(self._root) or Part(self._root)
        return self._properties(part, _first(part.keywords.get("examples"), example), depth=1)

    def _properties(self, part: Part, example: Any, depth: int) -> list[Field]:
        properties = _mapping(part.keywords.get("properties"))
        required = set(_texts(part.keywords.get("required")))
        examples = _mapping(example)
        # A required property without a schema may be anything.
        undescribed = {name: True for name in _texts(part.keywords.get("required")) if name not in properties}
        return [
            self._field(name, schema, part.followed, name in required, examples.get(name, UNSET), depth)
            for name, schema in {**properties, **undescribed}.items()
            if schema is not False
        ]

    def _field(
        self, name: str, schema: Any, followed: frozenset[str], required: bool, example: Any, depth: int
    ) -> Field:
        self._nested += depth > 1
        too_many = depth > 1 and self._nested > MAX_NESTED_FIELDS
        part = None if too_many else self._parts.part(schema, followed)
        said = Part(_mapping(schema)) if part is None else part
        example = _first(said.keywords.get("examples"), example)
        kind, more = ("json", {}) if part is None else self._kind(name, part, example, depth)
        title = titled(name)
        field = Field(
            name=name,
            kind=kind,
            title=_words(said.keywords, "title") or Words(title, title),
            description=_words(said.keywords, "description"),
            required=required,
            nullable=said.nullable,
            unit=_words(said.keywords, "x-unit"),
            **more,
        )
        return _with_values(field, said, default=said.keywords.get("default", UNSET), example=example)

    def _kind(self, name: str, part: Part, example: Any, depth: int) -> tuple[Kind, dict[str, Any]]:
        """The kind of a field, and the keys for that kind."""
        choices = _choices(part)
        if choices is not None:
            values = [choice.value for choice in choices]
            if len(values) == 2 and all(isinstance(value, bool) for value in values) and not _is_labelled(part):
                return "boolean", {}
            return ("choice", {"choices": choices}) if choices else ("json", {})
        if part.options:
            return "json", {}
        match sorted(part.types):
            case ["boolean"]:
                return "boolean", {}
            case ["integer"]:
                return "integer", _bounds(part.keywords, whole=True)
            case ["number"] | ["integer", "number"]:
                return "number", _bounds(part.keywords, whole=False)
            case ["string"]:
                return _text_kind(part.keywords), _text_bounds(part.keywords)
            case ["array"] if depth < MAX_DEPTH:
                return self._list(name, part, example, depth)
            case ["object"] if depth < MAX_DEPTH and part.keywords.get("properties"):
                return "object", {"fields": self._properties(part, example, depth + 1)}
        return "json", {}

    def _list(self, name: str, part: Part, example: Any, depth: int) -> tuple[Kind, dict[str, Any]]:
        keywords = part.keywords
        items = keywords.get("items", True)
        if "prefixItems" in keywords or "contains" in keywords or items is False:
            return "json", {}
        bounds = {
            "min_items": _count(keywords.get("minItems")),
            "max_items": _whole(keywords.get("maxItems")),
            "unique_items": keywords.get("uniqueItems") is True,
        }
        item = self._field(name, items, part.followed, True, _first(example, UNSET), depth + 1)
        return "list", {"items": item, **bounds}


def _with_values(field: Field, part: Part, *, default: Any, example: Any) -> Field:
    """The field with its default and examples, if they are values of its kind."""

    def fits(value: Any) -> bool:
        if value is UNSET or value is None:
            return value is None and field.nullable
        if field.choices is not None:
            return any(same(value, choice.value) for choice in field.choices)
        return part.is_of_type(value) or not part.types

    given = {"default": default, "example": example, "example_ru": _first(part.keywords.get("x-examples-ru"), UNSET)}
    values = {name: value for name, value in given.items() if fits(value)}
    return msgspec.structs.replace(field, **values)


def _choices(part: Part, union: Part | None = None) -> list[Choice] | None:
    """The values to choose from; None if there is no list. `part` may be an option of `union`."""
    if part.options:
        listed = [_choices(option, part) for option in part.options]
        known = [choices for choices in listed if choices is not None]
        return _distinct(choice for choices in known for choice in choices) if len(known) == len(listed) else None
    values = part.values()
    if values is None:
        # No list, but labels for some values: these are the usual ones, and others are possible.
        values = list(_labelled_values(part))
        if not values:
            return None
    # The label of an option with one value is its title.
    title = _words(part.keywords, "title") if union is not None and len(values) == 1 else None
    return _distinct(Choice(value, _label(value, part, union) or title or _shown(value)) for value in values)


def _labelled_values(part: Part) -> Iterator[Any]:
    for key in _mapping(part.keywords.get("x-enum-labels")):
        try:
            value = key if "string" in part.types else json.loads(key)
        except ValueError:
            continue
        if part.is_of_type(value) and not isinstance(value, list | dict):
            yield value


def _label(value: Any, *places: Part | None) -> Words | None:
    """The label of a value in the first of `places` that has one."""
    key = _key(value)
    for place in places:
        keywords = {} if place is None else place.keywords
        en, ru = (_mapping(keywords.get(name)).get(key) for name in ("x-enum-labels", "x-enum-labels-ru"))
        en, ru = (text if isinstance(text, str) else None for text in (en, ru))
        if en is not None or ru is not None:
            return Words(en or ru or key, ru or en or key)
    return None


def _key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> Words:
    return Words(_key(value), _key(value))


def _is_labelled(part: Part) -> bool:
    return "x-enum-labels" in part.keywords or any("title" in option.keywords for option in part.options)


def _distinct(choices: Iterable[Choice]) -> list[Choice]:
    made: dict[str, Choice] = {}
    for choice in choices:
        # As JSON text, so that 1 and true differ, and lists can be keys.
        made.setdefault(json.dumps(choice.value, sort_keys=True), choice)
    return list(made.values())


def _bounds(keywords: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    bounds = {
        "minimum": keywords.get("minimum"),
        "maximum": keywords.get("maximum"),
        "exclusive_minimum": keywords.get("exclusiveMinimum"),
        "exclusive_maximum": keywords.get("exclusiveMaximum"),
        "multiple_of": keywords.get("multipleOf"),
    }
    if whole and (bounds["minimum"] or 0) <= -_LARGEST_EXACT:
        bounds["minimum"] = None
    if whole and (bounds["maximum"] or 0) >= _LARGEST_EXACT:
        bounds["maximum"] = None
    return bounds


def _text_kind(keywords: Mapping[str, Any]) -> Kind:
    form = keywords.get("x-format", keywords.get("format"))
    return _TEXT_KINDS.get(form, "text") if isinstance(form, str) else "text"


def _text_bounds(keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "min_length": _count(keywords.get("minLength")),
        "max_length": _whole(keywords.get("maxLength")),
        "pattern": keywords.get("pattern"),
    }


def _count(value: Any) -> int | None:
    """A minimum count; None for 0, which is no restriction."""
    return _whole(value) or None


def _whole(value: Any) -> int | None:
    # In JSON Schema 2.0 is an integer, too.
    return None if value is None else int(value)


def _words(keywords: Mapping[str, Any], name: str) -> Words | None:
    ru = f"{name if name.startswith('x-') else f'x-{name}'}-ru"
    texts = [text for text in map(keywords.get, (name, ru)) if isinstance(text, str) and text.strip()]
    return Words(texts[0], texts[-1]) if texts else None


def _first(values: Any, otherwise: Any) -> Any:
    """The first of a list, if it is one."""
    return values[0] if isinstance(values, list) and values else otherwise


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
