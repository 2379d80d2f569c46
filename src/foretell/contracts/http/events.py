"""Events of an account, as `GET /events` and webhooks send them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an account, as in `GET /events`."""

    id: Annotated[UUID, Meta(description="The same in all attempts and for all receivers")]
    type: Annotated[str, Meta(examples=["prediction.finished"])]
    timestamp: datetime
    sequence: Annotated[int, Meta(description="Counted per account, without gaps", ge=1, examples=[1])]
    data: Annotated[msgspec.Raw, Meta(description="Of prediction.finished: as GET /predictions/{id} shows it")]


class EventPage(msgspec.Struct, frozen=True):
    """Events, oldest first. `more`: there are already more."""

    items: list[Event]
    next_cursor: Annotated[str, Meta(description="Send it as `after` for the next events")]
    more: bool


class EventBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body sent to a webhook. The id is in the header `webhook-id`."""

    type: str
    timestamp: datetime
    data: msgspec.Raw
    sequence: int
