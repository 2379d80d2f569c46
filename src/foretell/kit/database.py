"""A database, PostgreSQL or SQLite, and the two ways to it.

`transaction()` and `snapshot()` give a SQLAlchemy connection: for everything but the hot path. The hot statements go
straight to the driver: `PostgresqlDriver` (an asyncpg pool) or `SqliteDriver` (one connection in one thread).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import aiosqlite
from sqlalchemy import BigInteger, DateTime, MetaData, event, func, select
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeDecorator, TypeEngine

from foretell.kit import connections
from foretell.kit.clock import now
from foretell.kit.disk import FOLDERS
from foretell.kit.drivers import STATEMENT_TIMEOUT_S, PostgresqlDriver, SqliteDriver, is_away, unavailable
from foretell.kit.errors import Misconfigured

#: Every table of the product hangs on this, named alike on both databases so that migrations can find constraints.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """`moment` as SQLite stores it: whole microseconds since 1970, UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The aware moment, in UTC, of a number of microseconds since 1970."""
    return _EPOCH + microseconds * _MICROSECOND


class Moment(TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` on PostgreSQL, microseconds since 1970 on SQLite, which has no such type."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return to_microseconds(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = from_microseconds(value) if dialect.name == "sqlite" else value
        return moment


# Everything else is planned for its parameters: after five runs, PostgreSQL would take a plan that fits any status,
# and the sweeps would read every prediction ever made instead of the index of the few that are queued.
_OTHER_SETTINGS = {"jit": "off", "plan_cache_mode": "force_custom_plan"}


def _sqlite_pragmas(durable: bool) -> tuple[str, ...]:
    return (
        "PRAGMA journal_mode=WAL",
        # FULL: what was answered with 202 must outlive a power cut, not only a killed process.
        f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}",
        "PRAGMA foreign_keys=ON",
        "PRAGMA cache_size=-16000",
        "PRAGMA temp_store=MEMORY",
        # Few large checkpoints instead of many small ones; and a log that once was long gives its room back.
        *(() if durable else ("PRAGMA wal_autocheckpoint=4000", "PRAGMA journal_size_limit=33554432")),
    )


def _postgresql_session(application: str, schema: str | None, durable: bool) -> dict[str, str]:
    session = {"application_name": application}
    if schema is not None:
        session["search_path"] = schema
    if not durable:
        session["synchronous_commit"] = "off"
    return session


async def server_time(connection: AsyncConnection) -> datetime:
    """What the database's own clock says; on SQLite, which has none, that of this process."""
    if connection.dialect.name == "sqlite":
        return now()
    moment: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return moment


