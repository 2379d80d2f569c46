"""Writes log records and metric values in large batches, directly with the drivers."""

import sqlite3
from collections.abc import Sequence
from itertools import count
from typing import Any

from foretell.kit.clock import unix_ns
from foretell.kit.database import from_microseconds
from foretell.kit.errors import MayBeDone, Unavailable
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.rows import LogRow, SampleRow, room_of

#: Rows of one transaction, which must be short because other writers wait for it.
MAX_ROWS = 10_000

_MINUTE_US = 60_000_000
_LOG_COLUMNS = ("at", "seq", "service", "instance", "level", "message", "trace_id", "fields")
_SAMPLE_COLUMNS = ("at", "seq", "service", "name", "value")
_INSERT_LOG = "INSERT INTO logs (at, seq, service, instance, level, message, trace_id, fields) VALUES (?,?,?,?,?,?,?,?)"
_INSERT_SAMPLE = "INSERT INTO samples (at, seq, service, name, value) VALUES (?,?,?,?,?)"
_ADD = """
    ON CONFLICT (minute, service, level) DO UPDATE
    SET records = log_counts.records + excluded.records, bytes = log_counts.bytes + excluded.bytes
"""
_COUNT_SQLITE = f"INSERT INTO log_counts (minute, service, level, records, bytes) VALUES (?,?,?,?,?) {_ADD}"  # noqa: S608
# Sorted, so that two concurrent writers can't deadlock.
_COUNT_POSTGRESQL = f"""
    INSERT INTO log_counts (minute, service, level, records, bytes)
    SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[]) ORDER BY 1, 2, 3
    {_ADD}
"""  # noqa: S608


class Writer:
    """Stores rows in the order in which they arrive. Calls must not be concurrent."""

    def __init__(self, database: MonitoringDatabase) -> None:
        self._database = database
        self._next_seq = 0

    async def write(self, logs: Sequence[LogRow], samples: Sequence[SampleRow]) -> None:
        """Return after the commit. Raises `Unavailable`, or `MayBeDone` when some rows may be committed."""
        for start in range(0, max(len(logs), len(samples)), MAX_ROWS):
            end = start + MAX_ROWS
            try:
                await self._write(logs[start:end], samples[start:end])
            except Unavailable as error:
                if start:
                    raise MayBeDone(part="database") from error
                raise

    async def _write(self, logs: Sequence[LogRow], samples: Sequence[SampleRow]) -> None:
        numbers = self._numbers(len(logs) + len(samples))
        if self._database.dialect == "postgresql":
            await self._database.write_postgresql(lambda connection: _to_postgresql(connection, logs, samples, numbers))
        else:
            await self._database.write_sqlite(lambda connection: _to_sqlite(connection, logs, samples, numbers))

    def _numbers(self, needed: int) -> "count[int]":
        """Unique numbers that begin at the time in microseconds."""
        first = max(self._next_seq, unix_ns() // 1000)
        self._next_seq = first + needed
        return count(first)


def _counts(logs: Sequence[LogRow]) -> list[tuple[int, str, int, int, int]]:
    """Minute, service, level, records and bytes."""
    found: dict[tuple[int, str, int], list[int]] = {}
    for row in logs:
        key = (row.at_us - row.at_us % _MINUTE_US, row.service, row.level)
        counted = found.get(key)
        if counted is None:
            counted = found[key] = [0, 0]
        counted[0] += 1
        counted[1] += room_of(row)
    return [(*key, records, size) for key, (records, size) in found.items()]


def _to_sqlite(
    connection: sqlite3.Connection, logs: Sequence[LogRow], samples: Sequence[SampleRow], numbers: "count[int]"
) -> None:
    if logs:
        connection.executemany(
            _INSERT_LOG, ((row[0], number, *row[1:]) for row, number in zip(logs, numbers, strict=False))
        )
        connection.executemany(_COUNT_SQLITE, _counts(logs))
    if samples:
        connection.executemany(
            _INSERT_SAMPLE, ((row[0], number, *row[1:]) for row, number in zip(samples, numbers, strict=False))
        )


async def _to_postgresql(
    connection: Any, logs: Sequence[LogRow], samples: Sequence[SampleRow], numbers: "count[int]"
) -> None:
    async with connection.transaction():
        if logs:
            records = (
                (from_microseconds(row[0]), number, *row[1:]) for row, number in zip(logs, numbers, strict=False)
            )
            await connection.copy_records_to_table("logs", records=records, columns=_LOG_COLUMNS)
            counts = [(from_microseconds(row[0]), *row[1:]) for row in _counts(logs)]
            await connection.execute(_COUNT_POSTGRESQL, *(list(column) for column in zip(*counts, strict=True)))
        if samples:
            values = (
                (from_microseconds(row[0]), number, *row[1:]) for row, number in zip(samples, numbers, strict=False)
            )
            await connection.copy_records_to_table("samples", records=values, columns=_SAMPLE_COLUMNS)
