"""The outbox of notifications: queries and updates of the dispatchers that send events. Several may run at once.

Only one dispatcher at a time sends to an endpoint, to keep the order. It leases the endpoint: it sets `due_at` to
the end of the lease and `leased_by` to its id. If it dies, the endpoint is due again when the lease ends.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, and_, bindparam, case, delete, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.notifications import events
from foretell.domain.notifications.events import ENDPOINT_DISABLED, Event
from foretell.domain.notifications.locks import lock_endpoints
from foretell.domain.notifications.rotation import still_signing
from foretell.domain.notifications.tables import deliveries, endpoints, listeners
from foretell.domain.notifications.tables import events as events_table
from foretell.kit.database import Moment, insert_many, is_among, server_clock

#: Kinds of endpoints on the internet; events for Telegram are sent to the bot.
INTERNET = ("webhook", "once")
TELEGRAM = "telegram"

_C = endpoints.c


@dataclass(frozen=True, slots=True)
class Taken:
    """An endpoint that this dispatcher has leased."""

    id: UUID
    user_id: UUID
    kind: str
    url: str | None
    chat_id: int | None
    types: frozenset[str] | None
    enabled: bool
    cursor: int
    last_event: int
    again: tuple[int, ...]
    failures: int
    failing_since: datetime | None
    head_since: datetime | None
    #: The secrets that sign each attempt, the newest first.
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to deliver an event."""

    endpoint_id: UUID
    event_id: UUID
    sequence: int
    type: str
    attempt: int
    outcome: str
    status_code: int | None
    error: str | None
    duration_ms: int
    at: datetime


_ATTEMPT_COLUMNS = tuple(Attempt.__dataclass_fields__)
_values_of = attrgetter(*_ATTEMPT_COLUMNS)


@dataclass(frozen=True, slots=True)
class Sent:
    """Progress with an endpoint. `retry_in_s`: the next event failed and is tried again after so many seconds."""

    endpoint: Taken
    cursor: int
    again_done: int
    failures: int
    failing_since: datetime | None
    head_since: datetime | None
    retry_in_s: float | None
    attempts: Sequence[Attempt]


async def take(
    connection: AsyncConnection,
    me: UUID,
    *,
    lease: timedelta,
    limit: int,
    busy: Collection[UUID],
    kinds: Collection[str],
) -> list[Taken]:
    """Lease up to `limit` due endpoints of those kinds, the longest due first, except those of `busy` accounts.

    The lease ends after `lease`, unless it is renewed with `renew`.
    """
    due = select(_C.id).where(_C.due_at <= server_clock(connection), _C.kind.in_(kinds))
    if busy:
        due = due.where(_C.user_id.not_in(busy))
    # A CTE is evaluated once, whatever the plan; a subquery may be evaluated several times.
    found = due.order_by(_C.due_at).limit(limit).with_for_update(skip_locked=True).cte("due")
    taken = await connection.execute(
        update(endpoints)
        .where(_C.id.in_(select(found.c.id)))
        .values(leased_by=me, due_at=server_clock(connection, lease))
        .returning(*endpoints.c)
    )
    return await _read(connection, taken.all(), lease)


async def _read(connection: AsyncConnection, rows: Sequence[Any], lease: timedelta) -> list[Taken]:
    """The endpoints that were just leased, with their current secrets."""
    users = {row.user_id for row in rows if row.kind == "once"}
    shared = {}
    if users:
        found = await connection.execute(select(listeners).where(is_among(connection, listeners.c.user_id, users)))
        shared = {row.user_id: row for row in found}
    taken = []
    for row in rows:
        signing = shared.get(row.user_id) if row.kind == "once" else row
        taken.append(_taken(row, () if signing is None else _secrets_of(signing, row.due_at - lease)))
    return taken


def _taken(row: Any, signing: tuple[bytes, ...]) -> Taken:
    return Taken(
        id=row.id,
        user_id=row.user_id,
        kind=row.kind,
        url=row.url,
        chat_id=row.chat_id,
        types=None if row.types is None else frozenset(row.types.split(",")),
        enabled=row.state == "enabled",
        cursor=row.cursor,
        last_event=row.last_event,
        again=tuple(json.loads(row.again or "[]")),
        failures=row.failures,
        failing_since=row.failing_since,
        head_since=row.head_since,
        secrets=signing,
    )


def _secrets_of(row: Any, at: datetime) -> tuple[bytes, ...]:
    newest = () if row.secret is None else (row.secret,)
    return (*newest, *still_signing(row.previous_secrets, at))


async def news(
    connection: AsyncConnection, taken: Sequence[Taken], *, most: int
) -> dict[UUID, tuple[list[Event], list[Event]]]:
    """By endpoint, the events to redeliver, and up to `most` of the next events, in order.

    The next events are all events of the account, also those that the endpoint does not get: see `is_for`.
    """
    found: dict[UUID, tuple[list[Event], list[Event]]] = {}
    for endpoint in taken:
        again: list[Event] = []
        for sequence in endpoint.again:
            again += [
                event
                for event in await events.page(connection, endpoint.user_id, after=sequence - 1, limit=1)
                if event.sequence == sequence
            ]
        following: list[Event] = []
        if endpoint.enabled and endpoint.cursor < endpoint.last_event:
            following = await events.page(connection, endpoint.user_id, after=endpoint.cursor, limit=most)
            following = [event for event in following if event.sequence <= endpoint.last_event]
        found[endpoint.id] = (again, following)
    return found


