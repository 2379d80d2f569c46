"""Compares versions of a model: how their predictions ended, how long they ran, and their answers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Float, Subquery, Text, cast, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts.tables import users
from foretell.domain.predictions.tables import predictions
from foretell.kit.clock import now, uuid7_at

#: How many predictions are read: the newest of all models and users, without those of the account that measures the
#: installation.
MOST_COMPARED = 20_000
#: How many different answers of one field and version are counted: the most frequent ones.
MOST_VALUES = 20


@dataclass(frozen=True, slots=True)
class VersionDid:
    """Predictions of one version by outcome, and run times of the successful ones, in seconds."""

    version: str
    succeeded: int
    failed: int
    queued: int
    canceled: int
    mean_running_s: float | None
    p50_running_s: float | None
    p95_running_s: float | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers of one version in one field: counts by value (as JSON text), or the mean of a number."""

    version: str
    field: str
    counts: Mapping[str, int]
    mean: float | None


async def compare(connection: AsyncConnection, model: str, *, hours: int) -> Sequence[VersionDid]:
    """Outcomes and run times of the last hours, by version of a model."""
    newest = _newest(connection, model, hours)
    took_s = _took_s(connection, newest)
    ran = (
        select(
            newest.c.version,
            took_s.label("took_s"),
            func.row_number().over(partition_by=newest.c.version, order_by=took_s).label("place"),
            func.count().over(partition_by=newest.c.version).label("runs"),
        )
        .where(newest.c.status == "succeeded", newest.c.started_at.is_not(None))
        .subquery()
    )

    def quantile(share: float) -> Any:
        return func.min(ran.c.took_s).filter(ran.c.place >= share * ran.c.runs)

    times = {
        row.version: row
        for row in await connection.execute(
            select(
                ran.c.version,
                func.avg(ran.c.took_s).label("mean"),
                quantile(0.5).label("p50"),
                quantile(0.95).label("p95"),
            ).group_by(ran.c.version)
        )
    }
    statuses = ("succeeded", "failed", "queued", "canceled")
    ended = await connection.execute(
        select(
            newest.c.version,
            *(func.count().filter(newest.c.status == status).label(status) for status in statuses),
        )
        .group_by(newest.c.version)
        .order_by(newest.c.version)
    )
    return [
        VersionDid(
            row.version,
            *(getattr(row, status) for status in statuses),
            *(_seconds(times.get(row.version), name) for name in ("mean", "p50", "p95")),
        )
        for row in ended
    ]


async def answers(
    connection: AsyncConnection, model: str, *, hours: int, choices: Sequence[str], numbers: Sequence[str]
) -> Sequence[Answered]:
    """Answers of the versions in these fields: `choices` are counted by value, `numbers` are averaged."""
    newest = _newest(connection, model, hours)
    answered = newest.c.status == "succeeded"
    found = []
    for field in choices:
        value = cast(_part(connection, newest, "->", field), Text).label("value")
        rows = await connection.execute(
            select(newest.c.version, value, func.count().label("answers"))
            .where(answered, value.is_not(None))
            .group_by(newest.c.version, value)
            .order_by(func.count().desc(), value)
        )
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        for row in rows:
            if len(counts[row.version]) < MOST_VALUES:
                counts[row.version][row.value] = row.answers
        found += [Answered(version, field, by_value, None) for version, by_value in sorted(counts.items())]
    for field in numbers:
        number = cast(_part(connection, newest, "->>", field), Float)
        rows = await connection.execute(
            select(newest.c.version, func.avg(number).label("mean"))
            .where(answered)
            .group_by(newest.c.version)
            .order_by(newest.c.version)
        )
        found += [Answered(row.version, field, {}, round(row.mean, 6)) for row in rows if row.mean is not None]
    return found


def _newest(connection: AsyncConnection, model: str, hours: int) -> Subquery:
    columns = predictions.c
    measuring = select(users.c.id).where(users.c.measuring)
    newest = (
        select(columns.model, columns.version, columns.status, columns.started_at, columns.finished_at, columns.output)
        .where(columns.id >= uuid7_at(now() - timedelta(hours=hours)), columns.user_id.not_in(measuring))
        .order_by(columns.id.desc())
        .limit(MOST_COMPARED)
        .subquery()
    )
    return select(newest).where(newest.c.model == model).subquery()


def _took_s(connection: AsyncConnection, newest: Subquery) -> ColumnElement[Any]:
    if connection.dialect.name == "sqlite":
        finished, started = (type_coerce(newest.c[name], BigInteger) for name in ("finished_at", "started_at"))
        return (finished - started) / 1e6
    return cast(func.extract("epoch", newest.c.finished_at - newest.c.started_at), Float)


def _part(connection: AsyncConnection, newest: Subquery, operator: str, field: str) -> ColumnElement[Any]:
    # A JSON path of SQLite can't contain a quotation mark; field names have none.
    path = f'$."{field}"' if connection.dialect.name == "sqlite" else field
    return newest.c.output.op(operator)(path)


def _seconds(row: Any, name: str) -> float | None:
    value = None if row is None else getattr(row, name)
    return None if value is None else round(float(value), 6)
