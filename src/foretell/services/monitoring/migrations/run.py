"""Migrates the monitoring service's database to the schema of this release."""

import asyncio
from pathlib import Path

from foretell.kit.drivers import STATEMENT_TIMEOUT_S
from foretell.kit.migrations import Migrations
from foretell.services.monitoring.storage.database import MonitoringDatabase

#: Every revision in `versions/`, oldest first; the last is what the code needs.
REVISIONS = ("0001", "0002", "0003")


#: The lock is "monitor" in ASCII.
_migrations = Migrations(Path(__file__).parent, REVISIONS, lock=int.from_bytes(b"monitor"), schema="monitoring")

upgrade = _migrations.upgrade


async def migrate(database: MonitoringDatabase) -> None:
    """Create or upgrade the tables, then open the database. Raises `Misconfigured`, `Unavailable`."""
    plain = database.with_statement_timeout(STATEMENT_TIMEOUT_S)
    try:
        await _migrations.migrate(plain)
    finally:
        await plain.close()
    database.open()


async def migrate_when_possible(database: MonitoringDatabase, stopping: asyncio.Event) -> None:
    """`migrate`; retry while the database is unavailable, until `stopping` is set. Raises `Misconfigured`."""
    plain = database.with_statement_timeout(STATEMENT_TIMEOUT_S)
    try:
        await _migrations.migrate_when_possible(plain, stopping)
    finally:
        await plain.close()
    database.open()
