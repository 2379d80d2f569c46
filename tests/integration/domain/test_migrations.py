"""Migrations: to the very tables of the metadata, once, whoever else is at it, and never from a newer database."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.migrations import run
from foretell.domain.migrations.run import REVISIONS, migrate, upgrade
from foretell.domain.migrations.schema import metadata
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.kit.errors import Misconfigured, Unavailable

# A process that does what app and dispatcher do at their start, as soon as it is told to.
_STARTING_PROCESS = """
import asyncio, sys
from foretell.domain.migrations.run import migrate
from foretell.kit.database import Database

async def main():
    database = Database(sys.argv[1])
    sys.stdin.readline()
    await migrate(database)
    assert "alembic" not in sys.modules or len(sys.argv) == 2, "loaded Alembic for nothing"
    await database.close()

asyncio.run(main())
"""


async def test_the_migrated_tables_are_those_of_the_metadata(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_server_default": True}), metadata)

    async with database.snapshot() as connection:
        assert await connection.run_sync(differences) == []


async def test_constraints_and_indexes_are_those_of_the_metadata_to_the_letter(
    database: Database, empty_database_url: str, tmp_path: Path
) -> None:
    # compare_metadata knows neither CHECKs nor the conditions of partial indexes.
    async with database.snapshot() as connection:
        migrated = await _definitions(connection, "public")
    if database.dialect == "postgresql":
        async with database.transaction() as connection:
            await connection.execute(text("CREATE SCHEMA made"))
            await connection.execute(text("SET LOCAL search_path TO made"))
            await connection.run_sync(metadata.create_all)
        async with database.snapshot() as connection:
            made = await _definitions(connection, "made")
    else:
        other = Database(f"sqlite:///{tmp_path / 'made.db'}")
        async with other.transaction() as connection:
            await connection.run_sync(metadata.create_all)
            made = await _definitions(connection, "public")
        await other.close()
    assert migrated == made
    assert len(made) > 20


async def _definitions(connection: Any, schema: str) -> set[str]:
    if connection.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'trigger'"
        statements = [row[0] for row in await connection.execute(text(query))]
        # The order of the parts of a CREATE TABLE is not what is compared.
        return {
            part.strip(" ,)")
            for statement in statements
            if "alembic_version" not in statement
            # A column that was added later stands on the last line, with all others that were.
            for line in re.sub(r"[ \t]+", " ", statement).splitlines()
            for part in re.split(r", (?=[a-z_]+ [A-Z]+)", line)
            if part.strip(" ,)")
        }
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = :schema"
    constraints = """
        SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = (:schema)::regnamespace
    """
    columns = """
        SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable
        FROM information_schema.columns WHERE table_schema = :schema
    """
    found = set()
    for query in (indexes, constraints, columns):
        for row in await connection.execute(text(query), {"schema": schema}):
            found.add(row[0].replace(f"{schema}.", ""))
    return {line for line in found if "alembic_version" not in line}


async def test_a_second_start_does_nothing(database: Database) -> None:
    await migrate(database)
    async with database.snapshot() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [
            REVISIONS[-1]
        ]


async def test_four_processes_that_start_at_once_all_find_the_tables(empty_database_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _STARTING_PROCESS,
            empty_database_url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for _ in range(4)
    ]
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert sum(b"database_migrated" in output for output, _ in outputs) == 1


async def test_a_start_that_finds_nothing_to_do_does_not_load_alembic(
    database: Database, empty_database_url: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _STARTING_PROCESS,
        empty_database_url,
        "strict",
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate(b"go\n")
    assert process.returncode == 0, errors


async def test_a_newer_database_is_refused_and_left_alone(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match="9999"):
        await migrate(database)
    async with database.snapshot() as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


async def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    try:
        # The last table of the first migration is in its way.
        async with database.transaction() as connection:
            await connection.execute(text("CREATE TABLE predictions (id integer)"))
        with pytest.raises((DBAPIError, Unavailable)):
            await migrate(database)
        async with database.snapshot() as connection:
            tables = await connection.run_sync(lambda sync: set(_table_names(sync)))
        assert tables == {"predictions"}
    finally:
        await database.close()


def _table_names(connection: Connection) -> list[str]:
    from sqlalchemy import inspect

    return inspect(connection).get_table_names()


def test_the_list_of_revisions_is_that_of_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(run.__file__).parent))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert tuple(reversed([revision.revision for revision in script.walk_revisions()])) == REVISIONS


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_upgrade_from_every_revision_keeps_the_data(empty_database_url: str, revision: str) -> None:
    database = Database(empty_database_url)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(upgrade, revision)
            await _ROWS_AT[revision](connection)
            before = await _rows(connection)
        await migrate(database)
        # What was prepared before knows fewer columns.
        await database.close()
        database = Database(empty_database_url)
        async with database.snapshot() as connection:
            after = await _rows(connection)
            assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == REVISIONS[-1]
        # A later revision may have added columns, which stand last.
        for table, rows in before.items():
            width = len(rows[0]) if rows else 0
            assert sorted(row[:width] for row in after[table]) == rows
        assert {table for table, rows in before.items() if rows} >= _TABLES_OF_0001
    finally:
        await database.close()


async def _rows_at_0001(connection: Any) -> None:
    """One row in every table as revision 0001 has it, in SQL: tables in Python change with the code."""
    user, other = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"
    moment = "'2026-01-02T03:04:05+00:00'"
    if connection.dialect.name == "sqlite":
        user, other, moment = user.replace("-", ""), other.replace("-", ""), "1767323045000000"
    columns_and_values = {
        "users (id, username, username_key, password_hash, created_at)": f"'{user}', 'Anna', 'anna', 'x', {moment}",
        "refresh_tokens (id, family_id, user_id, token_hash, created_at, expires_at)": (
            f"'{other}', '{other}', '{user}', 'h', {moment}, {moment}"
        ),
        "api_keys (id, user_id, name, prefix, key_hash, created_at)": (
            f"'{other}', '{user}', 'n', 'ftl_', 'h', {moment}"
        ),
        "wallets (user_id, available, held)": f"'{user}', 98, 2",
        "ledger (id, user_id, kind, amount, prediction_id, created_at)": (
            f"1, '{user}', 'grant', 100, NULL, {moment}), (2, '{user}', 'hold', 2, '{other}', {moment}"
        ),
        "predictions (id, user_id, model, version, stage, input, price_credits, status, created_at, expires_at)": (
            f"'{other}', '{user}', 'm', '1', 'input', '{{\"a\": 1.50}}', 2, 'queued', {moment}, {moment}"
        ),
    }
    for columns, values in columns_and_values.items():
        await connection.exec_driver_sql(f"INSERT INTO {columns} VALUES ({values})")


#: How to fill a database of each revision; a new revision adds its own.
_ROWS_AT = {
    "0001": _rows_at_0001,
    "0002": _rows_at_0001,
    "0003": _rows_at_0001,
    "0004": _rows_at_0001,
    "0005": _rows_at_0001,
    "0006": _rows_at_0001,
    "0007": _rows_at_0001,
    "0008": _rows_at_0001,
    "0009": _rows_at_0001,
}


_TABLES_OF_0001 = {"users", "refresh_tokens", "api_keys", "wallets", "ledger", "predictions"}


async def _rows(connection: Any) -> dict[str, list[tuple[str, ...]]]:
    """The rows of every table that is there by now."""
    there = await connection.run_sync(_table_names)
    return {
        table: sorted(tuple(map(str, row)) for row in await connection.execute(text(f"SELECT * FROM {table}")))
        for table in sorted(set(metadata.tables) & set(there))
    }


@pytest.mark.parametrize(
    "change", ["UPDATE ledger SET amount = 1000", "DELETE FROM ledger", "UPDATE ledger SET note = 'x' WHERE id = 1"]
)
async def test_the_database_itself_refuses_to_change_the_ledger(database: Database, change: str) -> None:
    async with database.transaction() as connection:
        await _rows_at_0001(connection)
    with pytest.raises((IntegrityError, DBAPIError), match="never changed or removed"):
        async with database.transaction() as connection:
            await connection.execute(text(change))
    async with database.snapshot() as connection:
        amounts = await connection.scalars(text("SELECT amount FROM ledger ORDER BY id"))
        assert amounts.all() == [100, 2]


@pytest.mark.parametrize("change", ["UPDATE journal SET operator = 'nobody'", "DELETE FROM journal"])
async def test_the_database_itself_refuses_to_change_the_journal(database: Database, change: str) -> None:
    async with database.transaction() as connection:
        moment = now() if database.dialect == "postgresql" else 1767323045000000
        await connection.execute(
            text(
                "INSERT INTO journal (id, at, operator, address, act, subject) "
                "VALUES (1, :at, 'eve', '', 'grant', 'user:1')"
            ),
            {"at": moment},
        )
    with pytest.raises((IntegrityError, DBAPIError), match="never changed or removed"):
        async with database.transaction() as connection:
            await connection.execute(text(change))
    async with database.snapshot() as connection:
        assert await connection.scalar(text("SELECT operator FROM journal")) == "eve"


@pytest.mark.parametrize(
    "change",
    [
        "REPLACE INTO ledger SELECT id, user_id, kind, 1000, prediction_id, reference, note, created_at FROM ledger",
        "INSERT OR REPLACE INTO ledger (user_id, kind, amount, prediction_id, created_at) "
        "SELECT user_id, kind, 1000, prediction_id, created_at FROM ledger WHERE kind = 'hold'",
        "REPLACE INTO ledger (user_id, kind, amount, prediction_id, created_at) "
        "SELECT user_id, 'release', 1000, prediction_id, created_at FROM ledger WHERE kind = 'capture'",
        "REPLACE INTO ledger (user_id, kind, amount, reference, created_at) "
        "SELECT user_id, kind, 1000, reference, created_at FROM ledger WHERE reference = 'mine'",
        "REPLACE INTO journal SELECT id, at, operator_id, 'me', address, act, subject, before, after FROM journal",
        "INSERT OR REPLACE INTO journal (id, at, operator, address, act, subject) VALUES (1, 1, 'me', '', 'x', 'y')",
    ],
)
async def test_sqlite_replaces_no_row_of_the_books(tmp_path: Path, change: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'foretell.db'}")
    try:
        await migrate(database)
        async with database.transaction() as connection:
            await _rows_at_0001(connection)
            for more in (
                "INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at) "
                "SELECT user_id, 'capture', amount, prediction_id, created_at FROM ledger WHERE kind = 'hold'",
                "INSERT INTO ledger (user_id, kind, amount, reference, created_at) "
                "SELECT user_id, 'grant', 7, 'mine', created_at FROM ledger WHERE id = 1",
                "INSERT INTO journal (at, operator, address, act, subject) VALUES (1, 'eve', '', 'grant', 'user:1')",
            ):
                await connection.execute(text(more))
            books = [await _rows_of(connection, table) for table in ("ledger", "journal")]
        assert [len(rows) for rows in books] == [4, 1]
        with pytest.raises(IntegrityError, match="never changed or removed"):
            async with database.transaction() as connection:
                await connection.execute(text(change))
        async with database.snapshot() as connection:
            assert [await _rows_of(connection, table) for table in ("ledger", "journal")] == books
    finally:
        await database.close()


async def _rows_of(connection: AsyncConnection, table: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await connection.execute(text(f"SELECT * FROM {table} ORDER BY id"))]


async def test_postgresql_refuses_to_truncate_the_ledger(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql)
    try:
        await migrate(database)
        with pytest.raises(DBAPIError, match="never changed or removed"):
            async with database.transaction() as connection:
                await connection.execute(text("TRUNCATE ledger"))
    finally:
        await database.close()


async def test_wallets_have_room_for_updates_on_their_page(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql)
    try:
        await migrate(database)
        async with database.snapshot() as connection:
            options = await connection.scalar(text("SELECT reloptions FROM pg_class WHERE relname = 'wallets'"))
        assert options == ["fillfactor=10"]
    finally:
        await database.close()


async def test_an_existing_database_gets_the_storage_settings_of_a_queue(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(upgrade, "0001")
        await migrate(database)
        async with database.snapshot() as connection:
            options = await connection.scalar(text("SELECT reloptions FROM pg_class WHERE relname = 'predictions'"))
        assert "autovacuum_vacuum_scale_factor=0.05" in options
    finally:
        await database.close()
