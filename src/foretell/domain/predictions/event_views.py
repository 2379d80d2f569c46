"""Events as the API shows them, with the data of their predictions."""

from collections.abc import Sequence
from datetime import datetime
from typing import get_args
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts import http
from foretell.contracts.messages import Status
from foretell.domain.notifications import events, listening
from foretell.domain.notifications.events import KEPT, Event
from foretell.domain.predictions import history
from foretell.domain.predictions.pages import newest_ids
from foretell.domain.predictions.presentation import details_of
from foretell.domain.predictions.tables import predictions
from foretell.kit.database import is_among

#: How many ended predictions of the last 7 days are added as events at the first request of an account.
FIRST = 2000

_encode = msgspec.json.Encoder().encode
_NOTHING = msgspec.Raw(b"null")


async def ask(connection: AsyncConnection, user_id: UUID, at: datetime) -> None:
    """Note a request for the events of this account; events are written from now on.

    The first time, events of the newest predictions that ended in the last 7 days are added.
    """
    if not await listening.ask(connection, user_id, at):
        return
    ids: list[UUID] = []
    for status in get_args(Status):
        if status != "queued":
            ids += await newest_ids(connection, user_id, limit=FIRST, before_id=None, status=status, model=None)
    newest = sorted(ids, reverse=True)[:FIRST]
    columns = predictions.c
    query = select(columns.id, columns.finished_at).where(
        is_among(connection, columns.id, newest), columns.finished_at > at - KEPT
    )
    rows = (await connection.execute(query)).all() if newest else []
    await events.fill(connection, user_id, [(row.id, row.finished_at) for row in rows])


async def shown(connection: AsyncConnection, found: Sequence[Event]) -> list[http.Event]:
    """These events with their data: a prediction as in `GET /predictions/{id}`, or the stored data of the event."""
    ids = sorted({event.id for event in found if event.data is None})
    details = {
        view.id: msgspec.Raw(_encode(details_of(view)))
        for view in await history.find_many(connection, ids, with_input=True)
    }
    return [
        http.Event(
            id=event.id,
            type=event.type,
            timestamp=event.created_at,
            sequence=event.sequence,
            data=details.get(event.id, _NOTHING) if event.data is None else msgspec.Raw(event.data.encode()),
        )
        for event in found
    ]
