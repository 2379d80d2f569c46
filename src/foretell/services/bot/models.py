"""The models for the bot: names, prices and input fields."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from foretell.client import AsyncClient
from foretell.contracts.fields import Field, fields_of, read_fields

#: How long answers of the app are cached, in seconds.
_FRESH_S = 15.0


def short(name: str) -> str:
    """A short id of a model that fits into a button's data."""
    return sha256(name.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Model:
    """One model."""

    name: str
    version: str
    price: int
    title: dict[str, str]
    description: dict[str, str]
    labels: dict[str, dict[str, str]]
    fields: list[Field]
    #: The fields of the output, for the texts of a result.
    output: list[Field] = field(default_factory=list)

    @property
    def text_field(self) -> Field | None:
        """The model's only input field if that is a text, else None."""
        needed = [each for each in self.fields if each.required] or self.fields
        return needed[0] if len(needed) == 1 and needed[0].kind == "text" else None


class Models:
    """Reads models from the app, and caches the answers for some seconds."""

    def __init__(self) -> None:
        self._all: tuple[float, Sequence[Mapping[str, Any]]] = (0.0, [])
        self._each: dict[str, tuple[float, Model]] = {}

    async def all(self, client: AsyncClient) -> Sequence[Mapping[str, Any]]:
        """Every model, without its fields."""
        until, models = self._all
        if time.monotonic() >= until:
            models = await client.models()
            self._all = (time.monotonic() + _FRESH_S, models)
        return models

    async def one(self, client: AsyncClient, name: str) -> Model:
        """The default version of a model. Raises `ApiError` (404)."""
        until, model = self._each.get(name, (0.0, None))
        if model is None or time.monotonic() >= until:
            model = _model(await client.model(name))
            self._each[name] = (time.monotonic() + _FRESH_S, model)
        return model

    async def known(self, client: AsyncClient, name: str) -> Model:
        """The same, possibly outdated, which is enough for the labels of a result. Raises `ApiError`, `Unreachable`."""
        found = self._each.get(name)
        return found[1] if found is not None else await self.one(client, name)

    def forget(self) -> None:
        """Clear the cache, which may be out of date."""
        self._all = (0.0, [])
        self._each.clear()


def _model(answer: Mapping[str, Any]) -> Model:
    return Model(
        name=answer["name"],
        version=answer["version"],
        price=answer["price"],
        title=answer["title"],
        description=answer["description"],
        labels=answer.get("labels") or {},
        fields=read_fields(answer["fields"]),
        output=fields_of(answer.get("output_schema") or {}),
    )
