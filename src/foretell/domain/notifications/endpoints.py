"""Endpoints of an account, the receivers of its events. Sending is in `outbox`."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, delete, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.errors import NotFound, TooManyEndpoints, TooManyRedeliveries
from foretell.domain.notifications import events, listening
from foretell.domain.notifications.events import WEBHOOK_TEST
from foretell.domain.notifications.rotation import replaced
from foretell.domain.notifications.tables import deliveries, endpoints, listeners
from foretell.domain.notifications.tables import events as events_table
from foretell.kit.clock import uuid7
from foretell.kit.database import Moment, server_time

MAX_WEBHOOKS = 20
#: How many events of one endpoint may wait for redelivery.
MAX_AGAIN = 100
#: Up to so many events after the cursor, those meant for the endpoint are counted; beyond that all of them count, since
#: reading a long backlog would take too long.
_COUNTED_EXACTLY = 20_000
_SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, no secret
_SECRET_BYTES = 32

State = Literal["enabled", "paused", "disabled"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook of an account. `waiting`: its events that are not delivered yet; `due_at`: the next attempt."""

    id: UUID
    url: str
    types: tuple[str, ...] | None
    description: str
    state: State
    disabled_reason: str | None
    failing_since: datetime | None
    waiting: int
    due_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt."""

    id: int
    event_id: UUID
    sequence: int
    type: str
    attempt: int
    outcome: str
    status_code: int | None
    error: str | None
    duration_ms: int
    at: datetime


_WEBHOOK_COLUMNS = (
    *(endpoints.c[name] for name in ("id", "url", "types", "description", "state", "disabled_reason", "failing_since")),
    *(endpoints.c[name] for name in ("due_at", "created_at")),
)
_DELIVERY_COLUMNS = tuple(deliveries.c[name] for name in Delivery.__dataclass_fields__)


def shown_secret(secret: bytes) -> str:
    """A secret in the form for its owner."""
    return _SECRET_PREFIX + base64.b64encode(secret).decode()


async def create(
    connection: AsyncConnection, user_id: UUID, url: str, *, types: Sequence[str] | None, description: str
) -> tuple[Endpoint, str]:
    """A new webhook, which gets events from now on, and its secret. Raises `TooManyEndpoints`."""
    at = await server_time(connection)
    await listening.begin(connection, user_id)
    count = select(func.count()).where(endpoints.c.user_id == user_id, endpoints.c.kind == "webhook")
    if (await connection.scalar(count) or 0) >= MAX_WEBHOOKS:
        raise TooManyEndpoints(limit=MAX_WEBHOOKS)
    secret = secrets.token_bytes(_SECRET_BYTES)
    endpoint_id = await _insert(
        connection, user_id, "webhook", at, url=url, types=_joined(types), description=description, secret=secret
    )
    return await find(connection, user_id, endpoint_id), shown_secret(secret)


async def add_telegram(connection: AsyncConnection, user_id: UUID, chat_id: int, now: datetime) -> UUID:
    """Send events of this account to a chat from now on; returns the endpoint's id. A repeated call changes nothing.

    The chat no longer gets events of an earlier account.
    """
    await listening.begin(connection, user_id)
    chat = and_(endpoints.c.chat_id == chat_id, endpoints.c.kind == "telegram")
    await connection.execute(delete(endpoints).where(chat, endpoints.c.user_id != user_id))
    known: UUID | None = await connection.scalar(select(endpoints.c.id).where(chat))
    if known is not None:
        return known
    return await _insert(connection, user_id, "telegram", now, chat_id=chat_id)


async def remove_telegram(connection: AsyncConnection, user_id: UUID, chat_id: int | None) -> None:
    """Stop sending events to this chat, or to all chats of the account."""
    mine = and_(endpoints.c.user_id == user_id, endpoints.c.kind == "telegram")
    one = endpoints.c.chat_id == chat_id if chat_id is not None else endpoints.c.chat_id.is_not(None)
    await connection.execute(delete(endpoints).where(mine, one))


async def _insert(connection: AsyncConnection, user_id: UUID, kind: str, at: datetime, **values: Any) -> UUID:
    # The wallet is locked, so no event is written in between.
    last = (await events.last_of(connection, [user_id])).get(user_id)
    if last is None:
        raise NotFound(what="user")
    endpoint_id = uuid7()
    common = {"id": endpoint_id, "user_id": user_id, "kind": kind, "state": "enabled", "description": ""}
    numbers = {"cursor": last, "last_event": last, "created_at": at}
    await connection.execute(insert(endpoints).values(common | numbers | values))
    return endpoint_id


async def list_webhooks(connection: AsyncConnection, user_id: UUID) -> list[Endpoint]:
    """The webhooks of an account, oldest first."""
    query = (
        select(*_WEBHOOK_COLUMNS, _waiting().label("waiting"))
        .where(endpoints.c.user_id == user_id, endpoints.c.kind == "webhook")
        .order_by(endpoints.c.id)
    )
    return [_endpoint_of(row) for row in (await connection.execute(query)).mappings()]


async def find(connection: AsyncConnection, user_id: UUID, endpoint_id: UUID) -> Endpoint:
    """A webhook. Raises `NotFound` if it does not exist or belongs to another account."""
    query = select(*_WEBHOOK_COLUMNS, _waiting().label("waiting")).where(_mine(user_id, endpoint_id))
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise NotFound(what="webhook")
    return _endpoint_of(row)


async def change(
    connection: AsyncConnection,
    user_id: UUID,
    endpoint_id: UUID,
    *,
    url: str | None = None,
    types: Sequence[str] | None = None,
    all_types: bool = False,
    description: str | None = None,
    state: Literal["enabled", "paused"] | None = None,
) -> Endpoint:
    """Change the given values. An endpoint that is enabled gets missed events at once. Raises `NotFound`."""
    columns = endpoints.c
    values: dict[str, Any] = {}
    if url is not None:
        values["url"] = url
    if types is not None or all_types:
        values["types"] = None if all_types else _joined(types)
    if description is not None:
        values["description"] = description
    if state is not None:
        at = await server_time(connection)
        waits: ColumnElement[bool] = columns.again.is_not(None)
        if state == "enabled":
            waits = or_(waits, columns.cursor < columns.last_event)
            values |= {"disabled_reason": None, "failures": 0, "failing_since": None, "head_since": None}
        values["state"] = state
        # A dispatcher that is sending notices this when it stores its progress.
        values["due_at"] = case(
            (columns.leased_by.is_not(None), columns.due_at), (waits, literal(at, Moment())), else_=None
        )
    if values:
        await connection.execute(update(endpoints).where(_mine(user_id, endpoint_id)).values(values))
    return await find(connection, user_id, endpoint_id)


async def remove(connection: AsyncConnection, user_id: UUID, endpoint_id: UUID) -> None:
    """Remove a webhook and its deliveries. Raises `NotFound`."""
    removed = await connection.execute(delete(endpoints).where(_mine(user_id, endpoint_id)))
    if removed.rowcount == 0:
        raise NotFound(what="webhook")
    await connection.execute(delete(deliveries).where(deliveries.c.endpoint_id == endpoint_id))


async def remove_all(connection: AsyncConnection, user_id: UUID) -> None:
    """Remove all webhooks and chats of this account; webhooks of single predictions remain."""
    mine = and_(endpoints.c.user_id == user_id, endpoints.c.kind != "once")
    ids = (await connection.scalars(delete(endpoints).where(mine).returning(endpoints.c.id))).all()
    if ids:
        await connection.execute(delete(deliveries).where(deliveries.c.endpoint_id.in_(ids)))


async def rotate(connection: AsyncConnection, user_id: UUID, endpoint_id: UUID) -> str:
    """A new secret; for 24 h events are also signed with the previous one.

    Raises `NotFound`, `TooManyRotations`.
    """
    query = select(endpoints.c.secret, endpoints.c.previous_secrets).where(_mine(user_id, endpoint_id))
    row = (await connection.execute(query.with_for_update())).first()
    if row is None:
        raise NotFound(what="webhook")
    values = await _rotated(connection, row.secret, row.previous_secrets)
    await connection.execute(update(endpoints).where(_mine(user_id, endpoint_id)).values(values))
    return shown_secret(values["secret"])


async def rotate_once(connection: AsyncConnection, user_id: UUID) -> str:
    """A new secret for the webhooks of single predictions; as `rotate`."""
    mine = listeners.c.user_id == user_id
    await listening.have_row(connection, user_id)
    query = select(listeners.c.secret, listeners.c.previous_secrets).where(mine)
    row = (await connection.execute(query.with_for_update())).one()
    values = await _rotated(connection, row.secret, row.previous_secrets)
    await connection.execute(update(listeners).where(mine).values(values))
    return shown_secret(values["secret"])


async def _rotated(connection: AsyncConnection, secret: bytes | None, previous: str | None) -> dict[str, Any]:
    """The new values of the columns of a secret when it is replaced."""
    previous = replaced(secret, previous, await server_time(connection))
    return {"secret": secrets.token_bytes(_SECRET_BYTES), "previous_secrets": previous}


async def send_test(connection: AsyncConnection, user_id: UUID, endpoint_id: UUID) -> int:
    """Send a test event only to this webhook, before waiting events. Returns its sequence. Raises `NotFound`."""
    # The wallet is locked first, then the endpoint, as everywhere.
    await find(connection, user_id, endpoint_id)
    data = json.dumps({"webhook_id": str(endpoint_id)})
    sequence = await events.tell(connection, user_id, WEBHOOK_TEST, data=data, endpoint_id=endpoint_id)
    assert sequence is not None
    await _send_again(connection, user_id, endpoint_id, sequence)
    return sequence


async def redeliver_one(connection: AsyncConnection, user_id: UUID, endpoint_id: UUID, sequence: int) -> None:
    """Redeliver an event, before waiting events. Raises `NotFound`, `TooManyRedeliveries`."""
    await find(connection, user_id, endpoint_id)
    mine = (events_table.c.user_id == user_id, events_table.c.sequence == sequence)
    for_it = or_(events_table.c.endpoint_id.is_(None), events_table.c.endpoint_id == endpoint_id)
    if await connection.scalar(select(events_table.c.id).where(*mine, for_it)) is None:
        raise NotFound(what="event")
    await _send_again(connection, user_id, endpoint_id, sequence)


async def redeliver_since(connection: AsyncConnection, user_id: UUID, endpoint_id: UUID, since: datetime) -> int:
    """Redeliver all events since that moment, in order; returns how many events the endpoint gets now.

    Tests and events of types that the endpoint does not get are not sent, so they do not count. Raises `NotFound`.
    """
    await find(connection, user_id, endpoint_id)
    first: int | None = await connection.scalar(
        select(func.min(events_table.c.sequence)).where(
            events_table.c.user_id == user_id, events_table.c.created_at >= since
        )
    )
    if first is None:
        return 0
    columns = endpoints.c
    at = await server_time(connection)
    can_send = columns.state == "enabled"
    # If it has not got these events yet, they are sent anyway, and nothing changes.
    await connection.execute(
        update(endpoints)
        .where(_mine(user_id, endpoint_id), columns.cursor >= first)
        # Takes the lease from a dispatcher that is sending: its progress must not overwrite the new cursor.
        .values(
            cursor=first - 1,
            leased_by=None,
            head_since=None,
            due_at=case((can_send, literal(at, Moment())), else_=columns.due_at),
        )
    )
    return (await find(connection, user_id, endpoint_id)).waiting


async def _send_again(connection: AsyncConnection, user_id: UUID, endpoint_id: UUID, sequence: int) -> None:
    columns = endpoints.c
    query = select(columns.again).where(_mine(user_id, endpoint_id)).with_for_update()
    again = json.loads(await connection.scalar(query) or "[]")
    if len(again) >= MAX_AGAIN:
        raise TooManyRedeliveries(limit=MAX_AGAIN)
    at = await server_time(connection)
    due_at = case((columns.leased_by.is_not(None), columns.due_at), else_=literal(at, Moment()))
    await connection.execute(
        update(endpoints).where(columns.id == endpoint_id).values(again=json.dumps([*again, sequence]), due_at=due_at)
    )


async def list_deliveries(
    connection: AsyncConnection, user_id: UUID, endpoint_id: UUID, *, limit: int, before_id: int | None = None
) -> list[Delivery]:
    """Up to `limit` attempts, newest first; those before `before_id`, the last of a page before. Raises `NotFound`."""
    await find(connection, user_id, endpoint_id)
    return await _deliveries_to(connection, endpoint_id, limit, before_id)


async def list_once_deliveries(
    connection: AsyncConnection, user_id: UUID, url: str, *, limit: int, before_id: int | None = None
) -> list[Delivery]:
    """As `list_deliveries`, of an address that predictions of this account have named. Raises `NotFound`."""
    mine = (endpoints.c.user_id == user_id, endpoints.c.url_hash == hash_of(url), endpoints.c.kind == "once")
    endpoint_id: UUID | None = await connection.scalar(select(endpoints.c.id).where(*mine))
    if endpoint_id is None:
        raise NotFound("No prediction that ended within 7 days has named this address.")
    return await _deliveries_to(connection, endpoint_id, limit, before_id)


async def _deliveries_to(
    connection: AsyncConnection, endpoint_id: UUID, limit: int, before_id: int | None
) -> list[Delivery]:
    query = select(*_DELIVERY_COLUMNS).where(deliveries.c.endpoint_id == endpoint_id)
    if before_id is not None:
        query = query.where(deliveries.c.id < before_id)
    query = query.order_by(deliveries.c.id.desc()).limit(limit)
    return [Delivery(**row) for row in (await connection.execute(query)).mappings()]


def hash_of(url: str) -> bytes:
    """What a URL of single predictions is found by."""
    return hashlib.sha256(url.encode()).digest()


def _mine(user_id: UUID, endpoint_id: UUID) -> Any:
    return and_(endpoints.c.id == endpoint_id, endpoints.c.user_id == user_id, endpoints.c.kind == "webhook")


def _joined(types: Sequence[str] | None) -> str | None:
    return None if types is None else ",".join(dict.fromkeys(types))


def _endpoint_of(row: Mapping[Any, Any]) -> Endpoint:
    values = dict(row)
    values["types"] = None if values["types"] is None else tuple(values["types"].split(","))
    return Endpoint(**values)


def _waiting() -> ColumnElement[int]:
    """The number of events that an endpoint gets and that it has not got yet."""
    columns, event = endpoints.c, events_table.c
    types = literal(",") + columns.types + literal(",")
    is_wanted = or_(columns.types.is_(None), types.contains(literal(",") + event.type + literal(",")))
    counted = (
        select(func.count())
        .where(event.user_id == columns.user_id, event.sequence > columns.cursor)
        .where(event.sequence <= columns.last_event, event.endpoint_id.is_(None), is_wanted)
        .correlate(endpoints)
        .scalar_subquery()
    )
    behind = columns.last_event - columns.cursor
    return case((behind <= 0, 0), (behind <= _COUNTED_EXACTLY, counted), else_=behind)
