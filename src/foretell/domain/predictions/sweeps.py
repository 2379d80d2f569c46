"""Find predictions that are stuck after a crash or a lost message, or have expired. Reads only; callers decide."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, String, Text, cast, func, literal, select, text, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.messages import Stage
from foretell.domain.predictions.tables import predictions
from foretell.kit.database import Moment, is_among

#: A time further in the future comes from a wrong clock.
_FUTURE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Queued:
    """A queued prediction, with the columns that a task needs."""

    id: UUID
    model: str
    version: str
    pool: str | None
    stage: Stage
    payload: bytes


async def never_published(connection: AsyncConnection, *, before: datetime, limit: int) -> Sequence[Queued]:
    """The oldest predictions that were accepted before that moment and are not marked as published.

    Predictions dated in the future are included: the clock of their app is or was wrong, so it is unknown how long
    they have waited.
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
    """The oldest predictions that should have ended by `at`: `after` since they were published, doubled each time.

    Those of `except_pools` are skipped, and those up to `beyond`.

    A worker may still be running one: a model may take an hour, and a dispatcher that is not subscribed does not know.
    Without the doubling, such a prediction would be published again and again, and run in every worker at once.
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
    """Those of `ids` that have not ended and were not published again since that moment."""
    columns = predictions.c
    published = columns.published_at.is_(None) | (columns.published_at < literal(before, Moment()))
    return await _queued(connection, is_among(connection, columns.id, ids) & published, len(ids))


async def expired(connection: AsyncConnection, moment: datetime, *, limit: int) -> Sequence[UUID]:
    """Those that expired before that moment."""
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
    # The JSON exactly as it was stored: a text on both databases, never parsed.
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
    """For the rest of this transaction, read queued predictions by their index, whatever the statistics say.

    If the table was analyzed while many were queued, PostgreSQL expects many, and would read the whole table instead.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
