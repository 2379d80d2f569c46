"""The monitoring service's tables: as the metadata has them, in a place of their own, never from a newer release."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from foretell.domain.migrations.run import migrate as migrate_domain
from foretell.kit.database import Database
from foretell.kit.errors import Misconfigured, Unavailable
from foretell.services.monitoring.migrations import run
from foretell.services.monitoring.migrations.run import REVISIONS, migrate
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.tables import monitoring


@pytest.fixture
async def empty(empty_database_url: str, tmp_path: Path) -> AsyncIterator[MonitoringDatabase]:
    """A database without tables."""
    database = MonitoringDatabase(MonitoringSettings(monitoring_database_url=empty_database_url, data_dir=tmp_path))
    yield database
    await database.close()


async def test_the_migrated_tables_are_those_of_the_metadata(empty: MonitoringDatabase, tmp_path: Path) -> None:
    await migrate(empty)

    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection), monitoring)

    async with empty.snapshot() as connection:
        assert await connection.run_sync(differences) == []
        migrated = await _definitions(connection, "monitoring")
    # Alembic knows neither the conditions of partial indexes nor an empty default.
    if empty.dialect == "postgresql":
        async with empty.transaction() as connection:
            await connection.execute(text("CREATE SCHEMA made"))
            await connection.execute(text("SET LOCAL search_path TO made"))
            await connection.run_sync(monitoring.create_all)
            made = await _definitions(connection, "made")
    else:
        other = Database(f"sqlite:///{tmp_path / 'made.db'}")
        async with other.transaction() as connection:
            await connection.run_sync(monitoring.create_all)
            made = await _definitions(connection, "made")
        await other.close()
    assert migrated == made
    assert len(made) > 40


async def _definitions(connection: Any, schema: str) -> set[str]:
    if connection.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
        statements = [row[0] for row in await connection.execute(text(query))]
        return {
            # The order of the parts of a CREATE TABLE is not what is compared.
            part.strip(" ,)")
            for statement in statements
            if "alembic_version" not in statement
            # A column that came later stands on the line of the one before.
            for part in re.split(r"\n|, (?=\w+ [A-Z])", re.sub(r"[ \t]+", " ", statement))
            if part.strip(" ,)")
        }
    queries = (
        "SELECT indexdef FROM pg_indexes WHERE schemaname = :schema",
        "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = (:schema)::regnamespace",
        "SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) "
        "FROM information_schema.columns WHERE table_schema = :schema",
    )
    found = {row[0] for query in queries for row in await connection.execute(text(query), {"schema": schema})}
    return {line.replace(f"{schema}.", "") for line in found if "alembic_version" not in line}


async def test_it_is_closed_until_it_has_tables(empty: MonitoringDatabase) -> None:
    with pytest.raises(Unavailable):
        await empty.ping()
    with pytest.raises(Unavailable):
        async with empty.transaction():
            raise AssertionError("there are no tables")
    await migrate(empty)
    await empty.ping()


async def test_it_stands_beside_the_products_tables_and_touches_none(
    empty: MonitoringDatabase, empty_database_url: str
) -> None:
    if empty.dialect == "sqlite":
        pytest.skip("On SQLite it has a file of its own.")
    product = Database(empty_database_url)
    try:
        await migrate_domain(product)
        await asyncio.gather(migrate(empty), migrate(empty))
        await migrate_domain(product)

        def names(connection: Connection, schema: str) -> set[str]:
            return set(inspect(connection).get_table_names(schema))

        async with product.snapshot() as connection:
            assert await connection.run_sync(names, "monitoring") == {*monitoring.tables, "alembic_version"}
            assert await connection.run_sync(names, "public") & set(monitoring.tables) == set()
    finally:
        await product.close()


async def test_a_newer_database_is_refused(empty: MonitoringDatabase) -> None:
    await migrate(empty)
    async with empty.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match="9999"):
        await migrate(empty)


def test_the_list_of_revisions_is_that_of_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(run.__file__).parent))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    assert tuple(reversed([revision.revision for revision in script.walk_revisions()])) == REVISIONS
