"""What the hot statements read on PostgreSQL does not depend on its statistics, on history, or on the batch."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from tests.predictions import failed, submission, succeeded

from foretell.domain.predictions import sweeps
from foretell.domain.predictions.postgresql import PostgresqlStore
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database
from foretell.kit.drivers import PostgresqlDriver

_HISTORY = 6_000
_USERS = 200
#: Rows that pass through all nodes of a plan, those that are thrown away included, and pages that are touched, for
#: each row of a batch. Batches of any size stay below them.
_MOST_ROWS, _MOST_PAGES = 40, 100

_USERS_MADE = """
WITH made AS (
    INSERT INTO users (id, username, username_key, password_hash, created_at)
    SELECT gen_random_uuid(), number, number, 'nobody logs in with this', now()
    FROM generate_series(1, $1::integer) AS number
    RETURNING id
)
INSERT INTO wallets (user_id, available, held) SELECT id, 1000000, 1000000 FROM made RETURNING user_id
"""
# Identifiers of the last hour, a millisecond each.
_QUEUED = """
INSERT INTO predictions (id, user_id, model, version, stage, input, price_credits, status, created_at, expires_at,
    published_at, idempotency_key, request_hash)
SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 3600000 + $3 + number), 12, '0') || '7000'
        || substr(md5(number::text), 1, 16))::uuid,
    ($1::uuid[])[1 + number % cardinality($1::uuid[])], 'flight-delay', '1.0.0', 'input', '{}', 1, 'queued', now(),
    now() + interval '1 hour', now(), 'old-' || $3 + number, 'hash'
