"""Find predictions that a crash, a lost message or time has left behind. Reads only; who finds, decides."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, String, Text, cast, func, literal, select, text, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.messages import Stage
from foretell.domain.predictions.tables import predictions
from foretell.kit.database import Moment, is_among

#: What is dated later than this was dated by a wrong clock.
_FUTURE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Queued:
    """A queued prediction, as much of it as a task needs."""

    id: UUID
    model: str
    version: str
    pool: str | None
    stage: Stage
    payload: bytes


async def never_published(connection: AsyncConnection, *, before: datetime, limit: int) -> Sequence[Queued]:
    """The oldest that were accepted before that moment and not marked as published.

    Those too that say they were accepted in the future: their app's clock is wrong, or was, and nobody knows for how
    long they have waited.
    """
    accepted_at = predictions.c.created_at
    waited = (accepted_at < before) | (accepted_at > before + _FUTURE)
    return await _queued(connection, predictions.c.published_at.is_(None) & waited, limit)


async def lost(
    connection: AsyncConnection,
    at: datetime,
    *,
    after: timedelta,
    limit: int,
    except_pools: Collection[str | None] = (),
    beyond: UUID | None = None,
) -> Sequence[Queued]:
    """The oldest that should have ended by `at`: `after` since they were published, and twice as long each time.

    Those of `except_pools` are passed over, and those up to `beyond`.

    A worker may still be at it: a model may take an hour, and says so only to whoever listens. Without the doubling,
    such a prediction would be published again and again, and run in every worker at once.
    """
    columns = predictions.c
    published = columns.published_at
    waited_as_long_again = published + (published - columns.created_at) < literal(at, Moment())
    overdue = ((published < at - after) & waited_as_long_again) | (published > at + _FUTURE)
    if except_pools:
        overdue &= func.coalesce(columns.pool, "").not_in([pool or "" for pool in except_pools])
    if beyond is not None:
        overdue &= columns.id > beyond
    return await _queued(connection, overdue, limit)


async def still_queued(connection: AsyncConnection, ids: Collection[UUID], *, before: datetime) -> Sequence[Queued]:
    """Those of `ids` that have not ended, and that nobody has published again since that moment."""
    columns = predictions.c
    published = columns.published_at.is_(None) | (columns.published_at < literal(before, Moment()))
    return await _queued(connection, is_among(connection, columns.id, ids) & published, len(ids))


async def expired(connection: AsyncConnection, moment: datetime, *, limit: int) -> Sequence[UUID]:
    """Those whose time was up before that moment."""
    await _prefer_indexes(connection)
    rows = await connection.execute(
        select(predictions.c.id)
        .where(predictions.c.status == "queued", predictions.c.expires_at < moment)
        .order_by(predictions.c.id)
        .limit(limit)
    )
    return [row.id for row in rows]


async def _queued(connection: AsyncConnection, condition: ColumnElement[bool], limit: int) -> Sequence[Queued]:
    await _prefer_indexes(connection)
    columns = predictions.c
    # The JSON to the letter as it was stored: a text on both databases, never parsed on the way.
    payload = (
        type_coerce(columns.input, String) if connection.dialect.name == "sqlite" else cast(columns.input, Text)
    ).label("payload")
    rows = await connection.execute(
        select(columns.id, columns.model, columns.version, columns.pool, columns.stage, payload)
        .where(columns.status == "queued", condition)
        .order_by(columns.id)
        .limit(limit)
    )
    return [Queued(row.id, row.model, row.version, row.pool, row.stage, row.payload.encode()) for row in rows]


async def _prefer_indexes(connection: AsyncConnection) -> None:
    """Whatever the statistics say: for the rest of this transaction, read what is queued by its index.

    Analyzed while much was queued, PostgreSQL expects to find much, and reads every prediction ever made instead.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
