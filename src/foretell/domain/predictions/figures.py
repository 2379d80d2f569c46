"""Figures for operators: waiting predictions, held credits, revenue. Each docstring says how much is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Integer, Text, case, cast, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts.tables import users
from foretell.domain.predictions.tables import predictions
from foretell.kit.clock import made_at, uuid7_at

_DAY_S = 86_400
_EACH_PLACE = 1000
_MOST_PLACES = 200_000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The queued predictions of one pool of workers (None: the common one)."""

    pool: str | None
    predictions: int
    #: The sum of their prices, held in their owners' wallets.
    held_credits: int
    oldest_created_at: datetime


@dataclass(frozen=True, slots=True)
class Earned:
    """Revenue of one model: the predictions that succeeded on one day (UTC)."""

    model: str
    day: date
    credits: int
    predictions: int


async def waiting(
    connection: AsyncConnection, *, limit: int, after: UUID | None = None
) -> tuple[Sequence[Waiting], UUID | None]:
    """The oldest `limit` queued predictions after `after`, by pool; and the last id, if there may be more.

    Reads `limit` rows by the index of queued predictions, however many predictions there are.
    """
    columns = predictions.c
    oldest = select(columns.id, columns.pool, columns.price_credits, columns.created_at).where(
        columns.status == "queued"
    )
    if after is not None:
        oldest = oldest.where(columns.id > after)
    found = oldest.order_by(columns.id).limit(limit).subquery()
    rows = await connection.execute(
        select(
            found.c.pool,
            func.count().label("predictions"),
            func.sum(found.c.price_credits).label("held_credits"),
            func.min(found.c.created_at).label("oldest_created_at"),
            # PostgreSQL has no max(uuid) before 18; the texts have the same order.
            func.max(cast(found.c.id, Text)).label("last_id"),
        ).group_by(found.c.pool)
    )
    pools, seen, last = [], 0, ""
    for row in rows:
        pools.append(Waiting(row.pool, row.predictions, int(row.held_credits), row.oldest_created_at))
        seen += row.predictions
        last = max(last, row.last_id)
    return pools, UUID(hex=last) if seen == limit else None


async def queue_places(connection: AsyncConnection) -> Sequence[tuple[UUID, int]]:
    """Queued predictions, oldest first, with their places, from 1: each of the first thousand, then one of a hundred.

    Reads the index of queued predictions, and no more than the oldest 200,000 entries.
    """
    columns = predictions.c
    oldest = select(columns.id).where(columns.status == "queued").order_by(columns.id).limit(_MOST_PLACES).subquery()
    numbered = select(oldest.c.id, func.row_number().over(order_by=oldest.c.id).label("place")).subquery()
    place = numbered.c.place
    shown = select(numbered.c.id, place).where((place <= _EACH_PLACE) | (place % 100 == 1)).order_by(place)
    return [(row.id, row.place) for row in await connection.execute(shown)]


async def next_accepted_at(connection: AsyncConnection, since: datetime) -> datetime | None:
    """The acceptance time of the first prediction since `since`, to the millisecond; None if there is none."""
    identifier: UUID | None = await connection.scalar(
        select(predictions.c.id).where(predictions.c.id >= uuid7_at(since)).order_by(predictions.c.id).limit(1)
    )
    return None if identifier is None else made_at(identifier)


async def earned(connection: AsyncConnection, since: datetime, until: datetime) -> tuple[Sequence[Earned], bool]:
    """Revenue of the predictions accepted from `since` until before `until`; and whether any of them has not ended.

    Revenue is the sum of captures, on the day of success. Predictions of the account that measures the installation
    are left out. Reads the predictions of that time by their ids, which begin with the time.
    """
    columns = predictions.c
    measuring = select(users.c.id).where(users.c.measuring)
    day = case((columns.status == "succeeded", _day_of(connection))).label("day")
    accepted = (
        select(columns.model, columns.status, columns.price_credits, day)
        .where(columns.id >= uuid7_at(since), columns.id < uuid7_at(until), columns.user_id.not_in(measuring))
        .subquery()
    )
    succeeded = accepted.c.status == "succeeded"
    rows = await connection.execute(
        select(
            accepted.c.model,
            accepted.c.day,
            func.sum(accepted.c.price_credits).filter(succeeded).label("credits"),
            func.count().filter(succeeded).label("succeeded"),
            func.count().filter(accepted.c.status == "queued").label("queued"),
        ).group_by(accepted.c.model, accepted.c.day)
    )
    brought, unfinished = [], False
    for row in rows:
        if row.succeeded:
            brought.append(Earned(row.model, _EPOCH + timedelta(days=row.day), int(row.credits), row.succeeded))
        unfinished = unfinished or row.queued > 0
    return brought, unfinished


def _day_of(connection: AsyncConnection) -> ColumnElement[int]:
    """The day on which a prediction ended, UTC, as the number of days since 1970."""
    if connection.dialect.name == "sqlite":
        return type_coerce(predictions.c.finished_at, BigInteger) // (_DAY_S * 1_000_000)
    return cast(func.floor(func.extract("epoch", predictions.c.finished_at) / _DAY_S), Integer)


def midnight(moment: datetime) -> datetime:
    """The beginning of the day of `moment`, UTC."""
    return datetime.combine(moment.astimezone(UTC).date(), datetime.min.time(), UTC)
