"""A database, PostgreSQL or SQLite, and the two ways to access it.

`transaction()` and `snapshot()` give a SQLAlchemy connection, for everything but the hot path. The hot statements use
the driver directly: `PostgresqlDriver` (an asyncpg pool) or `SqliteDriver` (one connection in one thread).
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Interval,
    MetaData,
    Table,
    any_,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeDecorator, TypeEngine

from foretell.kit import connections, deadline
from foretell.kit.clock import now
from foretell.kit.disk_folders import FOLDERS
from foretell.kit.drivers import (
    CONNECT_TIMEOUT_S,
    STATEMENT_TIMEOUT_S,
    Pooler,
    PostgresqlDriver,
    SqliteDriver,
    is_away,
    is_pooler,
    is_read_only,
    is_refusal,
    pooler_unknown,
    unavailable,
)
from foretell.kit.engines import postgresql_engine, postgresql_session, sqlite_engine, sqlite_pragmas
from foretell.kit.postgresql_address import Connector, read_postgresql_url
from foretell.kit.sqlite_address import sqlite_path

#: All tables of the product. Constraints have the same names on both databases, so that migrations can find them.
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


#: The limit of a transaction, as a multiple of the statement time-out: long transactions have many statements.
_STATEMENTS = 5
#: How long returning a connection may take, and the least time for a commit, after the deadline.
_END_TIMEOUT_S = 1.0


async def server_time(connection: AsyncConnection) -> datetime:
    """The time of the database's clock; for SQLite, which has none, that of this process."""
    if connection.dialect.name == "sqlite":
        return now()
    moment: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return moment


def server_clock(connection: AsyncConnection, ahead: timedelta = timedelta()) -> ColumnElement[Any]:
    """The same as a part of a statement, which saves a round trip; plus `ahead`, if given."""
    if connection.dialect.name == "sqlite":
        return literal(now() + ahead, Moment())
    # Constant within a statement, so that an index can be used; `clock_timestamp` is not.
    at = func.statement_timestamp(type_=DateTime(timezone=True))
    return at + literal(ahead, Interval()) if ahead else at


