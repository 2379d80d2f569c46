"""SQLAlchemy on SQLite: every statement is one call of the connection's thread, and no transaction stays open."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from foretell.kit.database import Database
from foretell.kit.sqlite_calls import SqliteCallConnection


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'foretell.db'}")
    async with database.transaction() as connection:
        await connection.exec_driver_sql("CREATE TABLE named (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    yield database
    await database.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the threads of all connections were asked to do."""
    called: list[str] = []
    original = SqliteCallConnection._execute

    async def counting(self: SqliteCallConnection, fn: Any, *arguments: Any, **options: Any) -> Any:
        called.append(str(arguments[2]) if len(arguments) > 2 else fn.__name__)
        return await original(self, fn, *arguments, **options)

    monkeypatch.setattr(SqliteCallConnection, "_execute", counting)
    return called


async def test_each_statement_is_one_call(database: Database, calls: list[str]) -> None:
    async with database.transaction() as connection:
        await connection.exec_driver_sql("INSERT INTO named (name) VALUES (?)", [("a",), ("b",), ("c",)])
        changed = await connection.exec_driver_sql(
            "UPDATE named SET name = upper(name) WHERE id < 3 RETURNING id, name"
        )
        assert changed.fetchmany(1) == [(1, "A")]
        assert changed.fetchone() == (2, "B")
        assert changed.fetchone() is None
        gone = await connection.exec_driver_sql("DELETE FROM named WHERE id = 1")
        assert gone.rowcount == 1
    assert [each.split(" ")[0] for each in calls] == ["BEGIN", "INSERT", "UPDATE", "DELETE", "commit"]
    calls.clear()
    async with database.snapshot() as connection:
        assert (await connection.exec_driver_sql("SELECT name FROM named ORDER BY id")).scalars().all() == ["B", "c"]
    assert [each.split(" ")[0] for each in calls] == ["BEGIN", "SELECT", "rollback"]


async def test_a_statement_that_fails_leaves_nothing_behind(database: Database) -> None:
    async def twice() -> None:
        async with database.transaction() as connection:
            await connection.exec_driver_sql("INSERT INTO named (name) VALUES ('a')")
            await connection.exec_driver_sql("INSERT INTO named (name) VALUES ('a')")

    with pytest.raises(exc.IntegrityError):
        await twice()
    async with database.transaction() as connection:
        await connection.exec_driver_sql("INSERT INTO named (name) VALUES ('a')")
        assert (await connection.exec_driver_sql("SELECT count(*) FROM named")).scalar() == 1


async def test_a_caller_who_gives_up_while_the_lock_is_waited_for_leaves_no_transaction(
    database: Database, tmp_path: Path
) -> None:
    """The thread takes the lock after its caller has gone; it must be given back all the same."""

    async def write() -> None:
        async with database.transaction() as connection:
            await connection.exec_driver_sql("INSERT INTO named (name) VALUES ('late')")

    other = sqlite3.connect(tmp_path / "foretell.db", isolation_level=None, timeout=20)
    try:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(write())
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        waiting.cancel()
        other.execute("COMMIT")
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO named (name) VALUES ('other')")
        other.execute("COMMIT")
    finally:
        other.close()
    async with database.snapshot() as connection:
        assert (await connection.exec_driver_sql("SELECT name FROM named")).scalars().all() == ["other"]
