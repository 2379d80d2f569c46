"""What dispatchers ask and write to send what is to be told. Any number of them may, at once.

An endpoint is sent to by one dispatcher at a time, so that the order holds: whoever takes it puts off when it is due,
for as long as he may take, and writes his name on it. If he is gone, it is due again by then.
"""

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, and_, bindparam, case, delete, func, insert, literal, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits.tables import wallets
from foretell.domain.notifications import events
from foretell.domain.notifications.endpoints import hash_of
from foretell.domain.notifications.events import ENDPOINT_DISABLED, Event
from foretell.domain.notifications.rotation import still_signing
from foretell.domain.notifications.tables import deliveries, endpoints, event_wakes, listeners
from foretell.domain.notifications.tables import events as events_table
from foretell.kit.clock import uuid7
from foretell.kit.database import Moment, server_clock, server_time

_WAKES = 1000
#: In PostgreSQL, whoever changes many endpoints in one transaction holds this. "events" in ASCII.
_LOCK = int.from_bytes(b"events")

#: Kinds of endpoints that are on the internet; those of Telegram are the bot's.
INTERNET = ("webhook", "once")
TELEGRAM = "telegram"

_C = endpoints.c


@dataclass(frozen=True, slots=True)
class Taken:
    """An endpoint that is ours to send to, for a while."""

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
    #: The newest first; with what each attempt is signed.
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


@dataclass(frozen=True, slots=True)
class Sent:
    """How far one got with an endpoint. `retry_in_s`: that the next one failed, and when to try it again."""

    endpoint: Taken
    cursor: int
    again_done: int
    failures: int
    failing_since: datetime | None
    head_since: datetime | None
    retry_in_s: float | None
    attempts: Sequence[Attempt]


async def spread(connection: AsyncConnection) -> int:
    """Make due the endpoints of accounts that have news; how much news there was, 0 if another dispatcher is at it."""
    seen = (await connection.scalars(select(event_wakes.c.id).order_by(event_wakes.c.id).limit(_WAKES))).all()
    if not seen or not await _is_alone(connection):
        return 0
    # Another dispatcher may have been at some of them since we looked.
    deleted = delete(event_wakes).where(event_wakes.c.id.in_(seen)).returning(*event_wakes.c)
    wakes = sorted((await connection.execute(deleted)).all(), key=lambda wake: int(wake.id))
    if not wakes:
        return 0
    users = sorted({wake.user_id for wake in wakes})
    last = select(wallets.c.last_event).where(wallets.c.user_id == _C.user_id).scalar_subquery()
    is_due = and_(_C.due_at.is_(None), _C.state == "enabled")
    await connection.execute(
        update(endpoints)
        .where(_C.user_id.in_(users), _C.kind != "once")
        .values(last_event=last, due_at=case((is_due, server_clock(connection)), else_=_C.due_at))
    )
    for wake in wakes:
        if wake.webhooks:
            await _spread_once(connection, wake.user_id, wake.after, wake.upto, await server_time(connection))
    return len(wakes)


async def _is_alone(connection: AsyncConnection) -> bool:
    """Whether we have the lock of all who change many endpoints; SQLite has one writer anyway."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(await connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))))


async def _be_alone(connection: AsyncConnection) -> datetime:
    """Have that lock; returns the server's time since when.

    Two who change many endpoints, each in an order of its own, would wait for one another.
    """
    if connection.dialect.name != "postgresql":
        return await server_time(connection)
    locked = await connection.execute(select(func.pg_advisory_xact_lock(_LOCK), func.clock_timestamp()))
    at: datetime = locked.one()[1]
    return at


async def _spread_once(connection: AsyncConnection, user_id: UUID, after: int, upto: int, at: datetime) -> None:
    """Those of the webhooks that predictions name, an endpoint for each address."""
    inserting: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    columns = events_table.c
    query = (
        select(columns.webhook, func.min(columns.sequence).label("first"), func.max(columns.sequence).label("last"))
        .where(columns.user_id == user_id, columns.sequence > after, columns.sequence <= upto)
        .where(columns.webhook.is_not(None))
        .group_by(columns.webhook)
    )
    found = (await connection.execute(query)).all()
    if not found:
        return
    secret = inserting(listeners).values(user_id=user_id, secret=secrets.token_bytes(32))
    await connection.execute(
        secret.on_conflict_do_update(
            index_elements=[listeners.c.user_id],
            set_={"secret": func.coalesce(listeners.c.secret, secret.excluded.secret)},
        )
    )
    new = inserting(endpoints)
    is_drained = _C.cursor >= _C.last_event
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=[_C.user_id, _C.url_hash],
            index_where=text("kind = 'once'"),
            set_={
                "cursor": case((is_drained, new.excluded.cursor), else_=_C.cursor),
                "last_event": new.excluded.last_event,
                "due_at": func.coalesce(_C.due_at, new.excluded.due_at),
                "created_at": new.excluded.created_at,
            },
        ),
        [
            {
                "id": uuid7(),
                "user_id": user_id,
                "kind": "once",
                "url": row.webhook,
                "url_hash": hash_of(row.webhook),
                "description": "",
                "state": "enabled",
                "cursor": row.first - 1,
                "last_event": row.last,
                "due_at": at,
                "created_at": at,
            }
            for row in found
        ],
    )


async def take(
    connection: AsyncConnection,
    me: UUID,
    *,
    lease: timedelta,
    limit: int,
    busy: Collection[UUID],
    kinds: Collection[str],
) -> list[Taken]:
    """Up to `limit` endpoints that are due, the longest first, of those kinds; none of the accounts that are `busy`.

    They are ours for as long as `lease`, unless we `renew` it.
    """
    due = select(_C.id).where(_C.due_at <= server_clock(connection), _C.kind.in_(kinds))
    if busy:
        due = due.where(_C.user_id.not_in(busy))
    # A CTE, which is run once, whatever the plan: of a subquery nobody promises that.
    found = due.order_by(_C.due_at).limit(limit).with_for_update(skip_locked=True).cte("due")
    taken = await connection.execute(
        update(endpoints)
        .where(_C.id.in_(select(found.c.id)))
        .values(leased_by=me, due_at=server_clock(connection, lease))
        .returning(*endpoints.c)
    )
    return await _read(connection, taken.all(), lease)


async def _read(connection: AsyncConnection, rows: Sequence[Any], lease: timedelta) -> list[Taken]:
    """Endpoints that were just leased, with the secrets that sign now."""
    users = {row.user_id for row in rows if row.kind == "once"}
    shared = {}
    if users:
        found = await connection.execute(select(listeners).where(listeners.c.user_id.in_(users)))
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
    """By endpoint, what is to be sent once more, and up to `most` of what comes next, in order.

    Of what comes next, all there is stands here, not only what the endpoint is to be told: see `is_for`.
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
    """Whether an endpoint is told of this in its turn."""
    if event.endpoint_id is not None:
        # Tests are sent at once, out of turn.
        return False
    if endpoint.kind == "once":
        return event.webhook == endpoint.url
    return endpoint.types is None or event.type in endpoint.types


