"""Events of accounts, stored for 7 days."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits.tables import wallets
from foretell.domain.errors import NotFound
from foretell.domain.notifications.tables import event_wakes, events
from foretell.kit.clock import now, uuid7
from foretell.kit.database import is_among

PREDICTION_FINISHED = "prediction.finished"
BALANCE_LOW = "balance.low"
ENDPOINT_DISABLED = "endpoint.disabled"
WEBHOOK_TEST = "webhook.test"
#: The types that an endpoint can subscribe to.
TYPES = (PREDICTION_FINISHED, BALANCE_LOW, ENDPOINT_DISABLED)

KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Event:
    """An event of an account. `data` is JSON; without it, the event is the end of the prediction `id`."""

    user_id: UUID
    #: Counted per account, without gaps.
    sequence: int
    id: UUID
    type: str
    data: str | None
    #: The only receiver, if it is not for all endpoints.
    endpoint_id: UUID | None
    #: The URL of the prediction's own webhook.
    webhook: str | None
    created_at: datetime


#: The columns of an event after the user's id.
_COLUMNS = tuple(events.c[name] for name in Event.__dataclass_fields__)[1:]


async def tell(
    connection: AsyncConnection,
    user_id: UUID,
    type_: str,
    *,
    event_id: UUID | None = None,
    data: str | None = None,
    webhook: str | None = None,
    endpoint_id: UUID | None = None,
) -> int | None:
    """Write an event, if the account has receivers, or if `webhook` or `endpoint_id` is given.

    Returns its sequence, or None. Locks the wallet of the user until the transaction ends.
    """
    wanted = true() if webhook is not None or endpoint_id is not None else wallets.c.listening
    counted = await connection.execute(
        update(wallets)
        .where(wallets.c.user_id == user_id, wanted)
        .values(last_event=wallets.c.last_event + 1)
        .returning(wallets.c.last_event)
    )
    sequence: int | None = counted.scalar()
    if sequence is None:
        return None
    await connection.execute(
        insert(events).values(
            user_id=user_id,
            sequence=sequence,
            id=event_id or uuid7(),
            type=type_,
            data=data,
            webhook=webhook,
            endpoint_id=endpoint_id,
            created_at=now(),
        )
    )
    await connection.execute(
        insert(event_wakes).values(user_id=user_id, after=sequence - 1, upto=sequence, webhooks=webhook is not None)
    )
    return sequence


async def page(connection: AsyncConnection, user_id: UUID, *, after: int, limit: int) -> list[Event]:
    """Up to `limit` stored events of a user after that sequence, oldest first."""
    query = (
        select(*_COLUMNS)
        .where(events.c.user_id == user_id, events.c.sequence > after)
        .order_by(events.c.sequence)
        .limit(limit)
    )
    # By position, which takes half the time.
    return [Event(user_id, *row) for row in await connection.execute(query)]


async def last_of(connection: AsyncConnection, users: Sequence[UUID]) -> dict[UUID, int]:
    """The sequence of the last event of each of these users; 0 if there is none."""
    query = select(wallets.c.user_id, wallets.c.last_event).where(is_among(connection, wallets.c.user_id, users))
    return {row.user_id: row.last_event for row in await connection.execute(query)}


async def fill(connection: AsyncConnection, user_id: UUID, endings: Sequence[tuple[UUID, datetime]]) -> None:
    """Add events of predictions that ended before events were written: only for reading, not to be sent.

    The caller's transaction has locked the wallet.
    """
    if not endings:
        return
    last = (await last_of(connection, [user_id]))[user_id]
    # Some of these predictions may already have an event, because of their own webhook.
    recent = select(events.c.id).where(events.c.user_id == user_id, events.c.sequence > last - 2 * len(endings))
    known = set((await connection.execute(recent)).scalars())
    new = sorted((each for each in endings if each[0] not in known), key=lambda each: each[1])
    if not new:
        return
    await connection.execute(
        insert(events),
        [
            {
                "user_id": user_id,
                "sequence": sequence,
                "id": prediction_id,
                "type": PREDICTION_FINISHED,
                # No endpoint has this id.
                "endpoint_id": user_id,
                "created_at": finished_at,
            }
            for sequence, (prediction_id, finished_at) in enumerate(new, start=last + 1)
        ],
    )
    await connection.execute(
        update(wallets).where(wallets.c.user_id == user_id).values(last_event=wallets.c.last_event + len(new))
    )


async def set_threshold(connection: AsyncConnection, user_id: UUID, threshold: int | None) -> None:
    """Set the number of credits, available and held, below which the user gets an event; None: never.

    If the user already has less, the event is written at once, unless the previous threshold caused one. Locks the
    wallet of the user until the transaction ends.
    """
    columns = wallets.c
    mine = columns.user_id == user_id
    query = select(columns.available, columns.held, columns.low_threshold).where(mine).with_for_update()
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFound(what="user")
    await connection.execute(update(wallets).where(mine).values(low_threshold=threshold))
    left = row.available + row.held
    was_low = row.low_threshold is not None and left < row.low_threshold
    if threshold is not None and left < threshold and not was_low:
        data = {"available": row.available, "held": row.held, "threshold": threshold}
        await tell(connection, user_id, BALANCE_LOW, data=json.dumps(data))


async def threshold(connection: AsyncConnection, user_id: UUID) -> int | None:
    """The value of `set_threshold`."""
    query = select(wallets.c.low_threshold).where(wallets.c.user_id == user_id)
    found: int | None = await connection.scalar(query)
    return found


async def delete_old(connection: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` events from before that moment, the oldest first; returns how many."""
    old = (
        select(events.c.user_id, events.c.sequence)
        .where(events.c.created_at < before)
        .order_by(events.c.created_at)
        .limit(limit)
    )
    rows = (await connection.execute(old)).all()
    if not rows:
        return 0
    upto: dict[UUID, int] = {}
    for user_id, sequence in rows:
        upto[user_id] = max(sequence, upto.get(user_id, 0))
    for user_id, sequence in upto.items():
        # A lower sequence nearly always means an older event; the exception is `fill`.
        mine = (events.c.user_id == user_id, events.c.sequence <= sequence)
        await connection.execute(delete(events).where(*mine, events.c.created_at < before))
    return len(rows)
