"""Errors as `application/problem+json` (RFC 9457)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from foretell.contracts.http.bodies import Answer


class FieldProblem(Answer):
    """A problem with one part of a request: a `pointer` into its body, or the name of a `parameter` or `header`."""

    detail: str = Field(examples=["must be at least 0"])
    pointer: str | None = Field(default=None, description="JSON Pointer into the body", examples=["#/input/distance"])
    parameter: str | None = Field(default=None, description="Parameter of the query or the path")
    header: str | None = Field(default=None, description="Header of the request")


class Problem(BaseModel):
    """RFC 9457. `code` is stable and for programs; `detail` is for people."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(examples=["urn:problem-type:foretell:not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such prediction."])
    code: str = Field(examples=["not_found"])
    instance: str | None = Field(default=None, description="Path of the request")
    outcome: Literal["not_done", "unknown"] | None = Field(
        default=None,
        description=(
            "With a status of 5xx: `not_done` if the request had no effect and can be repeated; `unknown` if it may "
            "have had an effect: check first, or repeat it with the same Idempotency-Key."
        ),
    )
    errors: list[FieldProblem] | None = Field(default=None, description="Each invalid field")
