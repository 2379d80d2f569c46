"""What callers are told of a statement that was not answered, and what it leaves in the server (PostgreSQL)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from tests.services_database import PrivatePostgresql, without_standby

from foretell.kit import deadline
from foretell.kit.database import Database
from foretell.kit.errors import MayBeDone, Unavailable

_NAME = "outcomes"
_SIZE = 2
#: Connections of both ways: the driver's pool, and SQLAlchemy's with its overflow.
_MOST_CONNECTIONS = 3 * _SIZE
_TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"

Write = Callable[[Database, str], Awaitable[Any]]


async def _hot(database: Database, words: str) -> None:
    driver: Any = database.driver
    await driver.run(lambda c: c.execute("INSERT INTO notes VALUES ($1)", words))


async def _transaction(database: Database, words: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO notes VALUES (:words)"), {"words": words})


both_ways = pytest.mark.parametrize("write", [_hot, _transaction])


@contextlib.asynccontextmanager
async def _notes(url: str) -> AsyncIterator[tuple[Database, asyncpg.Connection]]:
    """A database whose statements may take a moment, and an operator beside it."""
    operator = await asyncpg.connect(url)
    database = Database(url, application=_NAME, pool_size=_SIZE, statement_timeout_s=0.5, transaction_timeout_s=1.0)
    try:
        await operator.execute("CREATE TABLE notes (words text)")
        yield database, operator
    finally:
        await database.close()
        await operator.close()


@contextlib.asynccontextmanager
async def _locked(url: str) -> AsyncIterator[None]:
    """Nobody else reads or writes. (Whoever is in a transaction sees the activity of its first look: another one.)"""
    owner = await asyncpg.connect(url)
    try:
        async with owner.transaction():
            await owner.execute("LOCK TABLE notes")
            yield
    finally:
        await owner.close()


async def _outcomes(database: Database, write: Write, count: int) -> list[str]:
    answers = await asyncio.gather(*(write(database, "x") for _ in range(count)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers), answers
    return [answer.outcome for answer in answers if isinstance(answer, Unavailable)]


async def _in_server(operator: asyncpg.Connection, state: str = "%") -> int:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state LIKE $2"
    count: int = await operator.fetchval(asked, _NAME, state)
    return count


async def _written(operator: asyncpg.Connection) -> int:
    count: int = await operator.fetchval("SELECT count(*) FROM notes")
    return count


async def _until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await done():
            await asyncio.sleep(0.02)


@both_ways
async def test_what_waits_for_a_lock_ends_in_the_server_and_was_not_done(fresh_postgresql: str, write: Write) -> None:
    async with _notes(fresh_postgresql) as (database, operator):
        async with _locked(fresh_postgresql):
            for _ in range(3):
                assert set(await _outcomes(database, write, 2 * _SIZE)) == {"not_done"}
            assert await _in_server(operator) <= _MOST_CONNECTIONS
            await _until(lambda: _is_zero(_in_server(operator, "active")))
        await write(database, "kept")
        assert await _written(operator) == 1


async def _is_zero(asking: Awaitable[int]) -> bool:
    return await asking == 0


@both_ways
async def test_a_commit_that_waits_for_a_standby_may_be_done_and_is(
    private_postgresql: PrivatePostgresql, write: Write
) -> None:
    async with _notes(private_postgresql.url) as (database, operator):
        await write(database, "kept")
        async with without_standby(private_postgresql.url):
            assert set(await _outcomes(database, write, _SIZE)) == {"unknown"}
            for _ in range(2):
                await _outcomes(database, write, 2 * _SIZE)
                assert await _in_server(operator) <= _MOST_CONNECTIONS
            # Not yet: nobody may build on what one machine alone has.
            assert await _written(operator) == 1
        await _until(lambda: _is_zero(_in_server(operator, "active")))
        # No more and no less than what was said to be unknown.
        assert await _written(operator) >= 1 + _SIZE
        await asyncio.gather(*(write(database, "kept") for _ in range(2 * _SIZE)))


@both_ways
async def test_a_server_that_stands_still_keeps_no_more_connections_than_the_pools(
    private_postgresql: PrivatePostgresql, write: Write
) -> None:
    async with _notes(private_postgresql.url) as (database, operator):
        await asyncio.gather(*(write(database, "kept") for _ in range(_SIZE)))
        private_postgresql.pause()
        try:
            for _ in range(3):
                await _outcomes(database, write, 2 * _SIZE)
        finally:
            private_postgresql.resume()
        await _until(lambda: _is_zero(_in_server(operator, "active")))
        assert await _in_server(operator) <= _MOST_CONNECTIONS
        await asyncio.gather(*(write(database, "kept") for _ in range(2 * _SIZE)))


async def test_a_statement_whose_connection_is_lost_may_be_done(fresh_postgresql: str) -> None:
    async with _notes(fresh_postgresql) as (database, operator):
        async with _locked(fresh_postgresql):
            writing = asyncio.create_task(_hot(database, "x"))
            await _until(lambda: _is_one(_in_server(operator, "active")))
            await operator.execute(_TERMINATE, _NAME)
            with pytest.raises(MayBeDone) as error:
                await writing
            assert error.value.outcome == "unknown"
        await _hot(database, "x")


async def _is_one(asking: Awaitable[int]) -> bool:
    return await asking == 1


async def test_a_transaction_whose_connection_is_lost_before_its_commit_was_not_done(fresh_postgresql: str) -> None:
    async with _notes(fresh_postgresql) as (database, operator):

        async def interrupted() -> None:
            async with database.transaction() as connection:
                await connection.execute(text("INSERT INTO notes VALUES ('x')"))
                await operator.execute(_TERMINATE, _NAME)
                await connection.execute(text("INSERT INTO notes VALUES ('y')"))

        with pytest.raises(Unavailable) as error:
            await interrupted()
        assert error.value.outcome == "not_done"
        assert await _written(operator) == 0


async def test_the_transactions_of_one_request_share_its_time(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql, statement_timeout_s=30, transaction_timeout_s=30)
    sleeps = text("SELECT pg_sleep(20)")
    try:
        with deadline.allowed(0.5):
            async with database.snapshot() as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
            # Alone it would have the time.
            with pytest.raises(Unavailable) as error:
                async with database.transaction() as connection:
                    await connection.execute(sleeps)
            # Who has none left is not asked in.
            for way in (database.snapshot, database.transaction):
                with pytest.raises(Unavailable):
                    async with way():
                        pytest.fail("it began")
        assert error.value.outcome == "not_done"
        await database.ping()
    finally:
        await database.close()


async def test_a_transaction_has_its_time_as_a_whole(fresh_postgresql: str) -> None:
    async with _notes(fresh_postgresql) as (database, operator):

        async def endless() -> None:
            async with database.transaction() as connection:
                await connection.execute(text("INSERT INTO notes VALUES ('x')"))
                while True:
                    await connection.execute(text("SELECT pg_sleep(0.1)"))

        with pytest.raises(Unavailable) as error:
            await endless()
        assert error.value.outcome == "not_done"
        assert await _written(operator) == 0
        await _until(lambda: _is_zero(_in_server(operator, "idle in transaction")))


@both_ways
async def test_a_caller_who_is_cancelled_leaves_nothing_that_goes_on(fresh_postgresql: str, write: Write) -> None:
    async with _notes(fresh_postgresql) as (database, operator):
        async with _locked(fresh_postgresql):
            writing = asyncio.create_task(write(database, "x"))
            await _until(lambda: _is_one(_in_server(operator, "active")))
            writing.cancel()
            await asyncio.wait({writing})
            await _until(lambda: _is_zero(_in_server(operator, "active")))
        assert await _written(operator) == 0


@both_ways
async def test_a_server_that_only_reads_is_away_for_who_writes(fresh_postgresql: str, write: Write) -> None:
    async with _notes(fresh_postgresql) as (database, operator):
        name = await operator.fetchval("SELECT current_database()")
        await operator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        assert await _outcomes(database, write, 1) == ["not_done"]
        await operator.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        # Connections to the server that only reads are not kept; the pool may have made one more meanwhile.
        for _ in range(_SIZE):
            with contextlib.suppress(Unavailable):
                await write(database, "kept")
        await write(database, "kept")
