"""A model with every kind of field, of which the page knows nothing."""

import json
from pathlib import Path
from typing import Any

from foretell.inference.python_class import step

NAME = "odd"

_MANIFEST = """\
name = "odd"
version = "2.0.0"
title = { en = "Odd one", ru = "Странная" }
runtime = "python"
price_credits = 3
timeout_s = 20
max_batch = 8

[description]
en = "Takes every kind of field and says how many it got."
ru = "Принимает поля всех видов и говорит, сколько их."

[labels]
much = { en = "Much", ru = "Много" }
little = { en = "Little", ru = "Мало" }

[options]
class = "model:Odd"

[[examples]]
title = { en = "Everything", ru = "Всё" }
features = { colour = "red", count = 3, share = 0.5, sure = true, at = "09:30", day = "2026-01-31", note = "hello", tags = ["a", "b"], bag = { kg = 2.5, fragile = false }, more = { any = [1] } }
output = { label = "much", score = 10.0, shares = { much = 0.75, little = 0.25 } }
"""  # noqa: E501

_MODEL = """\
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


class Bag(BaseModel):
    kg: Annotated[float, Field(gt=0, le=30)]
    fragile: bool = False


class Order(BaseModel):
    colour: Literal["red", "green", "blue", "white", "black"]
    count: Annotated[int, Field(ge=0, le=10)]
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    sure: bool
    at: Annotated[str, Field(json_schema_extra={"x-format": "time"})]
    day: Annotated[str, Field(json_schema_extra={"x-format": "date"})]
    note: Annotated[str, Field(max_length=200)] = ""
    tags: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=3)] = []
    bag: Bag | None = None
    more: dict[str, Any] = {}


class Shares(BaseModel):
    much: Annotated[float, Field(ge=0, le=1)]
    little: Annotated[float, Field(ge=0, le=1)]


class Answer(BaseModel):
    label: Literal["much", "little"]
    score: float
    shares: Shares


class Odd:
    def predict(self, batch: list[Order]) -> list[Answer]:
        answers = []
        for order in batch:
            given = len(order.model_fields_set)
            much = 0.75 if given > 5 else 0.25
            answers.append(
                Answer(label="much" if much > 0.5 else "little", score=given, shares=Shares(much=much, little=1 - much))
            )
        return answers
"""


def write_odd_model(models: Path, version: str = "2.0.0") -> None:
    """Put the package into the folder `models`."""
    package = models / f"{NAME}-{version}"
    package.mkdir(parents=True, exist_ok=True)
    (package / "model.toml").write_text(_MANIFEST.replace("2.0.0", version), encoding="utf-8")
    code = package / "model.py"
    code.write_text(_MODEL, encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "odd_model"}
    exec(compile(_MODEL, code, "exec"), scope)
    schemas = step(scope["Odd"], "predict")
    (package / "features.schema.json").write_text(json.dumps(schemas.taken_schema))
    (package / "output.schema.json").write_text(json.dumps(schemas.given_schema))
