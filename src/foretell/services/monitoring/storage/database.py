"""The database of the monitoring service: separate from the product's, with one writer at a time on SQLite."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.database import Database
from foretell.kit.drivers import PostgresqlDriver, SqliteDriver
from foretell.kit.errors import Unavailable
from foretell.services.monitoring.settings import MonitoringSettings

Returned = TypeVar("Returned")


class MonitoringDatabase(Database):
    """A database in the schema `monitoring` (on PostgreSQL); a power failure may lose the last commits.

    On SQLite, writers take turns here in order of arrival. SQLite itself lets waiting writers retry at random, so that
    under load some would wait forever. Transactions must be short, because ingestion waits for them.

    Raises `Unavailable` until its tables exist (`migrations/run.py`).
    """

    def __init__(self, settings: MonitoringSettings) -> None:
        super().__init__(
            settings.monitoring_database_url,
            application="foretell-monitoring",
            pooler=settings.database_pooler,
            schema=settings.schema_name,
            durable=False,
        )
        self._turn = asyncio.Lock()
        self._open = False

    def open(self) -> None:
        """Allow transactions: the tables exist."""
        self._open = True

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable(part="database, whose tables are not there yet")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Like `Database.transaction`; on SQLite in turn with all other writers."""
        self._check_open()
        if self.dialect != "sqlite":
            async with super().transaction() as connection:
                yield connection
            return
        async with self._turn, super().transaction() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Like `Database.snapshot`."""
        self._check_open()
        async with super().snapshot() as connection:
            yield connection

    async def write_sqlite(self, work: Callable[[sqlite3.Connection], Returned]) -> Returned:
        """Run `work(connection)` in a transaction on the writing connection, in turn. Raises `Unavailable`."""
        assert isinstance(self.driver, SqliteDriver)
        self._check_open()
        async with self._turn:
            return await self.driver.run(work)

    async def write_postgresql(self, work: Callable[[Any], Awaitable[Returned]]) -> Returned:
        """Run `work(connection)` on a connection of the driver. Raises `Unavailable`."""
        assert isinstance(self.driver, PostgresqlDriver)
        self._check_open()
        return await self.driver.run(work)
