"""The two ways straight to a database, for the hot statements, and what it means that it is away."""

import asyncio
import errno
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from foretell.kit import connections
from foretell.kit.disk import FOLDERS
from foretell.kit.errors import NoRoom, Unavailable

log = structlog.get_logger()

Returned = TypeVar("Returned")

#: No statement of ours takes this long on a healthy database; a longer one means that it is stuck or gone.
STATEMENT_TIMEOUT_S = 4.0
_SQLITE_BUSY_S = 4.0


# What the drivers raise when the database is away, restarting, full, too slow, or drops us.
_AWAY: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    OperationalError,
    InterfaceError,
    PoolTimeout,
    sqlite3.OperationalError,
    asyncpg.InterfaceError,
    # "Cannot switch to state ...": a statement was sent just when the server told us that it closes the connection.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
)


def is_away(error: BaseException) -> bool:
    """Whether `error` says that the database can't be reached or can't work now, not that we asked for nonsense."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        # SQLite's general error: a table that is not there, a statement that it can't read.
        return False
    if isinstance(error, DBAPIError) and not isinstance(error, (OperationalError, InterfaceError)):
        return error.connection_invalidated or isinstance(error.orig and error.orig.__cause__, _AWAY)
    return isinstance(error, _AWAY)


def unavailable(error: BaseException) -> Unavailable:
    """What callers are told of an error that `is_away`; the error itself goes to the log."""
    log.warning("database_unavailable", reason=f"{type(error).__name__}: {error}"[:300])
    return NoRoom(part="database") if _says_no_room(error) else Unavailable(part="database")


def _says_no_room(error: BaseException) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(cause, sqlite3.Error):
        # SQLite has other words, too, where a file beside the database can't be made or can't grow.
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or FOLDERS.full() is not None
    return isinstance(cause, asyncpg.DiskFullError) or isinstance(
        getattr(cause, "__cause__", None), asyncpg.DiskFullError
    )


# Planning a hot statement anew takes longer than running it, and a plan made for an empty table must not be one that
# reads whole tables: they grow by thousands of rows a second.
_HOT_SETTINGS = {"jit": "off", "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}


async def _leave_session(connection: Any) -> None:
    """Nothing to undo."""


class PostgresqlDriver:
    """A small asyncpg pool for the hot statements."""

    def __init__(self, url: str, *, size: int, session: dict[str, str]) -> None:
        """`session` are settings of every connection."""
        self._url = url
        self._size = size
        self._session = session
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def _opened(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=self._size,
                    timeout=STATEMENT_TIMEOUT_S,
                    server_settings={**self._session, **_HOT_SETTINGS},
                    # asyncpg would send a statement after each use to undo what sessions can change. Ours change
                    # nothing, and it is a round trip per batch.
                    reset=_leave_session,
                )
            return self._pool

    async def run(self, work: Callable[[Any], Awaitable[Returned]]) -> Returned:
        """Run `work(connection)`, each of whose statements is a transaction of its own.

        Raises `Unavailable` when the database is away or does not answer within `STATEMENT_TIMEOUT_S`.
        """
        connection = None
        pool = self._pool
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                if pool is None:
                    pool = await self._opened()
                asked_at = perf_counter()
                connection = await pool.acquire()
                connections.waited_since(asked_at)
                return await work(connection)
        except BaseException as error:
            if connection is not None and (is_away(error) or isinstance(error, asyncio.CancelledError)):
                # Its state is unknown, and asking politely may hang as the statement did.
                # A connection that the server closed under us is out of our hands already, and says so.
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()
            if is_away(error):
                raise unavailable(error) from error
            raise
        finally:
            if connection is not None and pool is not None:
                await pool.release(connection)

    def in_use_and_idle(self) -> tuple[int, int]:
        """How many are in use and how many idle."""
        if self._pool is None:
            return 0, 0
        idle = self._pool.get_idle_size()
        return self._pool.get_size() - idle, idle

    async def close(self) -> None:
        """Close the pool, not waiting for a database that is away."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(2):
                    await self._pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._pool.terminate()


class SqliteDriver:
    """One connection in one thread for the hot statements; every call is one `BEGIN IMMEDIATE` transaction."""

    def __init__(self, path: Path, *, pragmas: Iterable[str]) -> None:
        """`pragmas` prepare the connection."""
        self._path = path
        self._pragmas = tuple(pragmas)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._working = False

    async def run(self, work: Callable[[sqlite3.Connection], Returned]) -> Returned:
        """Run `work(connection)` in a transaction, committed unless it raises. Raises `Unavailable` as above."""
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._in_transaction, work, perf_counter())
        except sqlite3.OperationalError as error:
            if is_away(error):
                raise unavailable(error) from error
            raise

    def _in_transaction(self, work: Callable[[sqlite3.Connection], Returned], asked_at: float) -> Returned:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connections.waited_since(asked_at)
        self._working = True
        # IMMEDIATE, because a read transaction that turns into a write fails at once whatever the busy timeout is.
        connection.execute("BEGIN IMMEDIATE")
        try:
            returned = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            self._working = False
        return returned

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_SQLITE_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            for pragma in self._pragmas:
                connection.execute(pragma)
        except BaseException:
            # Half prepared, it would keep fewer promises than the others.
            connection.close()
            raise
        return connection

    def in_use_and_idle(self) -> tuple[int, int]:
        """How many are in use and how many idle."""
        if self._connection is None:
            return 0, 0
        return (1, 0) if self._working else (0, 1)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=True)
