"""Decides for which accounts events are written: those with receivers."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits.tables import wallets
from foretell.domain.notifications.events import KEPT
from foretell.domain.notifications.tables import endpoints, listeners

#: A request for events is noted at most once in this time.
_NOTED_EVERY = timedelta(hours=1)


async def begin(connection: AsyncConnection, user_id: UUID) -> None:
    """From now on events are written for this account. Locks its wallet until the transaction ends.

    A settlement either has locked the wallet already, or reads it after this transaction: no event is missed.
    """
    await connection.execute(update(wallets).where(wallets.c.user_id == user_id).values(listening=True))
    await have_row(connection, user_id)


async def have_row(connection: AsyncConnection, user_id: UUID) -> None:
    """Create the account's row of `listeners`, unless it exists; safe for concurrent calls."""
    await connection.execute(_inserting(connection).values(user_id=user_id).on_conflict_do_nothing())


async def has_asked(connection: AsyncConnection, user_id: UUID, at: datetime) -> bool:
    """Whether a request for the events of this account was noted shortly before `at`."""
    asked_at: datetime | None = await connection.scalar(
        select(listeners.c.asked_at).where(listeners.c.user_id == user_id)
    )
    return asked_at is not None and at - asked_at < _NOTED_EVERY


async def ask(connection: AsyncConnection, user_id: UUID, at: datetime) -> bool:
    """Note a request for the events of this account; returns whether it is the first in 7 days."""
    await begin(connection, user_id)
    mine = listeners.c.user_id == user_id
    before: datetime | None = await connection.scalar(select(listeners.c.asked_at).where(mine))
    await connection.execute(update(listeners).where(mine).values(asked_at=at))
    return before is None


async def end_old(connection: AsyncConnection, at: datetime, *, limit: int) -> int:
    """Stop writing events for up to `limit` accounts without receivers; returns how many there were."""
    receives = exists().where(endpoints.c.user_id == listeners.c.user_id, endpoints.c.kind != "once")
    silent = or_(listeners.c.asked_at.is_(None), listeners.c.asked_at < at - KEPT)
    listening = exists().where(wallets.c.user_id == listeners.c.user_id, wallets.c.listening)
    found = (
        await connection.execute(select(listeners.c.user_id).where(silent, ~receives, listening).limit(limit))
    ).scalars()
    ended = list(found)
    for user_id in sorted(ended):
        await connection.execute(update(wallets).where(wallets.c.user_id == user_id).values(listening=False))
        mine = listeners.c.user_id == user_id
        await connection.execute(update(listeners).where(mine).values(asked_at=None))
        await connection.execute(delete(listeners).where(mine, listeners.c.secret.is_(None)))
    return len(ended)


def _inserting(connection: AsyncConnection) -> "postgresql.Insert | sqlite.Insert":
    if connection.dialect.name == "postgresql":
        return postgresql.insert(listeners)
    return sqlite.insert(listeners)
