"""Deletes old records, and the oldest records when they take too much space, in short transactions."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Table, delete, func, literal_column, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.clock import now
from foretell.kit.database import to_microseconds
from foretell.kit.pauses import set_within
from foretell.services.monitoring import measures
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.rows import SAMPLE_BYTES
from foretell.services.monitoring.storage.tables import (
    alerts,
    instances,
    log_counts,
    logs,
    notices,
    observations,
    samples,
    snapshots,
)

log = structlog.get_logger()

#: How often retention runs.
_EVERY_S = 30.0
#: Rows of one transaction, which takes some milliseconds.
_BITE = 2_000
#: Snapshots older than this are thinned to one a minute, in slices of this length.
_THIN_AFTER = timedelta(days=1)
_THIN_SLICE = timedelta(minutes=10)
#: The share that is deleted beyond the need, so that not every run has to delete again.
_SPARE = 0.05
#: Bytes of a row besides its body.
_BODY_OVERHEAD = 150

#: Records age at most this many times as fast as time passes, to limit the harm of a wrong clock: a clock that is a
#: year ahead for an hour costs only the oldest day of records.
_FASTEST = 24

_MINUTE = timedelta(minutes=1)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Which records to delete: all before `minute`, and a part of those in it."""

    minute: datetime
    part: float

    @property
    def at(self) -> datetime:
        """The time before which records are deleted."""
        return self.minute + _MINUTE * self.part


