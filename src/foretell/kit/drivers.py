"""Direct access to the two databases for the hot statements, and the classification of their errors."""

import asyncio
import errno
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeVar

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from foretell.kit import connections
from foretell.kit.disk_folders import FOLDERS
from foretell.kit.errors import MayBeDone, Misconfigured, NoRoom, Unavailable
from foretell.kit.postgresql_address import Connector

log = structlog.get_logger()

Returned = TypeVar("Returned")

#: On a healthy database no statement takes this long. The server ends a longer one (`statement_timeout`) and reports
#: it, so the statement had no effect.
STATEMENT_TIMEOUT_S = 4.0
#: A working server reports that within this time. Otherwise it hangs, is unreachable, or waits for a synchronous
#: standby, and the outcome of the statement is unknown.
ANSWER_MARGIN_S = 0.5
CONNECT_TIMEOUT_S = 4.0
_CLOSE_TIMEOUT_S = 0.5


# Exceptions of the drivers when the database is unreachable, restarting, full or too slow, or closes the connection.
_AWAY: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    OperationalError,
    InterfaceError,
    PoolTimeout,
    sqlite3.OperationalError,
    asyncpg.InterfaceError,
    # "Cannot switch to state ...": a statement was sent just when the server announced that it closes the connection.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
)


def is_away(error: BaseException) -> bool:
    """Whether `error` means that the database is unreachable or can't work now, rather than a wrong statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        # SQLite's general error: a missing table, an invalid statement.
        return False
    if isinstance(error, DBAPIError) and not isinstance(error, (OperationalError, InterfaceError)):
        return error.connection_invalidated or isinstance(error.orig and error.orig.__cause__, _AWAY)
    return isinstance(error, _AWAY)


def is_refusal(error: BaseException) -> bool:
    """Whether the server reports that it did not execute the statement, not only that the connection ends."""
    cause = _as_raised(error)
    return isinstance(cause, asyncpg.PostgresError) and getattr(cause, "severity_en", None) == "ERROR"


def is_read_only(error: BaseException) -> bool:
    """Whether a write was sent to a read-only server: a standby, or a primary that became one."""
    return isinstance(_as_raised(error), asyncpg.ReadOnlySQLTransactionError)


def _as_raised(error: BaseException) -> BaseException | None:
    """The driver's error, without SQLAlchemy's wrapper."""
    return error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else error


def unavailable(error: BaseException, *, may_be_done: bool = False) -> Unavailable:
    """The error for callers if `is_away(error)`; `error` itself is only logged."""
    reason = f"{type(error).__name__}: {error}"[:300]
    log.warning("database_unavailable", reason=reason, outcome="unknown" if may_be_done else "not_done")
    if may_be_done:
        return MayBeDone(part="database")
    return NoRoom(part="database") if _says_no_room(error) else Unavailable(part="database")


def _says_no_room(error: BaseException) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(cause, sqlite3.Error):
        # SQLite reports other errors, too, if a file beside the database can't be created or can't grow.
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or FOLDERS.full() is not None
    return isinstance(cause, asyncpg.DiskFullError) or isinstance(
        getattr(cause, "__cause__", None), asyncpg.DiskFullError
    )


# Planning a hot statement takes longer than running it, so it is planned once. A plan made for an empty table must not
# read whole tables, because they grow by thousands of rows a second.
_HOT_SETTINGS = {"jit": "off", "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}


#: The pooler in front of PostgreSQL: none, or one such as PgBouncer that assigns a connection for one transaction.
Pooler = Literal["", "transaction"]


def at_start(session: dict[str, str], pooler: Pooler) -> dict[str, str]:
    """The session settings to send when a connection is opened; a pooler accepts no others."""
    return {"application_name": session["application_name"]} if pooler else session


def in_transaction(session: dict[str, str]) -> str:
    """The statement that sets the other session settings for one transaction."""
    # TCP settings apply to the connection between the pooler and the server, so they are not ours.
    left_out = {"application_name", *SERVER_NOTICES}
    calls = ", ".join(
        f"set_config('{name}', '{value}', true)" for name, value in session.items() if name not in left_out
    )
    return f"SELECT {calls}"


def is_pooler(error: BaseException) -> bool:
    """Whether a pooler that is not configured refuses the session settings."""
    cause = _as_raised(error)
    return isinstance(cause, asyncpg.ProtocolViolationError) and "startup parameter" in str(cause)


def pooler_unknown() -> Misconfigured:
    """The error for this case."""
    return Misconfigured(
        "FORETELL_DATABASE_URL leads to a pooler such as PgBouncer, which does not pass on the settings of a session: "
        "set FORETELL_DATABASE_POOLER=transaction."
    )


async def _leave_session(connection: Any) -> None:
    """Do nothing: sessions have nothing to reset."""


#: After so long without an answer from the other machine a connection breaks, idle or not. By default TCP waits for
#: 15 minutes, or two hours when idle. Meanwhile a server that is back would seem unreachable, and the server
#: would keep connections and their locks for clients that are gone.
_CUT_OFF_AFTER_S = 15
_FIRST_PROBE_S, _PROBE_EVERY_S = 5, 5
#: The same at the server's end, as settings of a session. Over a Unix socket it ignores them.
SERVER_NOTICES = {
    "tcp_keepalives_idle": str(_FIRST_PROBE_S),
    "tcp_keepalives_interval": str(_PROBE_EVERY_S),
    "tcp_keepalives_count": str((_CUT_OFF_AFTER_S - _FIRST_PROBE_S) // _PROBE_EVERY_S),
    "tcp_user_timeout": str(_CUT_OFF_AFTER_S * 1000),
}


def _break_when_cut_off(connected: socket.socket) -> None:
    if connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _FIRST_PROBE_S),
        ("TCP_KEEPINTVL", _PROBE_EVERY_S),
        ("TCP_KEEPCNT", (_CUT_OFF_AFTER_S - _FIRST_PROBE_S) // _PROBE_EVERY_S),
        ("TCP_USER_TIMEOUT", _CUT_OFF_AFTER_S * 1000),
    ):
        # macOS has not all of them.
        option = getattr(socket, name, None)
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


class PostgresqlConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that breaks when its server is unreachable, and closes quickly."""

    def __init__(self, protocol: Any, transport: Any, *details: Any) -> None:
        super().__init__(protocol, transport, *details)
        _break_when_cut_off(transport.get_extra_info("socket"))

    async def close(self, *, timeout: float | None = None) -> None:
        """As asyncpg's. A running statement is canceled in the server.

        The time-out is short, because a user may be waiting.
        """
        await super().close(timeout=timeout and min(timeout, _CLOSE_TIMEOUT_S))


