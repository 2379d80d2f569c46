"""Migrates a database to the tables of this release."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.database import Database
from foretell.kit.errors import Misconfigured, Unavailable

log = structlog.get_logger()

# A table of millions of rows may take long, and so may another process that migrates first.
_TIMEOUT_S = 1800.0
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Migrations:
    """The migrations of one set of tables.

    `folder` is Alembic's: `env.py` and `versions/`. `revisions` are all of them, oldest first; the code needs the
    last one. They are listed here so that a start without new migrations need not import Alembic. The process with
    PostgreSQL's advisory lock `lock` migrates. `version_table` has the revision of a database. `schema` (PostgreSQL
    only) is created if necessary; the search path of the connections must contain it.
    """

    folder: Path
    revisions: tuple[str, ...]
    lock: int
    version_table: str = "alembic_version"
    schema: str | None = None

    async def migrate(self, database: Database) -> None:
        """Create or upgrade the tables; quick when there is nothing to do.

        Any number of processes may call this at once: one migrates, in one transaction, the others wait. Raises
        `Misconfigured` if the database is newer than the code, `Unavailable` if it is unreachable.
        """
        await database.check_session()
        async with database.snapshot() as connection:
            if await self._is_current(connection):
                return
        patient = database.with_statement_timeout(_TIMEOUT_S)
        try:
            async with patient.transaction() as connection:
                # On SQLite, the transaction itself excludes others.
                if connection.dialect.name == "postgresql":
                    await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self.lock})")
                    if self.schema is not None:
                        await connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {self.schema}")
                if not await self._is_current(connection):
                    await connection.run_sync(self.upgrade, "head")
                    log.info("database_migrated", revision=self.revisions[-1])
        finally:
            await patient.close()

    async def migrate_when_possible(self, database: Database, stopping: asyncio.Event) -> None:
        """`migrate`, but waits for an unreachable database until it answers or `stopping` is set.

        Raises `Misconfigured`.
        """
        while not stopping.is_set():
            try:
                await self.migrate(database)
            except Unavailable as error:
                log.warning("migration_postponed", reason=error.message)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _is_current(self, connection: AsyncConnection) -> bool:
        """Whether there is nothing to do. Raises `Misconfigured` for an unknown revision."""
        exists = (
            f"SELECT to_regclass('{self.version_table}') IS NOT NULL"
            if connection.dialect.name == "postgresql"
            else f"SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{self.version_table}'"  # noqa: S608
        )
        if not (await connection.exec_driver_sql(exists)).scalar():
            return False
        revision = (
            await connection.exec_driver_sql(f"SELECT version_num FROM {self.version_table}")  # noqa: S608
        ).scalar()
        if revision is not None and revision not in self.revisions:
            raise Misconfigured(
                f"The database is at revision {revision}, which this release of Foretell does not know (it needs "
                f"{self.revisions[-1]}): a newer release has upgraded it. Run that release, or restore the backup made "
                "before."
            )
        return revision == self.revisions[-1]

    def upgrade(self, connection: Connection, revision: str) -> None:
        """Upgrade to `revision` ("head": the newest) within the transaction that is open on `connection`."""
        # Imported here, because it takes half a second that most starts do not need.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(self.folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        config.attributes["version_table"] = self.version_table
        command.upgrade(config, revision)
