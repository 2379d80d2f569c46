"""Make endpoints due for which there are new events. Settlement writes one wake for each account and transaction."""

import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, any_, case, delete, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits.tables import wallets
from foretell.domain.notifications.endpoints import hash_of
from foretell.domain.notifications.locks import try_to_lock_endpoints
from foretell.domain.notifications.tables import endpoints, event_wakes, listeners
from foretell.domain.notifications.tables import events as events_table
from foretell.kit.clock import uuid7
from foretell.kit.database import is_among, server_clock, server_time

#: Wakes that one transaction handles.
_WAKES = 1000

_C = endpoints.c


async def spread(connection: AsyncConnection) -> int:
    """Make the endpoints of accounts with new events due.

    Returns how many wakes were handled: 0 if there was none, or if another dispatcher holds the lock.
    """
    if not await try_to_lock_endpoints(connection, if_any=event_wakes.c.id):
        return 0
    # Not before the lock is taken: another dispatcher may have handled some of them.
    oldest = select(event_wakes.c.id).order_by(event_wakes.c.id).limit(_WAKES)
    among: ColumnElement[bool] = event_wakes.c.id.in_(oldest)
    if connection.dialect.name == "postgresql":
        # An array allows only the index, however many rows the table is believed to have.
        among = event_wakes.c.id == any_(func.array(oldest.scalar_subquery()))
    deleted = delete(event_wakes).where(among).returning(*event_wakes.c)
    wakes = sorted((await connection.execute(deleted)).all(), key=lambda wake: int(wake.id))
    if not wakes:
        return 0
    users = sorted({wake.user_id for wake in wakes})
    last = select(wallets.c.last_event).where(wallets.c.user_id == _C.user_id).scalar_subquery()
    is_due = and_(_C.due_at.is_(None), _C.state == "enabled")
    await connection.execute(
        update(endpoints)
        .where(is_among(connection, _C.user_id, users), _C.kind != "once")
        .values(last_event=last, due_at=case((is_due, server_clock(connection)), else_=_C.due_at))
    )
    for wake in wakes:
        if wake.webhooks:
            await _spread_to_single_webhooks(
                connection, wake.user_id, wake.after, wake.upto, await server_time(connection)
            )
    return len(wakes)


async def _spread_to_single_webhooks(
    connection: AsyncConnection, user_id: UUID, after: int, upto: int, at: datetime
) -> None:
    """Make endpoints for the webhooks that single predictions name, one for each URL, or make theirs due again."""
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