class Database:
    """One database and a process's connections to it."""

    def __init__(
        self,
        url: str,
        *,
        application: str = "foretell",
        pool_size: int = 5,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        schema: str | None = None,
        durable: bool = True,
    ) -> None:
        """`url` is `postgresql://…` or `sqlite:///PATH` (three slashes: relative). Connects at first use.

        `statement_timeout_s` is for long reports; what a user waits for keeps the default. `schema`: where on
        PostgreSQL the tables are; SQLite has no schemas. Not `durable`: a power cut may cost the last commits, a
        killed process none, and commits wait for no disk.
        """
        self._url = url
        self._application = application
        self._schema = schema
        self._durable = durable
        self._folder: Path | None = None
        try:
            parsed = make_url(url.replace("postgres://", "postgresql://", 1))
        except ArgumentError:
            # Without the URL: it may hold a password.
            raise Misconfigured("FORETELL_DATABASE_URL is no URL: postgresql://… or sqlite:///PATH is needed") from None
        self.driver: PostgresqlDriver | SqliteDriver
        self.engine: AsyncEngine
        session = _postgresql_session(application, schema, durable)
        if parsed.drivername == "postgresql":
            self.dialect = "postgresql"
            self.engine = create_async_engine(
                parsed.set(drivername="postgresql+asyncpg"),
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_timeout=STATEMENT_TIMEOUT_S,
                pool_pre_ping=True,
                # An error's text must not show passwords' hashes and inputs: errors are logged.
                hide_parameters=True,
                connect_args={
                    "timeout": STATEMENT_TIMEOUT_S,
                    "command_timeout": statement_timeout_s,
                    "server_settings": {**session, **_OTHER_SETTINGS},
                },
            )
            address = parsed.render_as_string(hide_password=False)
            self.driver = PostgresqlDriver(address, size=pool_size, session=session)
        elif parsed.drivername == "sqlite" and parsed.database:
            self.dialect = "sqlite"
            path = Path(parsed.database)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = path.parent
            FOLDERS.watch(path.parent)
            pragmas = _sqlite_pragmas(durable)
            self.engine = create_async_engine(
                parsed.set(drivername="sqlite+aiosqlite"),
                pool_timeout=STATEMENT_TIMEOUT_S,
                hide_parameters=True,
                async_creator=partial(_open_sqlite, path, pragmas, statement_timeout_s),
            )
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
            self.driver = SqliteDriver(path, pragmas=pragmas)
        else:
            raise Misconfigured(
                f"FORETELL_DATABASE_URL must be postgresql://… or sqlite:///PATH, not {parsed.drivername}://…"
            )
        connections.count(self)

    def with_statement_timeout(self, statement_timeout_s: float) -> "Database":
        """The same database, for reports and migrations that may take longer. To be closed by the caller."""
        return Database(
            self._url,
            application=self._application,
            pool_size=1,
            statement_timeout_s=statement_timeout_s,
            schema=self._schema,
            durable=self._durable,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end, rolled back on an exception. Raises `Unavailable`."""
        try:
            asked_at = perf_counter()
            async with self.engine.connect() as connection:
                connections.waited_since(asked_at)
                async with connection.begin():
                    yield connection
        except Exception as error:
            if is_away(error):
                raise unavailable(error) from error
            raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, and sees one moment throughout. Raises `Unavailable`."""
        options: dict[str, Any] = {"foretell_reads_only": True}
        if self.dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        try:
            asked_at = perf_counter()
            async with self.engine.connect() as connection:
                connections.waited_since(asked_at)
                yield await connection.execution_options(**options)
        except Exception as error:
            if is_away(error):
                raise unavailable(error) from error
            raise

    async def ping(self) -> None:
        """Ask for nothing. Raises `Unavailable`."""
        async with self.snapshot() as connection:
            await connection.exec_driver_sql("SELECT 1")

    def in_use_and_idle(self) -> tuple[int, int]:
        """How many are in use and how many idle."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        in_use, idle = self.driver.in_use_and_idle()
        return in_use + pool.checkedout(), idle + pool.checkedin()

    async def close(self) -> None:
        """Close every connection."""
        connections.forget(self)
        if self._folder is not None:
            FOLDERS.forget(self._folder)
            self._folder = None
        await self.driver.close()
        await self.engine.dispose()


async def _open_sqlite(path: Path, pragmas: Iterable[str], timeout_s: float) -> aiosqlite.Connection:
    # The driver must not open transactions of its own accord: `_begin_sqlite` does.
    connection = aiosqlite.connect(path, timeout=timeout_s, isolation_level=None)
    # As SQLAlchemy would set it: a process that ends waits for no connection.
    thread = connection._thread
    thread.daemon = True

    async def open_and_prepare() -> None:
        await connection
        await connection.executescript(";".join(pragmas))

    opening = asyncio.create_task(open_and_prepare())
    try:
        await asyncio.shield(opening)
    except BaseException:
        # Whole or not at all. The thread ends with a word to the event loop, which must not be closed by then.
        await asyncio.wait([opening])
        connection.stop()
        await asyncio.to_thread(thread.join)
        raise
    return connection


def _begin_sqlite(connection: Any) -> None:
    reads_only = connection.get_execution_options().get("foretell_reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