def is_for(event: Event, endpoint: Taken) -> bool:
    """Whether an endpoint gets this event in the normal order."""
    if event.endpoint_id is not None:
        # Tests are sent at once, outside of the order.
        return False
    if endpoint.kind == "once":
        return event.webhook == endpoint.url
    return endpoint.types is None or event.type in endpoint.types


async def renew(connection: AsyncConnection, me: UUID, ids: Collection[UUID], *, lease: timedelta) -> None:
    """We are still at these, and for as long as `lease` from now."""
    at = await lock_endpoints(connection)
    mine = (is_among(connection, _C.id, ids), _C.leased_by == me)
    await connection.execute(update(endpoints).where(*mine).values(due_at=at + lease))


async def record(
    connection: AsyncConnection, me: UUID, sent: Sequence[Sent], *, keep: Collection[UUID], lease: timedelta
) -> list[Taken]:
    """Store the progress, and release these endpoints. Endpoints with a lost lease are not changed.

    Endpoints in `keep` that have more events stay leased for `lease`; they are returned.
    """
    at = await lock_endpoints(connection)
    attempts = [attempt for each in sent for attempt in each.attempts]
    if attempts:
        await insert_many(connection, deliveries, list(map(_values_of, attempts)), _ATTEMPT_COLUMNS)
    for each in sent:
        if each.again_done:
            await _forget_again(connection, each.endpoint.id, each.again_done)
    retry_at = bindparam("retry_at", type_=_C.due_at.type)
    cursor = bindparam("new_cursor", type_=_C.cursor.type)
    has_more = or_(_C.again.is_not(None), and_(_C.state == "enabled", cursor < _C.last_event))
    stays = and_(bindparam("keep", type_=Boolean()), has_more)
    await connection.execute(
        update(endpoints)
        .where(_C.id == bindparam("endpoint"), _C.leased_by == me)
        .values(
            cursor=cursor,
            failures=bindparam("new_failures"),
            failing_since=bindparam("new_failing_since"),
            head_since=bindparam("new_head_since"),
            leased_by=case((stays, _C.leased_by), else_=None),
            due_at=case(
                (stays, literal(at + lease, Moment())),
                (_C.again.is_not(None), literal(at, Moment())),
                (and_(_C.state == "enabled", cursor < _C.last_event), func.coalesce(retry_at, literal(at, Moment()))),
                else_=None,
            ),
        ),
        [
            {
                "endpoint": each.endpoint.id,
                "new_cursor": each.cursor,
                "new_failures": each.failures,
                "new_failing_since": each.failing_since,
                "new_head_since": each.head_since,
                "retry_at": None if each.retry_in_s is None else at + timedelta(seconds=each.retry_in_s),
                "keep": each.endpoint.id in keep and each.retry_in_s is None,
            }
            # In a fixed order, to avoid deadlocks.
            for each in sorted(sent, key=lambda each: each.endpoint.id)
        ],
    )
    if not keep:
        return []
    kept = await connection.execute(select(endpoints).where(is_among(connection, _C.id, keep), _C.leased_by == me))
    return await _read(connection, kept.all(), lease)


async def _forget_again(connection: AsyncConnection, endpoint_id: UUID, done: int) -> None:
    query = select(_C.again).where(_C.id == endpoint_id).with_for_update()
    left = json.loads(await connection.scalar(query) or "[]")[done:]
    changed = update(endpoints).where(_C.id == endpoint_id).values(again=json.dumps(left) if left else None)
    await connection.execute(changed)


async def disable(connection: AsyncConnection, sent: Sent, reason: str) -> None:
    """Disable a webhook, and write an event for the owner's other receivers.

    Called before `record`, in the same transaction and, as settlement locks wallets, in the order of the users.
    """
    await lock_endpoints(connection)
    endpoint = sent.endpoint
    data = json.dumps({"webhook_id": str(endpoint.id), "url": endpoint.url, "reason": reason})
    await events.tell(connection, endpoint.user_id, ENDPOINT_DISABLED, data=data)
    await connection.execute(
        update(endpoints)
        .where(_C.id == endpoint.id, _C.state == "enabled")
        .values(state="disabled", disabled_reason=reason)
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """Waiting events: their number, and since when the longest overdue endpoint is due."""

    messages: int
    oldest_at: datetime | None
    due_since: datetime | None


async def waiting(connection: AsyncConnection, kinds: Collection[str]) -> Waiting:
    """Events that wait at endpoints of these kinds, including failing ones and events that are being sent."""
    due = (_C.due_at.is_not(None), _C.kind.in_(kinds))
    pending = (*due, _C.cursor < _C.last_event)
    messages = await connection.scalar(select(func.sum(_C.last_event - _C.cursor)).where(*pending))
    next_one = and_(events_table.c.user_id == _C.user_id, events_table.c.sequence == _C.cursor + 1)
    oldest = select(func.min(events_table.c.created_at)).select_from(endpoints.join(events_table, next_one))
    oldest_at: datetime | None = await connection.scalar(oldest.where(*pending))
    due_since: datetime | None = await connection.scalar(select(func.min(_C.due_at)).where(*due))
    return Waiting(int(messages or 0), oldest_at, due_since)


async def delete_old(connection: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` attempts from before that moment, and finished endpoints of single predictions.

    Returns the number of attempts.
    """
    await lock_endpoints(connection)
    oldest = select(deliveries.c.id, deliveries.c.at).order_by(deliveries.c.id).limit(limit)
    old = [row.id for row in await connection.execute(oldest) if row.at < before]
    if old:
        await connection.execute(delete(deliveries).where(is_among(connection, deliveries.c.id, old)))
    done = and_(_C.kind == "once", _C.due_at.is_(None), _C.created_at < before)
    await connection.execute(delete(endpoints).where(done))
    return len(old)
