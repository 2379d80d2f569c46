"""What is old goes, and the oldest of all when there is too much; on PostgreSQL and on SQLite."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from tests.integration.monitoring.watched import Watching, watching

from foretell.contracts.monitoring import Family, Heartbeat, Observation, Series
from foretell.kit.clock import now
from foretell.kit.database import to_microseconds
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage import instances, logs, observations, snapshots, tables
from foretell.services.monitoring.storage.retention import Retention
from foretell.services.monitoring.storage.rows import LogRow, SampleRow
from foretell.services.monitoring.storage.writing import Writer

MIB = 1024 * 1024


@pytest.fixture
async def service(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[Watching]:
    async with watching(monitoring_database_url, tmp_path) as service:
        yield service


async def tidy(service: Watching, **settings: Any) -> None:
    await Retention(service.database, MonitoringSettings(**settings)).tidy(asyncio.Event())


async def count(service: Watching, table: Any) -> int:
    async with service.database.snapshot() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


def log_row(at: datetime, message: str = "x") -> LogRow:
    return LogRow(to_microseconds(at), "shop", "", 20, message, None, "{}")


async def arrived_long_ago(service: Watching) -> None:
    """Let all records there are have come in when they happened."""
    async with service.database.transaction() as connection:
        for table in (tables.logs, tables.samples):
            for row in (await connection.execute(select(table.c.at, table.c.seq))).all():
                moved = update(table).where(table.c.at == row.at, table.c.seq == row.seq)
                await connection.execute(moved.values(seq=to_microseconds(row.at) + row.seq % 1000))


async def test_what_is_older_than_it_may_be_goes(service: Watching) -> None:
    old, young = now() - timedelta(days=15), now() - timedelta(days=13)
    writer = Writer(service.database)
    await writer.write(
        [log_row(old), log_row(old), log_row(young)],
        [SampleRow(to_microseconds(old), "shop", "x", 1.0), SampleRow(to_microseconds(young), "shop", "x", 2.0)],
    )
    async with service.database.transaction() as connection:
        for moment in (old, young):
            beat = Heartbeat("app", "a", "1", moment, moment, {"status": "healthy"}, 1, "h")
            instance_id = await instances.record(connection, beat, moment)
            await snapshots.record(connection, instance_id, moment, [Family("x", "gauge", [Series({}, 1.0)])])
            await observations.record(connection, [Observation("m", "1", "", moment, moment, 1, 1, {}, {})])
    await arrived_long_ago(service)
    await tidy(service)
    kept = {
        table.name: await count(service, table)
        for table in (tables.logs, tables.samples, tables.instances, tables.snapshots, tables.observations)
    }
    assert kept == {"logs": 1, "samples": 1, "instances": 1, "snapshots": 1, "observations": 1}
    assert await count(service, tables.log_counts) == 1
    assert [each["timestamp"] for each in await service.get("/reports/logs")] == [
        young.isoformat().replace("+00:00", "Z")
    ]


async def test_a_clock_that_goes_ahead_makes_nothing_old_at_once(service: Watching) -> None:
    at, passed_s = now(), 0.0
    oldest, newest = at - timedelta(days=13, hours=23, minutes=50), at
    await Writer(service.database).write([log_row(oldest), log_row(newest)], [])
    await arrived_long_ago(service)
    retention = Retention(service.database, MonitoringSettings(), clock=lambda: at, elapsed_s=lambda: passed_s)
    await retention.tidy(asyncio.Event())
    at += timedelta(days=365)
    passed_s += 20
    await retention.tidy(asyncio.Event())
    assert await count(service, tables.logs) == 2
    # A day in an hour, at most.
    passed_s += 60
    await retention.tidy(asyncio.Event())
    assert await count(service, tables.logs) == 1
    at -= timedelta(days=365)
    passed_s += 3600
    await retention.tidy(asyncio.Event())
    assert await count(service, tables.logs) == 1


async def test_an_old_record_that_came_in_lately_stays(service: Watching) -> None:
    await Writer(service.database).write([log_row(now() - timedelta(days=400))], [])
    await tidy(service)
    assert await count(service, tables.logs) == 1


async def test_many_old_records_go_in_bites(service: Watching) -> None:
    old = now() - timedelta(days=20)
    rows = [log_row(old + timedelta(milliseconds=each)) for each in range(5_000)]
    rows += [log_row(now() - timedelta(hours=1, milliseconds=each)) for each in range(100)]
    await Writer(service.database).write(rows, [])
    async with service.database.transaction() as connection:
        # As if all had come in long ago.
        await connection.execute(update(tables.logs).values(seq=tables.logs.c.seq - 30 * 86_400 * 1_000_000))
    await tidy(service)
    assert await count(service, tables.logs) == 100


async def test_the_oldest_go_when_all_takes_too_much_room(service: Watching) -> None:
    begin = now() - timedelta(hours=2)
    moments = [begin + timedelta(milliseconds=200 * each) for each in range(20_000)]
    await Writer(service.database).write([log_row(moment, "x" * 300) for moment in moments], [])
    await tidy(service, monitoring_max_bytes=20 * MIB)
    assert await count(service, tables.logs) == 20_000
    limit = 4 * MIB
    # The first cut goes by what is known of the records, further ones by what is left.
    for _ in range(4):
        await tidy(service, monitoring_max_bytes=limit)
    left = await count(service, tables.logs)
    assert 4_000 < left < 14_000
    async with service.database.snapshot() as connection:
        oldest = await connection.scalar(select(func.min(tables.logs.c.at)))
        assert oldest == moments[-left]
        room = await connection.scalar(select(func.sum(tables.log_counts.c.bytes)))
        assert room is not None
        assert float(room) == pytest.approx(left * 460, rel=0.1)
        # How many there were stays known.
        counted = await logs.counts(connection, begin - timedelta(hours=1), now())
        assert counted == {"shop": {20: 20_000}}
        if service.database.dialect == "sqlite":
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
            free = (await connection.exec_driver_sql("PRAGMA freelist_count")).scalar_one()
            assert (pages - free) * 4096 <= limit


async def test_a_limit_within_one_minute_is_kept_too(service: Watching) -> None:
    begin = (now() - timedelta(hours=1)).replace(second=0, microsecond=0)
    moments = [begin + timedelta(milliseconds=2 * each) for each in range(20_000)]
    await Writer(service.database).write([log_row(moment, "x" * 300) for moment in moments], [])
    for _ in range(8):
        await tidy(service, monitoring_max_bytes=4 * MIB)
    assert 2_000 < await count(service, tables.logs) < 14_000


async def test_snapshots_of_more_than_a_day_ago_are_thinned_to_one_a_minute(service: Watching) -> None:
    begin = (now() - timedelta(days=2)).replace(second=0, microsecond=0)
    recent = now() - timedelta(hours=1)
    moments = [begin + timedelta(seconds=5 * each) for each in range(60)]
    moments += [recent + timedelta(seconds=5 * each) for each in range(60)]
    async with service.database.transaction() as connection:
        for name in ("a", "b"):
            beat = Heartbeat("app", name, "1", begin, begin, {"status": "healthy"}, 1, "h")
            instance_id = await instances.record(connection, beat, now())
            for moment in moments:
                await snapshots.record(connection, instance_id, moment, [Family("x", "gauge", [Series({}, 1.0)])])
    retention = Retention(service.database, MonitoringSettings())
    await retention.tidy(asyncio.Event())
    await retention.tidy(asyncio.Event())
    async with service.database.snapshot() as connection:
        kept = (
            await connection.execute(select(tables.snapshots.c.at).where(tables.snapshots.c.instance_id == 1))
        ).scalars()
        times = sorted(kept)
    assert times[:5] == [begin + timedelta(minutes=each, seconds=55) for each in range(5)]
    assert times[5:] == moments[60:]
    assert await count(service, tables.snapshots) == 2 * 65


async def test_records_come_in_while_old_ones_go(service: Watching) -> None:
    old = now() - timedelta(hours=3)
    await Writer(service.database).write(
        [log_row(old + timedelta(milliseconds=each), "x" * 500) for each in range(20_000)], []
    )
    tidying = asyncio.create_task(tidy(service, monitoring_max_bytes=MIB))
    sent = 0
    while not tidying.done():
        record = {"service": "s", "level": "INFO", "message": "new", "timestamp": now().isoformat()}
        assert (await service.client.post("/logs", json=record)).status_code == 200
        sent += 1
    await tidying
    assert sent > 1
    assert len(await service.get("/reports/logs", service="s", limit=10_000)) == sent
