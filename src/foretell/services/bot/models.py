"""The models as the bot shows them: what they are called, what they cost, and what is to be filled in."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from foretell.client import AsyncClient
from foretell.contracts.fields import Field, fields_of, read_fields

#: For so long an answer of the app is taken for what is still so.
_FRESH_S = 15.0


def short(name: str) -> str:
    """A name for a model that fits a button, whatever it is called."""
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
    #: The same of what it answers: for the words of a result.
    output: list[Field] = field(default_factory=list)

    @property
    def text_field(self) -> Field | None:
        """The text that is all there is to fill in, if it is so."""
        needed = [each for each in self.fields if each.required] or self.fields
        return needed[0] if len(needed) == 1 and needed[0].kind == "text" else None


class Models:
    """Asks the app for them, and remembers the answers for some seconds."""

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
        """The same, be it an older version: enough to name what a result says. Raises `ApiError`, `Unreachable`."""
        found = self._each.get(name)
        return found[1] if found is not None else await self.one(client, name)

    def forget(self) -> None:
        """What is remembered may be out of date."""
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