class Retention:
    """Keeps the database within the limits of the settings."""

    def __init__(
        self,
        database: MonitoringDatabase,
        settings: MonitoringSettings,
        *,
        every_s: float = _EVERY_S,
        clock: Callable[[], datetime] = now,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Runs every `every_s`. `elapsed_s` is a monotonic clock."""
        self._database = database
        self._keep = timedelta(days=settings.monitoring_keep_days)
        self._max_bytes = settings.monitoring_max_bytes
        self._every_s = every_s
        self._thinned_until = _FIRST
        self._clock = clock
        self._elapsed_s = elapsed_s
        self._looked_at: datetime | None = None
        self._looked_s = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Tidy up every `every_s` until `stopping` is set."""
        while not stopping.is_set():
            await self.tidy(stopping)
            await set_within(stopping, self._every_s)

    async def tidy(self, stopping: asyncio.Event) -> None:
        """Tidy up once. Returns early when `stopping` is set."""
        at = self._moment()
        removed = await self._remove_old(at - self._keep, stopping)
        await self._thin(at - _THIN_AFTER, stopping)
        removed += await self._shrink(stopping)
        if removed:
            log.info("records_removed", rows=removed)

    def _moment(self) -> datetime:
        """The current time, or an earlier one if the clock has advanced too fast (`_FASTEST`)."""
        at, elapsed_s = self._clock(), self._elapsed_s()
        if self._looked_at is not None:
            at = min(at, self._looked_at + timedelta(seconds=_FASTEST * (elapsed_s - self._looked_s)))
        self._looked_at, self._looked_s = at, elapsed_s
        return at

    async def _remove_old(self, until: datetime, stopping: asyncio.Event) -> int:
        """Remove records before `until`. A record with an old time that arrived recently is kept as long as others."""
        arrived = to_microseconds(until)
        removed = 0
        for table in (logs, samples):
            removed += await self._remove_records(table, until, stopping, table.c.seq < arrived)
        removed += await self._remove(snapshots, snapshots.c.at, until, stopping)
        removed += await self._remove(observations, observations.c.at, until, stopping)
        removed += await self._remove(log_counts, log_counts.c.minute, until, stopping)
        removed += await self._remove(alerts, alerts.c.resolved_at, until, stopping)
        removed += await self._remove(notices, notices.c.created_at, until, stopping)
        removed += await self._remove(instances, instances.c.last_seen_at, until, stopping)
        return removed

    async def _remove_records(
        self, table: Table, until: datetime, stopping: asyncio.Event, *conditions: ColumnElement[bool]
    ) -> int:
        """Remove the records before `until` that fulfil the conditions, oldest first."""
        place = tuple_(table.c.at, table.c.seq)
        low: tuple[datetime, int] | None = (_FIRST, -1)
        removed = 0

        async def bite(connection: AsyncConnection) -> int:
            nonlocal low
            assert low is not None
            beyond = (place > tuple_(*low, types=(table.c.at.type, table.c.seq.type)), table.c.at < until)
            last = select(table.c.at, table.c.seq).where(*beyond).order_by(table.c.at, table.c.seq)
            end = (await connection.execute(last.limit(1).offset(_BITE - 1))).one_or_none()
            low = None if end is None else (end.at, end.seq)
            within = (
                beyond if low is None else (*beyond, place <= tuple_(*low, types=(table.c.at.type, table.c.seq.type)))
            )
            return int((await connection.execute(delete(table).where(*within, *conditions))).rowcount)

        while low is not None and not stopping.is_set():
            removed += await self._bite(bite)
        measures.RECORDS_REMOVED.labels(table.name).inc(removed)
        return removed

    async def _remove(self, table: Table, column: Any, until: datetime, stopping: asyncio.Event) -> int:
        """Remove the rows of a smaller table whose `column` is before `until`."""
        keys = tuple_(*table.primary_key.columns)
        oldest = select(*table.primary_key.columns).where(column < until).order_by(column).limit(_BITE)

        async def bite(connection: AsyncConnection) -> int:
            return int((await connection.execute(delete(table).where(keys.in_(oldest)))).rowcount)

        removed = 0
        while not stopping.is_set():
            rows = await self._bite(bite)
            removed += rows
            if rows < _BITE:
                break
        measures.RECORDS_REMOVED.labels(table.name).inc(removed)
        return removed

    async def _bite(self, work: Callable[[AsyncConnection], Awaitable[int]]) -> int:
        """Run one transaction and pause for as long as it took, so that deletion takes at most half of the time."""
        started = time.monotonic()
        async with self._database.transaction() as connection:
            rows = await work(connection)
        await asyncio.sleep(time.monotonic() - started)
        return rows

    async def _thin(self, until: datetime, stopping: asyncio.Event) -> None:
        """Of the snapshots before `until`, keep only the last one of each minute."""
        while not stopping.is_set():
            # Jump to the next snapshot, which skips times without any.
            async with self._database.snapshot() as connection:
                next_at = await connection.scalar(
                    select(func.min(snapshots.c.at)).where(snapshots.c.at >= self._thinned_until)
                )
            if next_at is None:
                return
            start = next_at.replace(second=0, microsecond=0)
            if start + _THIN_SLICE > until:
                return
            end = start + _THIN_SLICE
            inside = (snapshots.c.at >= start, snapshots.c.at < end)
            minute = _minute_of(snapshots.c.at, self._database.dialect)
            kept = (
                select(snapshots.c.instance_id, func.max(snapshots.c.at))
                .where(*inside)
                .group_by(snapshots.c.instance_id, minute)
            )
            others = tuple_(snapshots.c.instance_id, snapshots.c.at).not_in(kept)
            statement = delete(snapshots).where(*inside, others)

            async def bite(connection: AsyncConnection, statement: Any = statement) -> int:
                return int((await connection.execute(statement)).rowcount)

            measures.RECORDS_REMOVED.labels(snapshots.name).inc(await self._bite(bite))
            self._thinned_until = end

    async def _shrink(self, stopping: asyncio.Event) -> int:
        """Remove the oldest records if all take too much space."""
        async with self._database.snapshot() as connection:
            records_bytes = sum(await _sizes(connection))
            stored_bytes = await _stored_bytes(connection, records_bytes)
            measures.DATABASE_BYTES.set(stored_bytes)
            if stored_bytes <= self._max_bytes or not records_bytes:
                return 0
            too_much = stored_bytes - self._max_bytes * (1 - _SPARE)
            cut = await _cut(connection, records_bytes * too_much / stored_bytes)
        removed = 0
        for table in (logs, samples):
            removed += await self._remove_records(table, cut.at, stopping)
        removed += await self._remove(snapshots, snapshots.c.at, cut.at, stopping)
        removed += await self._remove(observations, observations.c.at, cut.at, stopping)
        if not stopping.is_set():
            async with self._database.transaction() as connection:
                await _forget_room(connection, cut)
        return removed


def _minute_of(column: Any, dialect: str) -> ColumnElement[Any]:
    """The beginning of the minute of a time."""
    if dialect == "sqlite":
        # Raw SQL, because times are stored as microseconds and the column's type does not allow the arithmetic.
        raw = f"{column.table.name}.{column.name}"
        return literal_column(f"{raw} - {raw} % 60000000", column.type)
    return func.date_trunc("minute", column, type_=column.type)


async def _sizes(connection: AsyncConnection) -> list[int]:
    """The approximate size of the records of each table, in bytes."""
    queries = (
        select(func.sum(log_counts.c.bytes)),
        select(func.count() * SAMPLE_BYTES).select_from(samples),
        *(select(_bodies(table)) for table in (snapshots, observations)),
    )
    return [int(await connection.scalar(query) or 0) for query in queries]


def _bodies(table: Table) -> ColumnElement[Any]:
    return func.sum(func.length(table.c.body) + _BODY_OVERHEAD)


async def _stored_bytes(connection: AsyncConnection, records_bytes: int) -> int:
    """The size of the records: on SQLite the pages in use, on PostgreSQL an estimate without dead rows."""
    if connection.dialect.name != "sqlite":
        return records_bytes
    pages, free, size = [
        (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
        for name in ("page_count", "freelist_count", "page_size")
    ]
    return int((pages - free) * size)


async def _cut(connection: AsyncConnection, needed: float) -> _Cut:
    """The cut that deletes at least `needed` bytes of records, the oldest of every kind."""
    dialect = connection.dialect.name
    found: dict[datetime, float] = {}
    queries = [select(log_counts.c.minute, func.sum(log_counts.c.bytes)).group_by(log_counts.c.minute)]
    for table, room in (
        (samples, func.count() * SAMPLE_BYTES),
        (snapshots, _bodies(snapshots)),
        (observations, _bodies(observations)),
    ):
        minute = _minute_of(table.c.at, dialect)
        queries.append(select(minute, room).select_from(table).group_by(minute))
    for query in queries:
        for moment, room in await connection.execute(query):
            found[moment] = found.get(moment, 0) + float(room)
    for moment in sorted(found):
        if found[moment] >= needed:
            return _Cut(moment, needed / found[moment])
        needed -= found[moment]
    return _Cut(max(found), 1.0)


async def _forget_room(connection: AsyncConnection, cut: _Cut) -> None:
    """Set the size of the removed records to 0; their number stays known."""
    await connection.execute(
        update(log_counts).where(log_counts.c.minute < cut.minute, log_counts.c.bytes > 0).values(bytes=0)
    )
    left = func.round(log_counts.c.bytes * (1 - cut.part))
    await connection.execute(update(log_counts).where(log_counts.c.minute == cut.minute).values(bytes=left))
