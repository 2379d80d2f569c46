"""The two ways to a database, on PostgreSQL and on SQLite."""

import asyncio
import sqlite3
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog.testing import capture_logs
from tests.asides import run_aside
from tests.services_database import PrivatePostgresql

from foretell.kit import deadline
from foretell.kit.database import (
    Database,
    Moment,
    PostgresqlDriver,
    SqliteDriver,
    from_microseconds,
    is_among,
    to_microseconds,
)
from foretell.kit.errors import Misconfigured, Unavailable

_notes = Table(
    "notes",
    MetaData(),
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("words", Text, nullable=False),
    Column("at", Moment),
)


@pytest.fixture
async def notes(database: Database) -> Database:
    async with database.transaction() as connection:
        await connection.run_sync(_notes.metadata.create_all)
    return database


async def _words(database: Database) -> list[str]:
    async with database.snapshot() as connection:
        return list(await connection.scalars(select(_notes.c.words).order_by(_notes.c.id)))


@pytest.mark.parametrize("count", [0, 1, 2, 700])
async def test_what_is_among_many_values(notes: Database, count: int) -> None:
    async with notes.transaction() as connection:
        await connection.execute(insert(_notes), [{"id": each, "words": str(each)} for each in range(1, 1001)])
    wanted = list(range(3, 3 + count))
    async with notes.snapshot() as connection:
        query = select(_notes.c.id).where(is_among(connection, _notes.c.id, wanted)).order_by(_notes.c.id)
        assert (await connection.scalars(query)).all() == wanted
        if connection.dialect.name == "postgresql":
            # One statement for lists of every length: the driver prepares it once.
            assert str(query.compile(dialect=connection.dialect)).count("$") == 1


