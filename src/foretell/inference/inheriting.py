"""The values that a new version of a model inherits from the previous one: price, texts, and options."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from foretell.inference.package import ModelPackage, version_key

_SCHEMAS = ("input", "features", "output")
#: Keywords of a schema that are texts for users and do not affect validation (docs/models.md).
_WORDS = frozenset({"title", "x-title-ru", "description", "x-description-ru", "x-unit", "x-unit-ru", "x-format"})
#: The same of single values.
_LABELS = frozenset({"x-enum-labels", "x-enum-labels-ru"})


def version_before(known: Iterable[ModelPackage], name: str, version: str) -> ModelPackage | None:
    """The newest of the known versions of a model that is older than `version`, if there is one."""
    older = [each for each in known if each.name == name and version_key(each.version) < version_key(version)]
    return max(older, key=lambda each: version_key(each.version), default=None)


def inherit_words(folder: Path, before: ModelPackage) -> None:
    """Copy the texts of `before` into the schemas in `folder`, for fields that both have."""
    for stage in _SCHEMAS:
        file, old_file = (place / f"{stage}.schema.json" for place in (folder, before.path))
        if file.exists() and old_file.exists():
            schema, old = (json.loads(each.read_text(encoding="utf-8")) for each in (file, old_file))
            worded = {**schema, **_words(schema, old), "properties": _properties(schema, old)}
            file.write_text(json.dumps(worded, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _properties(schema: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    before = old.get("properties", {})
    return {
        name: {**about, **_words(about, before[name])} if isinstance(before.get(name), dict) else about
        for name, about in schema.get("properties", {}).items()
    }


def _words(about: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of `old` that still apply to a field."""
    found = {keyword: words for keyword, words in old.items() if keyword in _WORDS}
    if ("enum" in about) == ("enum" in old):
        values = {_as_key(value) for value in about.get("enum", ())}
        for keyword in _LABELS & old.keys():
            found[keyword] = {value: label for value, label in old[keyword].items() if not values or value in values}
    return found


def _as_key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
