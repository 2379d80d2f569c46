"""Webhooks and what was sent to them."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from foretell.contracts.http.bodies import PRINTABLE, Answer, KeptText, Request

EventType = Literal["prediction.finished", "balance.low", "endpoint.disabled"]
_TYPES = "Types of events that it gets; null: all, including future types"
_Description = Annotated[KeptText, Field(max_length=200, examples=["order system"])]
_Url = Annotated[
    str,
    Field(min_length=1, max_length=2048, examples=["https://example.com/hooks/foretell"], json_schema_extra=PRINTABLE),
]


class NewWebhook(Request):
    """An address that gets the events of an account."""

    url: _Url
    events: list[EventType] | None = Field(default=None, min_length=1, max_length=10, description=_TYPES)
    description: _Description | None = None


class WebhookChange(Request):
    """Changes; fields that are left out do not change."""

    url: _Url | SkipJsonSchema[None] = None
    events: list[EventType] | None = Field(default=None, min_length=1, max_length=10, description=_TYPES)
    description: _Description | SkipJsonSchema[None] = None
    state: Literal["enabled", "paused"] | SkipJsonSchema[None] = Field(
        default=None, description="`paused`: nothing is sent; events are kept for 7 days"
    )


class Webhook(Answer):
    """A webhook of an account."""

    id: UUID
    url: str
    events: list[str] | None = Field(description=_TYPES)
    description: str
    state: Literal["enabled", "paused", "disabled"] = Field(
        description="`disabled`: turned off by the service, see `disabled_reason`"
    )
    disabled_reason: Literal["gone", "failing"] | None = Field(
        description="`gone`: it answered 410. `failing`: nothing succeeded for five days"
    )
    failing_since: datetime | None
    waiting: int = Field(description="Events for it that were not delivered yet. More than 20,000 may include others")
    next_attempt_at: datetime | None
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new webhook with its secret, which is shown only once."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class Webhooks(Answer):
    """The webhooks of an account, oldest first."""

    items: list[Webhook]


class WebhookSecret(Answer):
    """A new secret, shown only once. For 24 hours everything is signed with the replaced one, too."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class WebhookTest(Answer):
    """A test that is being sent; its outcome is in the deliveries."""

    sequence: int


class Redelivery(Request):
    """What to send again: one event by its sequence, or all events since a time, in order."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["sequence"]}, {"required": ["since"]}]})

    # The bounds belong to the number and not to the field: pydantic would apply them to null, too, and raise.
    sequence: Annotated[int, Field(ge=1, le=2**63 - 1)] | SkipJsonSchema[None] = None
    since: AwareDatetime | SkipJsonSchema[None] = Field(default=None, examples=["2026-01-31T12:00:00Z"])


class Redelivered(Answer):
    """How many events will be sent. Tests and events of types that the webhook does not get are not among them."""

    events: int


class Delivery(Answer):
    """One attempt to deliver to a webhook. Only the status of the answer is stored."""

    id: int
    event_id: UUID = Field(description="`webhook-id`: the same in all attempts")
    sequence: int
    type: str
    attempt: int = Field(description="Counted since the last success")
    outcome: Literal["delivered", "failed", "given_up"]
    status_code: int | None
    error: str | None = Field(
        description="Why there was no answer: timeout, refused, unreachable, reset, tls, malformed or address"
    )
    duration_ms: int
    at: datetime


class DeliveryPage(Answer):
    """A part of the attempts, newest first; `next_cursor` is null on the last page."""

    items: list[Delivery]
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after this one")