async def _write(database: Database, words: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(insert(_notes).values(words=words))


async def _hot_write(database: Database, words: str) -> None:
    if isinstance(database.driver, PostgresqlDriver):
        await database.driver.run(lambda c: c.execute("INSERT INTO notes (words) VALUES ($1)", words))
    else:
        await database.driver.run(lambda c: c.execute("INSERT INTO notes (words) VALUES (?)", (words,)))


async def test_a_transaction_is_committed_at_its_end(notes: Database) -> None:
    await _write(notes, "one")
    assert await _words(notes) == ["one"]


async def test_a_transaction_that_fails_leaves_nothing(notes: Database) -> None:
    async def fail() -> None:
        async with notes.transaction() as connection:
            await connection.execute(insert(_notes).values(words="one"))
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        await fail()
    assert await _words(notes) == []


async def test_a_transaction_that_is_cancelled_leaves_nothing_and_gives_its_connection_back(notes: Database) -> None:
    inside = asyncio.Event()

    async def never_end() -> None:
        async with notes.transaction() as connection:
            await connection.execute(insert(_notes).values(words="never"))
            inside.set()
            await asyncio.sleep(3600)

    for _ in range(12):
        inside.clear()
        task = asyncio.create_task(never_end())
        await inside.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
    await _write(notes, "one")
    assert await _words(notes) == ["one"]


async def test_requests_that_are_cancelled_anywhere_leave_the_pool_whole(notes: Database) -> None:
    for ticks in range(40):
        tasks = [asyncio.create_task(_write(notes, "maybe")), asyncio.create_task(_hot_write(notes, "maybe"))]
        for _ in range(ticks):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    async with asyncio.timeout(60):
        await asyncio.gather(*(_write(notes, "one") for _ in range(10)), *(_hot_write(notes, "two") for _ in range(10)))
    words = await _words(notes)
    assert (words.count("one"), words.count("two")) == (10, 10)


async def test_a_snapshot_sees_one_moment_throughout(notes: Database) -> None:
    await _write(notes, "one")
    async with notes.snapshot() as connection:
        before = list(await connection.scalars(select(_notes.c.words)))
        await _write(notes, "two")
        await _hot_write(notes, "three")
        assert list(await connection.scalars(select(_notes.c.words))) == before == ["one"]
    assert await _words(notes) == ["one", "two", "three"]


async def test_a_snapshot_never_writes(notes: Database) -> None:
    # PostgreSQL refuses, SQLite forgets.
    with suppress(DBAPIError):
        async with notes.snapshot() as connection:
            await connection.execute(insert(_notes).values(words="smuggled"))
    assert await _words(notes) == []


async def test_many_at_once_wait_for_each_other(notes: Database) -> None:
    await asyncio.gather(*(_write(notes, "x") for _ in range(40)), *(_hot_write(notes, "x") for _ in range(40)))
    assert len(await _words(notes)) == 80


async def test_hot_work_that_fails_leaves_nothing_and_the_next_works(notes: Database) -> None:
    driver = notes.driver
    if isinstance(driver, PostgresqlDriver):
        with pytest.raises(asyncpg.NotNullViolationError):
            await driver.run(lambda c: c.execute("INSERT INTO notes (words) VALUES ('one'), (NULL)"))
    else:

        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO notes (words) VALUES ('one')")
            raise RuntimeError("ours")

        with pytest.raises(RuntimeError, match="ours"):
            await driver.run(fail)
    await _hot_write(notes, "two")
    assert await _words(notes) == ["two"]


async def test_nonsense_is_our_mistake_and_not_the_databases(notes: Database) -> None:
    for statement in ("SELECT * FROM nowhere", "SELECT FROM FROM"):
        with pytest.raises(DBAPIError):
            async with notes.snapshot() as connection:
                await connection.exec_driver_sql(statement)
        with pytest.raises((asyncpg.PostgresError, sqlite3.OperationalError)):
            await notes.driver.run(lambda c, statement=statement: c.execute(statement))
    with pytest.raises(IntegrityError):
        async with notes.transaction() as connection:
            await connection.execute(text("INSERT INTO notes (words) VALUES (NULL)"))


async def test_an_error_does_not_show_what_was_written(notes: Database) -> None:
    with pytest.raises(IntegrityError) as refused:
        async with notes.transaction() as connection:
            await connection.execute(insert(_notes), [{"id": 1, "words": "hunter2"}, {"id": 1, "words": "hunter2"}])
    assert "hunter2" not in str(refused.value)


async def test_a_moment_keeps_its_microseconds_and_is_in_utc(notes: Database) -> None:
    moment = datetime(2025, 3, 30, 1, 2, 3, 456789, tzinfo=timezone(timedelta(hours=3)))
    async with notes.transaction() as connection:
        await connection.execute(insert(_notes), [{"words": "x", "at": moment}, {"words": "x", "at": None}])
    async with notes.snapshot() as connection:
        first, second = await connection.scalars(select(_notes.c.at).order_by(_notes.c.id))
    assert first == moment
    assert first.utcoffset() == timedelta(0)
    assert second is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_are_exact(moment: datetime) -> None:
    assert from_microseconds(to_microseconds(moment)) == moment


async def test_a_request_whose_time_is_over_begins_nothing(notes: Database) -> None:
    with deadline.allowed(-1.0):
        for way in (notes.snapshot, notes.transaction):
            with pytest.raises(Unavailable):
                async with way():
                    pytest.fail("it began")
    await notes.ping()


async def test_ping_asks_for_nothing(database: Database) -> None:
    await database.ping()


async def test_tables_of_a_schema_stand_apart(fresh_postgresql: str) -> None:
    apart = Database(fresh_postgresql, schema="apart")
    plain = Database(fresh_postgresql)
    patient = apart.with_statement_timeout(30)
    try:
        async with plain.transaction() as connection:
            await connection.execute(text("CREATE SCHEMA apart"))
        async with apart.transaction() as connection:
            await connection.run_sync(_notes.metadata.create_all)
        await _write(apart, "one")
        await _hot_write(patient, "two")
        assert await _words(patient) == ["one", "two"]
        with pytest.raises(DBAPIError):
            await _words(plain)
    finally:
        for database in (apart, plain, patient):
            await database.close()


@pytest.mark.parametrize("durable", [True, False])
async def test_commits_wait_for_the_disk_only_where_they_must(empty_database_url: str, durable: bool) -> None:
    database = Database(empty_database_url, durable=durable)
    try:
        if isinstance(database.driver, PostgresqlDriver):
            asked, expected = "SHOW synchronous_commit", "on" if durable else "off"
            hot = await database.driver.run(lambda c: c.fetchval(asked))
        else:
            asked, expected = "PRAGMA synchronous", 2 if durable else 1
            hot = await database.driver.run(lambda c: c.execute(asked).fetchone()[0])
        async with database.snapshot() as connection:
            assert (hot, (await connection.exec_driver_sql(asked)).scalar()) == (expected, expected)
    finally:
        await database.close()


# A database that is away.


def _nowhere(tmp_path: Path) -> list[Database]:
    (tmp_path / "occupied.db").mkdir()
    return [
        Database("postgresql://postgres@127.0.0.1:1/postgres"),
        Database(f"sqlite:///{tmp_path / 'occupied.db'}"),
    ]


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    for database in _nowhere(tmp_path):
        with pytest.raises(Unavailable) as error:
            await database.ping()
        assert error.value.retry_after_s
        with pytest.raises(Unavailable):
            async with database.transaction():
                raise AssertionError("there is nothing to begin")
        with pytest.raises(Unavailable):
            await _hot_write(database, "x")
        await database.close()


async def test_a_connection_that_fails_or_is_given_up_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would tell its outcome to an event loop that may be closed by then."""
    threads: list[threading.Thread] = []

    class SlowThread(threading.Thread):
        def run(self) -> None:
            threads.append(self)
            time.sleep(0.05)
            super().run()
            time.sleep(0.05)

    monkeypatch.setattr(aiosqlite.core, "Thread", SlowThread)
    with pytest.raises(Unavailable):
        await _nowhere(tmp_path)[1].ping()
    assert [thread.is_alive() for thread in threads] == [False]
    for ticks in range(10):
        database = Database(f"sqlite:///{tmp_path / 'foretell.db'}")
        pinging = asyncio.create_task(database.ping())
        for _ in range(ticks):
            await asyncio.sleep(0)
        pinging.cancel()
        await asyncio.wait([pinging])
        assert not any(thread.is_alive() for thread in threads)
        await database.close()
    assert len(threads) > 5


async def test_away_is_logged_without_the_password() -> None:
    database = Database("postgresql://postgres:hunter2@127.0.0.1:1/postgres")
    with capture_logs() as lines, pytest.raises(Unavailable):
        await database.ping()
    await database.close()
    assert [line["event"] for line in lines] == ["database_unavailable"]
    assert "hunter2" not in str(lines)


@pytest.mark.parametrize("url", ["mysql://root:hunter2@localhost/x", "sqlite://", "hunter2", ""])
def test_another_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Misconfigured, match="FORETELL_DATABASE_URL") as error:
        Database(url)
    assert "hunter2" not in str(error.value)


async def test_sqlite_comes_back_when_its_folder_does(tmp_path: Path) -> None:
    file = tmp_path / "foretell.db"
    file.mkdir()
    database = Database(f"sqlite:///{file}")
    assert isinstance(database.driver, SqliteDriver)
    with pytest.raises(Unavailable):
        await database.driver.run(lambda c: c.execute("SELECT 1"))
    file.rmdir()
    # Prepared as a whole, not from where the first attempt failed.
    assert await database.driver.run(lambda c: c.execute("PRAGMA foreign_keys").fetchone()) == (1,)
    await database.close()


async def test_sqlite_that_somebody_else_writes_is_waited_for_and_then_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'foretell.db'}", statement_timeout_s=0.1)
    await database.ping()
    other = sqlite3.connect(tmp_path / "foretell.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        async with database.transaction():
            raise AssertionError("two can't write at once")
    with pytest.raises(Unavailable):
        await database.driver.run(lambda _: None)
    # Reading is no writing.
    await database.ping()
    patient = database.with_statement_timeout(30)
    waiting = asyncio.create_task(_begin(patient))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    other.execute("COMMIT")
    await waiting
    other.close()
    await patient.close()
    await database.close()


async def _begin(database: Database) -> None:
    async with database.transaction():
        pass


async def test_a_statement_has_its_time(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql, statement_timeout_s=1)
    with pytest.raises(Unavailable):
        async with database.snapshot() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))
    await database.ping()
    await database.close()


async def test_a_hot_statement_has_its_time_and_the_pool_is_whole_afterwards(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql, pool_size=2)
    driver: Any = database.driver
    outcomes = await asyncio.gather(
        *(driver.run(lambda c: c.execute("SELECT pg_sleep(60)")) for _ in range(2)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    values = await asyncio.gather(*(driver.run(lambda c: c.fetchval("SELECT pg_sleep(0)::text")) for _ in range(4)))
    assert values == [""] * 4
    await database.close()


async def test_connections_that_the_server_ends_are_replaced(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql, application="victim")
    driver: Any = database.driver
    await database.ping()
    await driver.run(lambda c: c.fetchval("SELECT 1"))
    run_aside(_terminate(fresh_postgresql))
    # Whoever comes first may find out by an error; nobody may find out twice.
    for ask in (database.ping, lambda: driver.run(lambda c: c.fetchval("SELECT 1"))):
        try:
            await ask()
        except Unavailable:
            await ask()
    await database.close()


async def _terminate(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'")
    await connection.close()


async def test_a_server_that_goes_and_comes_back(private_postgresql: PrivatePostgresql) -> None:
    database = Database(private_postgresql.url)
    driver: Any = database.driver
    await database.ping()
    await driver.run(lambda c: c.fetchval("SELECT 1"))
    private_postgresql.kill()
    for ask in (database.ping, lambda: driver.run(lambda c: c.fetchval("SELECT 1"))):
        with pytest.raises(Unavailable):
            await ask()
    private_postgresql.start()
    await database.ping()
    assert await driver.run(lambda c: c.fetchval("SELECT 1")) == 1
    await database.close()


async def test_closing_does_not_wait_for_a_server_that_hangs(private_postgresql: PrivatePostgresql) -> None:
    database = Database(private_postgresql.url)
    driver: Any = database.driver
    await driver.run(lambda c: c.fetchval("SELECT 1"))
    private_postgresql.pause()
    try:
        async with asyncio.timeout(60):
            await database.close()
    finally:
        private_postgresql.resume()


def test_the_url_of_a_hosting_service_is_understood() -> None:
    database = Database("postgres://somebody:secret@somewhere/else")
    assert make_url(database.engine.url).drivername == "postgresql+asyncpg"