def is_among(connection: AsyncConnection, column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
    """Whether `column` is one of many `values`; for lists that are long, or of another length each time.

    On PostgreSQL they are one parameter. With `in_`, each length is another statement, which must be prepared again.
    """
    if connection.dialect.name == "sqlite":
        return column.in_(values)
    return column == any_(literal(list(values), ARRAY(column.type)))


async def insert_many(
    connection: AsyncConnection, table: Table, rows: Sequence[Sequence[Any]], names: Sequence[str]
) -> None:
    """Insert rows of values of the columns `names`.

    On PostgreSQL this is one statement with an array for each column; `executemany` would run one for each row. On
    SQLite the values are converted here, which takes half as long as a dictionary for each row.
    """
    columns = [table.c[name] for name in names]
    if connection.dialect.name == "sqlite":
        by_column = list(zip(*rows, strict=True))
        for place, column in enumerate(columns):
            convert = column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
            if convert is not None:
                by_column[place] = tuple(map(convert, by_column[place]))
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
        await connection.exec_driver_sql(statement, list(zip(*by_column, strict=True)))
        return
    arrays = [
        literal(list(values), ARRAY(column.type))
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    given = func.unnest(*arrays).table_valued(*names).render_derived()
    await connection.execute(insert(table).from_select(names, select(*(given.c[name] for name in names))))


class Database:
    """One database and a process's connections to it."""

    def __init__(
        self,
        url: str,
        *,
        application: str = "foretell",
        pool_size: int = 5,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        transaction_timeout_s: float | None = None,
        pooler: Pooler = "",
        schema: str | None = None,
        durable: bool = True,
    ) -> None:
        """`url` is `postgresql://…` or `sqlite:///PATH` (three slashes: relative). Connects at first use.

        A statement that takes longer than `statement_timeout_s` is ended, on PostgreSQL by the server. A transaction on
        PostgreSQL that takes longer than `transaction_timeout_s`, including the wait for its connection, is not
        committed; the default is a multiple of `statement_timeout_s`. `pooler`: the pooler in front of PostgreSQL.
        `schema`: the schema of the tables on PostgreSQL; SQLite has no schemas. Without `durable`, commits do not wait
        for the disk: a power failure may lose the last ones, a killed process loses none.
        """
        self._url = url
        self._application = application
        self._schema = schema
        self._durable = durable
        self._pooler: Pooler = pooler
        self._folder: Path | None = None
        self._transaction_timeout_s = transaction_timeout_s or _STATEMENTS * statement_timeout_s
        self._ending: set[asyncio.Task[None]] = set()
        self.driver: PostgresqlDriver | SqliteDriver
        self.engine: AsyncEngine
        if url.startswith("sqlite:"):
            path = sqlite_path(url)
            self.dialect = "sqlite"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = path.parent
            FOLDERS.watch(path.parent)
            pragmas = sqlite_pragmas(durable)
            self.engine = sqlite_engine(path, pragmas, statement_timeout_s)
            self.driver = SqliteDriver(path, pragmas=pragmas, statement_timeout_s=statement_timeout_s)
        else:
            self.dialect = "postgresql"
            session = postgresql_session(application, schema, durable, statement_timeout_s)
            connector = Connector(read_postgresql_url(url), min(statement_timeout_s, CONNECT_TIMEOUT_S))
            self.engine = postgresql_engine(connector, session, pool_size, pooler)
            self.driver = PostgresqlDriver(
                connector, size=pool_size, session=session, statement_timeout_s=statement_timeout_s, pooler=pooler
            )
        connections.count(self)

    def with_statement_timeout(self, statement_timeout_s: float) -> "Database":
        """The same database with another time-out, for reports and migrations. The caller must close it."""
        return Database(
            self._url,
            application=self._application,
            pool_size=1,
            statement_timeout_s=statement_timeout_s,
            pooler=self._pooler,
            schema=self._schema,
            durable=self._durable,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end, rolled back on an exception.

        Raises `Unavailable`, and `MayBeDone` if it is unknown whether it was committed. Cancelling the caller during
        the commit does not stop the commit.
        """
        until = self._deadline()
        connection = await self._connect(until)
        try:
            async with asyncio.timeout_at(until):
                await connection.begin()
                yield connection
        except BaseException as error:
            await self._give_up(connection, error, writes=True)
            raise
        committing = self._in_background(self._commit(connection))
        await asyncio.wait({committing}, timeout=self._left_s(until))
        if not committing.done():
            # The statement keeps its connection: see `PostgresqlDriver`.
            raise unavailable(TimeoutError("the server does not answer a commit"), may_be_done=True)
        failure = committing.exception()
        if failure is not None:
            if is_away(failure):
                raise unavailable(failure, may_be_done=not is_refusal(failure)) from failure
            raise failure

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction that sees one snapshot. Raises `Unavailable`."""
        options: dict[str, Any] = {"foretell_reads_only": True}
        if self.dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        until = self._deadline()
        connection = await self._connect(until)
        try:
            async with asyncio.timeout_at(until):
                yield await connection.execution_options(**options)
        except BaseException as error:
            await self._give_up(connection, error, writes=False)
            raise
        await asyncio.shield(self._in_background(self._close(connection)))

    def _deadline(self) -> float | None:
        """The deadline of a transaction that begins now. Raises `Unavailable` if it has passed (`kit/deadline.py`)."""
        now_s, allowed_until = asyncio.get_running_loop().time(), deadline.until()
        if allowed_until is not None and now_s >= allowed_until:
            raise unavailable(TimeoutError("what was asked before took all the time of the request"))
        # SQLite always answers, and its thread can't be interrupted.
        if self.dialect == "sqlite":
            return None
        own = now_s + self._transaction_timeout_s
        return own if allowed_until is None else min(own, allowed_until)

    @staticmethod
    def _left_s(until: float | None) -> float | None:
        return None if until is None else max(until - asyncio.get_running_loop().time(), _END_TIMEOUT_S)

    async def _connect(self, until: float | None) -> AsyncConnection:
        asked_at = perf_counter()
        try:
            async with asyncio.timeout_at(until):
                connection = await self.engine.connect()
        except Exception as error:
            if is_pooler(error):
                raise pooler_unknown() from error
            if is_away(error):
                raise unavailable(error) from error
            raise
        connections.waited_since(asked_at)
        return connection

    async def _commit(self, connection: AsyncConnection) -> None:
        committed = False
        try:
            await connection.commit()
            committed = True
        finally:
            # On SQLite, a transaction whose commit failed is still open.
            await self._close(connection, discard=not committed)

    async def _give_up(self, connection: AsyncConnection, error: BaseException, *, writes: bool) -> None:
        """Return the connection of a transaction that failed before its commit. Raises `Unavailable` if appropriate."""
        wrote_to_reader = writes and is_read_only(error)
        await asyncio.shield(self._in_background(self._close(connection, discard=wrote_to_reader)))
        if wrote_to_reader or is_away(error):
            raise unavailable(error) from error

    async def _close(self, connection: AsyncConnection, *, discard: bool = False) -> None:
        try:
            async with asyncio.timeout(None if self.dialect == "sqlite" else _END_TIMEOUT_S):
                if discard:
                    await connection.invalidate()
                await connection.close()
        except Exception as error:
            # Then it is closed instead of returned to the pool, and the next caller gets a new one.
            if not is_away(error):
                raise

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._ending.discard(task)
        if not task.cancelled():
            # Read the exception, so that asyncio does not warn if no caller waits any more.
            task.exception()

    async def ping(self) -> None:
        """Run an empty query. Raises `Unavailable`."""
        async with self.snapshot() as connection:
            await connection.exec_driver_sql("SELECT 1")

    async def check_session(self) -> None:
        """Raises `Misconfigured` if a pooler in front of PostgreSQL drops our settings; `Unavailable`."""
        if self.dialect == "postgresql":
            async with self.snapshot() as connection:
                if await connection.scalar(text("SELECT current_setting('plan_cache_mode')")) != "force_custom_plan":
                    raise pooler_unknown()

    def in_use_and_idle(self) -> tuple[int, int]:
        """The numbers of used and of idle connections."""
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