class PostgresqlDriver:
    """A small asyncpg pool for the hot statements.

    If a server does not answer, the connection keeps its place in the pool until it does or the connection breaks. So
    the server never has more than `size` connections. Canceling the statement would not help: the server ends
    statements itself. The only exception is a commit that waits for a synchronous standby; if that were canceled, the
    commit would be visible although it is on one machine only.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        size: int,
        session: dict[str, str],
        statement_timeout_s: float,
        pooler: Pooler = "",
    ) -> None:
        """`session` are settings of every connection. With a `pooler`, each `run` is a separate transaction."""
        self._connector = connector
        self._size = size
        self._session = session | _HOT_SETTINGS
        self._pooler: Pooler = pooler
        self._acquire_within_s = min(statement_timeout_s, CONNECT_TIMEOUT_S)
        self._answer_within_s = statement_timeout_s + ANSWER_MARGIN_S
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._working: set[asyncio.Task[Any]] = set()

    async def _opened(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    connect=self._connector.connect,
                    min_size=1,
                    max_size=self._size,
                    connection_class=PostgresqlConnection,
                    server_settings=at_start(self._session, self._pooler),
                    **({"statement_cache_size": 0} if self._pooler else {}),
                    # asyncpg would send a statement after each use to reset the session. Ours change
                    # nothing, so this saves a round trip per batch.
                    reset=_leave_session,
                )
            return self._pool

    async def run(self, work: Callable[[Any], Awaitable[Returned]]) -> Returned:
        """Run `work(connection)`: one statement, or one transaction.

        Raises `Unavailable` if the database is unreachable or refuses, and `MayBeDone` if the outcome is unknown.
        Cancelling the caller does not stop the work.
        """
        try:
            async with asyncio.timeout(self._acquire_within_s):
                pool = self._pool or await self._opened()
                asked_at = perf_counter()
                connection = await pool.acquire()
                connections.waited_since(asked_at)
        except Exception as error:
            if is_away(error):
                raise unavailable(error) from error
            raise
        if self._pooler:
            work = partial(_in_transaction, in_transaction(self._session), work)
        working = asyncio.create_task(_work(pool, connection, work))
        self._working.add(working)
        working.add_done_callback(self._worked)
        await asyncio.wait({working}, timeout=self._answer_within_s)
        if not working.done():
            raise unavailable(TimeoutError("the server does not answer"), may_be_done=True)
        return working.result()

    def _worked(self, working: "asyncio.Task[Any]") -> None:
        self._working.discard(working)
        if not working.cancelled():
            # Read the exception, so that asyncio does not warn if no caller waits any more.
            working.exception()

    def in_use_and_idle(self) -> tuple[int, int]:
        """How many are in use and how many idle."""
        if self._pool is None:
            return 0, 0
        idle = self._pool.get_idle_size()
        return self._pool.get_size() - idle, idle

    async def close(self) -> None:
        """Close the pool without waiting for an unreachable database."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(2):
                    await self._pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._pool.terminate()


async def _in_transaction(settings: str, work: Callable[[Any], Awaitable[Returned]], connection: Any) -> Returned:
    async with connection.transaction():
        await connection.execute(settings)
        return await work(connection)


async def _work(pool: asyncpg.Pool, connection: Any, work: Callable[[Any], Awaitable[Returned]]) -> Returned:
    try:
        return await work(connection)
    except BaseException as error:
        away, refused = is_away(error) or is_read_only(error), is_refusal(error)
        if is_read_only(error) or (not refused and (away or not isinstance(error, Exception))):
            # Its state is unknown, or another server is needed. If it is closed already, asyncpg raises an error.
            with suppress(asyncpg.InterfaceError):
                connection.terminate()
        if away:
            raise unavailable(error, may_be_done=not refused) from error
        raise
    finally:
        await pool.release(connection)


class SqliteDriver:
    """One connection in one thread for the hot statements; every call is one `BEGIN IMMEDIATE` transaction."""

    def __init__(self, path: Path, *, pragmas: Iterable[str], statement_timeout_s: float) -> None:
        """`pragmas` prepare the connection. `statement_timeout_s` is the longest wait for a lock of another process."""
        self._path = path
        self._pragmas = tuple(pragmas)
        self._busy_s = min(statement_timeout_s, STATEMENT_TIMEOUT_S)
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
        # IMMEDIATE, because upgrading a read transaction to a write fails at once, whatever the busy timeout.
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
        connection = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
        try:
            for pragma in self._pragmas:
                connection.execute(pragma)
        except BaseException:
            # Without all pragmas it would give weaker guarantees than the others.
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
