"""No list reads more than it shows, whatever is asked for, however long the history, whatever the statistics say."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice, product
from typing import Any, get_args

import asyncpg
import pytest
from benchmarks.lists import History, fill_postgresql, fill_sqlite, lists
from sqlalchemy import event, text
from tests.predictions import open_account

from foretell.contracts.messages import Status
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions import history
from foretell.kit.database import Database

_SIZE = 20_000
#: Each row of a page is looked up in an index of three levels and in its table; each of the nine pairs of a status and
#: a model costs two look-ups more. Reading on through what was not asked for, it would be many more.
_MOST_BUFFERS = 450
#: In instructions of SQLite's machine: going through the oldest fifth, which failed, takes some 40,000.
_MOST_STEPS = 25_000

Statements = list[tuple[str, Any]]


@pytest.fixture(params=["young", "fresh"])
async def filled(database: Database, empty_database_url: str, request: pytest.FixtureRequest) -> History:
    """A long history, with statistics from before it or of it."""
    filled = await _owned(database)
    if database.dialect == "sqlite":
        await asyncio.to_thread(fill_sqlite, empty_database_url.removeprefix("sqlite:///"), filled)
    else:
        await fill_postgresql(empty_database_url, filled)
    if request.param == "fresh":
        async with database.transaction() as connection:
            await connection.execute(text("ANALYZE"))
    return filled


async def _owned(database: Database) -> History:
    owner, other = [await open_account(database, credits=2 * _SIZE) for _ in range(2)]
    return History(owner, other, _SIZE)


@contextmanager
def _noted(database: Database, statements: Statements) -> Iterator[None]:
    """What reads from the database meanwhile, with its parameters, is added to `statements`."""

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "SELECT" in statement:
            statements.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def _cost(database: Database, url: str, statements: Statements) -> int:
    """What the statements read: buffers on PostgreSQL, steps on SQLite."""
    if database.dialect == "sqlite":
        return await asyncio.to_thread(_steps, url.removeprefix("sqlite:///"), statements)
    total = 0
    async with database.snapshot() as connection:
        for statement, parameters in statements:
            explained = await connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters
            )
            plan = explained.scalar_one()[0]["Plan"]
            total += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return total


def _steps(path: str, statements: Statements) -> int:
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 100
        return 0

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(count, 100)
        for statement, parameters in statements:
            connection.execute(statement, parameters).fetchall()
    return taken


async def test_every_list_reads_about_as_much_as_it_shows(
    database: Database, empty_database_url: str, filled: History
) -> None:
    too_much = {}
    most = _MOST_STEPS if database.dialect == "sqlite" else _MOST_BUFFERS
    for name, ask in lists(filled).items():
        statements: Statements = []
        with _noted(database, statements):
            async with database.snapshot() as connection:
                await ask(connection)
        assert statements, name
        if (cost := await _cost(database, empty_database_url, statements)) > most:
            too_much[name] = cost
    assert too_much == {}


async def test_lists_show_the_newest_of_what_was_asked_for(database: Database, filled: History) -> None:
    statuses, models = (None, *get_args(Status)), (None, "flight-delay", "rare", "absent")
    for status, model, before in product(statuses, models, (filled.size, filled.size // 20, 10)):
        fitting = (
            filled.id(number)
            for number in reversed(range(before))
            if status in (None, filled.status(number)) and model in (None, filled.model(number))
        )
        async with database.snapshot() as connection:
            page = await history.page(
                connection, filled.owner, limit=30, before_id=filled.id(before), status=status, model=model
            )
        assert [view.id for view in page] == list(islice(fitting, 30)), (status, model, before)


_QUEUE = """
INSERT INTO predictions (id, user_id, model, version, stage, input, price_credits, status, created_at, expires_at)
SELECT lpad(to_hex(number), 32, '0')::uuid, $1, 'flight-delay', '1.0.0', 'input', '{}', 0, 'queued', now(), now()
FROM generate_series(1, 20000) AS number
"""
_END = "UPDATE predictions SET status = 'canceled', finished_at = now()"


async def test_what_ended_since_the_last_vacuum_is_not_gone_through(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql)
    await migrate(database)
    owner = await open_account(database)
    connection, looking = [await asyncpg.connect(fresh_postgresql) for _ in range(2)]
    try:
        await connection.execute("ALTER TABLE predictions SET (autovacuum_enabled = off)")
        await connection.execute(_QUEUE, owner)
        async with looking.transaction(isolation="repeatable_read"):
            # Whoever looks at it since then still sees them queued: their entries in the index of the queued ones stay.
            assert await looking.fetchval("SELECT count(*) FROM predictions WHERE status = 'queued'") == 20_000
            await connection.execute(_END)
            statements: Statements = []
            with _noted(database, statements):
                async with database.snapshot() as asking:
                    assert len(await history.page(asking, owner, limit=21)) == 21
            assert await _cost(database, fresh_postgresql, statements) < _MOST_BUFFERS
    finally:
        await connection.close()
        await looking.close()
        await database.close()


@pytest.mark.parametrize("model", [None, "flight-delay"])
async def test_what_left_the_queue_is_gone_through_once(fresh_postgresql: str, model: str | None) -> None:
    """`status=queued` with nothing queued goes past all that ended since the last vacuum; the next look does not."""
    database = Database(fresh_postgresql)
    await migrate(database)
    owner = await open_account(database)
    connection = await asyncpg.connect(fresh_postgresql)
    try:
        await connection.execute("ALTER TABLE predictions SET (autovacuum_enabled = off)")
        await connection.execute(_QUEUE, owner)
        await connection.execute(_END)
        costs = []
        for _ in range(2):
            statements: Statements = []
            with _noted(database, statements):
                async with database.snapshot() as asking:
                    assert await history.page(asking, owner, limit=21, status="queued", model=model) == []
            costs.append(await _cost(database, fresh_postgresql, statements))
        # The cost is that of one look more, since to explain a statement is to run it.
        assert max(costs) < _MOST_BUFFERS
    finally:
        await connection.close()
        await database.close()