FROM generate_series(1, $2::integer) AS number
"""
_SETTLED = """
UPDATE predictions SET status = 'succeeded', finished_at = now(), output = '{}' WHERE status = 'queued'
"""


async def _empty(connection: asyncpg.Connection, _: Sequence[UUID]) -> None:
    await connection.execute("VACUUM ANALYZE")


async def _young(connection: asyncpg.Connection, users: Sequence[UUID]) -> None:
    pass


async def _analyzed_when_idle(connection: asyncpg.Connection, users: Sequence[UUID]) -> None:
    await connection.execute(_QUEUED, users, _HISTORY, 0)
    await connection.execute(_SETTLED)
    await connection.execute("VACUUM ANALYZE")


async def _analyzed_when_all_was_queued(connection: asyncpg.Connection, users: Sequence[UUID]) -> None:
    await connection.execute(_QUEUED, users, _HISTORY, 0)
    await connection.execute("ANALYZE")


async def _analyzed_with_dead_entries(connection: asyncpg.Connection, users: Sequence[UUID]) -> None:
    await connection.execute(_QUEUED, users, _HISTORY, 0)
    await connection.execute(_SETTLED)
    await connection.execute("ANALYZE")


async def _analyzed_with_a_user_each(connection: asyncpg.Connection, users: Sequence[UUID]) -> None:
    # Looked up by user alone, it seems, there is but one.
    others = [row[0] for row in await connection.fetch("SELECT gen_random_uuid() FROM generate_series(1, 6000)")]
    await connection.execute(_QUEUED, others, _HISTORY, 0)
    await connection.execute(_SETTLED)
    await connection.execute("VACUUM ANALYZE")


_STATISTICS = {
    "of empty tables": _empty,
    "none yet": _young,
    "of history, nothing queued": _analyzed_when_idle,
    "of history, all queued": _analyzed_when_all_was_queued,
    "of history, with dead entries": _analyzed_with_dead_entries,
    "of history, each user's first": _analyzed_with_a_user_each,
}


@dataclass
class Explained:
    """What the statements of one connection did, by plan; each is planned once, for any parameters, and kept."""

    driver: PostgresqlDriver
    plans: list[dict[str, Any]] = field(default_factory=list)
    _prepared: set[str] = field(default_factory=set)

    async def run(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def explaining(connection: Any) -> Any:
            return await work(_Connection(connection, self))

        return await self.driver.run(explaining)

    async def explain(self, connection: Any, statement: str, arguments: Sequence[Any]) -> None:
        name = f"s{abs(hash(statement))}"
        if name not in self._prepared:
            self._prepared.add(name)
            await connection.execute(f"PREPARE {name} AS {statement}")
        values = ", ".join(_literal(argument) for argument in arguments)
        # A server may keep a statement for long: this is what it has planned the first time.
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE {name} ({values})"
        self.plans.append(json.loads(await connection.fetchval(explain))[0]["Plan"])

    def read(self) -> tuple[int, int]:
        """Rows and pages since the last time."""
        nodes = [node for plan in self.plans for node in _nodes(plan)]
        rows = sum(
            node["Actual Loops"]
            * (node["Actual Rows"] + sum(number for name, number in node.items() if name.startswith("Rows Removed by")))
            for node in nodes
        )
        # A node's pages include those of the nodes below it; what changes rows for its own sake is below none.
        tops = [top for plan in self.plans for top in (plan, *plan.get("Plans", ()))]
        pages = sum(top["Shared Hit Blocks"] + top["Shared Read Blocks"] for top in tops)
        self.plans.clear()
        return rows, pages


@dataclass
class _Connection:
    connection: Any
    explained: Explained

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        await self.explained.explain(self.connection, statement, arguments)
        return []

    async def execute(self, statement: str, *arguments: Any) -> None:
        await self.explained.explain(self.connection, statement, arguments)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _literal(value: Any) -> str:
    text = "{" + ", ".join(_element(each) for each in value) + "}" if isinstance(value, list) else str(value)
    return f"$foretell${text}$foretell$"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.fixture(params=list(_STATISTICS))
async def filled(request: pytest.FixtureRequest, postgresql_with_tables: str) -> AsyncIterator["Filled"]:
    async with _filled(postgresql_with_tables, _STATISTICS[request.param]) as filled:
        yield filled


@asynccontextmanager
async def _filled(
    url: str, get_ready: Callable[[asyncpg.Connection, Sequence[UUID]], Awaitable[None]]
) -> AsyncIterator["Filled"]:
    """A store whose plans were made with such statistics, and which has a history that they know nothing of."""
    connection = await asyncpg.connect(url)
    database = Database(url, pool_size=1)
    driver = database.driver
    assert isinstance(driver, PostgresqlDriver)
    try:
        await connection.execute("ALTER TABLE predictions SET (autovacuum_enabled = false)")
        await connection.execute("ALTER TABLE wallets SET (autovacuum_enabled = false)")
        users = [row[0] for row in await connection.fetch(_USERS_MADE, _USERS)]
        await get_ready(connection, users)
        explained = Explained(driver)
        filled = Filled(url, connection, users, explained, PostgresqlStore(cast(Any, explained)))
        await filled.walk(4)
        await connection.execute(_QUEUED, users, _HISTORY, 2 * _HISTORY)
        await connection.execute(_SETTLED)
        explained.plans.clear()
        yield filled
    finally:
        await database.close()
        await connection.close()


@dataclass
class Filled:
    url: str
    connection: asyncpg.Connection
    users: list[UUID]
    explained: Explained
    store: PostgresqlStore
    _batches: int = 0

    async def walk(self, size: int) -> dict[str, tuple[int, int]]:
        """The whole way of a batch; returns the rows and pages that each part of it has read."""
        self._batches += 1
        batch = [
            submission(
                self.users[number % len(self.users)],
                id=UUID(int=uuid7().int),
                idempotency_key=f"new-{self._batches}-{number}" if number % 2 else None,
                request_hash=b"hash",
            )
            for number in range(size)
        ]
        ids = [each.id for each in batch]
        read = {}
        await self.store.accept(batch)
        read["accept"] = self.explained.read()
        await self.store.accept([replace(each, id=uuid7()) for each in batch if each.idempotency_key])
        read["accept again"] = self.explained.read()
        await self.store.explain(batch)
        read["explain"] = self.explained.read()
        await self.store.mark_published(ids, now())
        read["mark"] = self.explained.read()
        await self.store.settle([succeeded(each) if each.int % 3 else failed(each) for each in ids], now())
        read["settle"] = self.explained.read()
        settled = (
            "SELECT count(*) FROM predictions WHERE id = ANY ($1) AND published_at IS NOT NULL AND status <> 'queued'"
        )
        assert await self.connection.fetchval(settled, ids) == size
        return read


async def test_a_batch_reads_its_own_rows(filled: Filled) -> None:
    for size in (64, 2048):
        read = await filled.walk(size)
        per_row = {name: (rows / size, pages / size) for name, (rows, pages) in read.items()}
        assert {name: each for name, each in per_row.items() if each[0] > _MOST_ROWS or each[1] > _MOST_PAGES} == {}


async def test_16384_endings_among_half_a_million_dead_entries(postgresql_with_tables: str) -> None:
    async def leave_dead_entries(connection: asyncpg.Connection, users: Sequence[UUID]) -> None:
        aborted = connection.transaction()
        await aborted.start()
        # Without keys, of which the hot statements read none but their own.
        await connection.execute(_QUEUED.replace("'old-' || $3 + number, 'hash'", "NULL, NULL"), users, 500_000, 0)
        await aborted.rollback()
        await connection.execute("ANALYZE")

    size = 16_384
    async with _filled(postgresql_with_tables, leave_dead_entries) as filled:
        read = await filled.walk(size)
    per_row = {name: (rows / size, pages / size) for name, (rows, pages) in read.items()}
    assert {name: each for name, each in per_row.items() if each[0] > _MOST_ROWS or each[1] > _MOST_PAGES} == {}


async def test_a_batch_that_is_told_reads_its_own_rows(filled: Filled) -> None:
    for table in ("events", "event_wakes", "ledger"):
        await filled.connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    await filled.connection.execute("UPDATE wallets SET listening = true, low_threshold = 1999996")
    for size in (64, 2048):
        rows, pages = (await filled.walk(size))["settle"]
        # Each passes through some nodes more.
        assert rows / size <= 1.5 * _MOST_ROWS
        assert pages / size <= 1.5 * _MOST_PAGES
    told = "SELECT count(*), count(*) FILTER (WHERE type = 'balance.low') FROM events"
    events, low = await filled.connection.fetchrow(told)
    assert events == 64 + 2048 + low
    assert low > 0


async def test_sweeps_read_only_what_is_queued(filled: Filled) -> None:
    queued = 50
    await filled.connection.execute(_QUEUED, filled.users, queued, 3 * _HISTORY)
    long_ago = "UPDATE predictions SET created_at = created_at - interval '1 hour' WHERE status = 'queued'"
    await filled.connection.execute(long_ago)
    tomorrow = now() + timedelta(days=1)
    database = Database(filled.url, pool_size=1)
    try:
        for find, expected in (
            (partial(sweeps.never_published, before=tomorrow), 0),
            (partial(sweeps.lost, at=tomorrow, after=timedelta(seconds=30)), queued),
            (partial(sweeps.expired, moment=tomorrow), queued),
        ):
            async with database.snapshot() as connection:
                assert len(await find(connection, limit=1000)) == expected
                read = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'predictions'"
                by_reading_all, by_index = (await connection.execute(text(read))).one()
            assert by_reading_all == 0, find
            # Those of the finds before may be counted among these.
            assert by_index <= 6 * queued, find
    finally:
        await database.close()
