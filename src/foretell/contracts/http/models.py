"""Models that predictions can be asked of."""

from typing import Any, Literal

from pydantic import Field

from foretell.contracts.http.bodies import Answer, Words


class ModelExample(Answer):
    """A value to try, with the output it gives."""

    title: Words | None = None
    input: dict[str, Any] | None = None
    features: dict[str, Any] | None = None
    output: dict[str, Any]


class Quality(Answer):
    """One measure of how good a model is, from its report, on data that it was not trained on."""

    name: str = Field(examples=["auc"])
    value: float = Field(examples=[0.6913])
    title: Words
    meaning: Words
    better: Literal["higher", "lower"] | None = Field(description="Which values are better")


class Model(Answer):
    """A model that predictions can be asked of."""

    name: str = Field(examples=["flight-delay"])
    version: str = Field(description="The version described here", examples=["1.0.0"])
    default_version: str = Field(description="The version that is used if none is given", examples=["1.0.0"])
    versions: list[str] = Field(description="Oldest first", examples=[["1.0.0"]])
    title: Words
    description: Words
    price: int = Field(description="Credits for one prediction", examples=[1])
    timeout_s: float = Field(description="After so many seconds a prediction fails", examples=[30.0])
    fields: list[dict[str, Any]] = Field(description="`input` as a form, made from its schema")
    input_schema: dict[str, Any] = Field(description="JSON Schema of `input`")
    features_schema: dict[str, Any] = Field(description="JSON Schema of `features`")
    output_schema: dict[str, Any] = Field(description="JSON Schema of `output`")
    labels: dict[str, Words] = Field(description="Labels for values of the output")
    examples: list[ModelExample]
    quality: list[Quality] = Field(description="From the report of its training, the most important first")


class Models(Answer):
    """Every model."""

    items: list[Model]
