"""Predictions, from the request to the result."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta
from pydantic import ConfigDict, Field

from foretell.contracts.http.bodies import Request
from foretell.contracts.messages import Failure, Status


class NewNotify(Request):
    """An address that gets the end of this prediction, in addition to the webhooks of the account."""

    webhook: str = Field(max_length=2048, examples=["https://example.com/hooks/foretell?order=17"])


class NewPrediction(Request):
    """A request for a prediction: raw `input`, or `features` as the model takes them."""

    model_config = ConfigDict(
        # Null is the same as left out.
        json_schema_extra={
            "oneOf": [
                {
                    "required": [given],
                    "properties": {given: {"type": "object", "additionalProperties": True}, other: {"type": "null"}},
                }
                for given, other in (("input", "features"), ("features", "input"))
            ]
        },
    )

    model: str = Field(min_length=1, examples=["flight-delay"])
    version: str | None = Field(
        default=None, min_length=1, description="Without one, the default version", examples=["1.0.0"]
    )
    input: dict[str, Any] | None = Field(
        default=None,
        description="Raw fields; they are preprocessed",
        examples=[{"carrier": "AA", "departure_time": "09:30", "distance_miles": 550, "weather_code": 1}],
    )
    features: dict[str, Any] | None = Field(default=None, description="In place of `input`: skips preprocessing")
    notify: NewNotify | None = Field(
        default=None,
        description="Sends its end to this address, signed with the secret of POST /webhooks/once/rotate",
    )


class Timings(msgspec.Struct, frozen=True):
    """Durations in seconds; null while unknown."""

    #: From acceptance until a worker began, from there to the end, and from acceptance to the end.
    waiting_s: float | None = None
    running_s: float | None = None
    total_s: float | None = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction that was accepted. It ends once: succeeded (charged), failed or canceled (credits come back)."""

    id: UUID
    status: Annotated[Status, Meta(examples=["queued"])]
    model: Annotated[str, Meta(examples=["flight-delay"])]
    version: Annotated[str, Meta(examples=["1.0.0"])]
    price: Annotated[int, Meta(description="Credits", ge=0, examples=[1])]
    output: Annotated[
        msgspec.Raw | None, Meta(description="Once it succeeded", examples=[{"prediction": 0, "probability": 0.1874}])
    ] = None
    error: Annotated[Failure | None, Meta(description="Once it failed")] = None
    worker_id: Annotated[str | None, Meta(description="Which worker ran it")] = None
    created_at: datetime
    expires_at: Annotated[datetime, Meta(description="If it has not ended by then it fails with `expired`")]
    published_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    timings: Timings = Timings()


class QueuePlace(msgspec.Struct, frozen=True, kw_only=True):
    """The approximate place of a queued prediction, some seconds old."""

    ahead: Annotated[int, Meta(description="How many predictions of the installation wait before it", ge=0)]
    expected_wait_s: Annotated[float | None, Meta(description="At the rate of the last seconds")] = None


class PredictionDetails(Prediction, frozen=True, kw_only=True):
    """A prediction with its `input` or `features`."""

    input: Annotated[msgspec.Raw | None, Meta(description="As it was sent")] = None
    features: Annotated[msgspec.Raw | None, Meta(description="As they were sent")] = None
    queue: Annotated[QueuePlace | None, Meta(description="While it is queued, if known")] = None


class PredictionPage(msgspec.Struct, frozen=True):
    """A part of the history, newest first; `next_cursor` is null on the last page."""

    items: list[Prediction]
    next_cursor: str | None = None