async def renew(connection: AsyncConnection, me: UUID, ids: Collection[UUID], *, lease: timedelta) -> None:
    """We are still at these, and for as long as `lease` from now."""
    at = await _be_alone(connection)
    mine = (_C.id.in_(ids), _C.leased_by == me)
    await connection.execute(update(endpoints).where(*mine).values(due_at=at + lease))


async def record(
    connection: AsyncConnection, me: UUID, sent: Sequence[Sent], *, keep: Collection[UUID], lease: timedelta
) -> list[Taken]:
    """Write down how far one got, and let go of these endpoints. Those that are no longer ours stay as they are.

    Of those in `keep`, the ones that there is more for now stay ours for as long as `lease`: they are returned.
    """
    at = await _be_alone(connection)
    attempts = [attempt for each in sent for attempt in each.attempts]
    if attempts:
        names = Attempt.__dataclass_fields__
        rows = [{name: getattr(attempt, name) for name in names} for attempt in attempts]
        await connection.execute(insert(deliveries), rows)
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
            # In one order, so that two who write wait for each other.
            for each in sorted(sent, key=lambda each: each.endpoint.id)
        ],
    )
    if not keep:
        return []
    kept = await connection.execute(select(endpoints).where(_C.id.in_(keep), _C.leased_by == me))
    return await _read(connection, kept.all(), lease)


async def _forget_again(connection: AsyncConnection, endpoint_id: UUID, done: int) -> None:
    query = select(_C.again).where(_C.id == endpoint_id).with_for_update()
    left = json.loads(await connection.scalar(query) or "[]")[done:]
    changed = update(endpoints).where(_C.id == endpoint_id).values(again=json.dumps(left) if left else None)
    await connection.execute(changed)


async def disable(connection: AsyncConnection, sent: Sent, reason: str) -> None:
    """Turn a webhook off, and tell its owner by the other ways.

    Called before `record`, in the same transaction and, as settlement locks wallets, in the order of the users.
    """
    await _be_alone(connection)
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
    """What waits to be sent: how many events, and since when the endpoint that is due for longest is due."""

    messages: int
    oldest_at: datetime | None
    due_since: datetime | None


async def waiting(connection: AsyncConnection, kinds: Collection[str]) -> Waiting:
    """What waits at endpoints of these kinds, failing ones included. What is being sent counts as well."""
    due = (_C.due_at.is_not(None), _C.kind.in_(kinds))
    pending = (*due, _C.cursor < _C.last_event)
    messages = await connection.scalar(select(func.sum(_C.last_event - _C.cursor)).where(*pending))
    next_one = and_(events_table.c.user_id == _C.user_id, events_table.c.sequence == _C.cursor + 1)
    oldest = select(func.min(events_table.c.created_at)).select_from(endpoints.join(events_table, next_one))
    oldest_at: datetime | None = await connection.scalar(oldest.where(*pending))
    due_since: datetime | None = await connection.scalar(select(func.min(_C.due_at)).where(*due))
    return Waiting(int(messages or 0), oldest_at, due_since)


async def delete_old(connection: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Forget up to `limit` attempts from before that moment, and endpoints of single predictions that are done.

    Returns how many attempts there were.
    """
    await _be_alone(connection)
    oldest = select(deliveries.c.id, deliveries.c.at).order_by(deliveries.c.id).limit(limit)
    old = [row.id for row in await connection.execute(oldest) if row.at < before]
    if old:
        await connection.execute(delete(deliveries).where(deliveries.c.id.in_(old)))
    done = and_(_C.kind == "once", _C.due_at.is_(None), _C.created_at < before)
    await connection.execute(delete(endpoints).where(done))
    return len(old)
