"""The two ways straight to a database, for the hot statements, and what it means that it is away."""

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

#: No statement of ours takes this long on a healthy database; a longer one means that it is stuck or gone. The server
#: itself ends it then (`statement_timeout`), and says so: it was not done.
STATEMENT_TIMEOUT_S = 4.0
#: A server that works says that within this time. One that says nothing stands still, or is not to be reached, or
#: waits for a synchronous standby; then nobody can know what became of the statement.
ANSWER_MARGIN_S = 0.5
CONNECT_TIMEOUT_S = 4.0
_CLOSE_TIMEOUT_S = 0.5


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


def is_refusal(error: BaseException) -> bool:
    """Whether the server itself says that it did not do the statement, and not merely that the connection ends."""
    cause = _as_raised(error)
    return isinstance(cause, asyncpg.PostgresError) and getattr(cause, "severity_en", None) == "ERROR"


def is_read_only(error: BaseException) -> bool:
    """Whether a write came to a server that only reads: a standby, or a primary that became one."""
    return isinstance(_as_raised(error), asyncpg.ReadOnlySQLTransactionError)


def _as_raised(error: BaseException) -> BaseException | None:
    """The driver's own error, without what SQLAlchemy wraps around it."""
    return error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else error


def unavailable(error: BaseException, *, may_be_done: bool = False) -> Unavailable:
    """What callers are told of an error that `is_away`; the error itself goes to the log."""
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
        # SQLite has other words, too, where a file beside the database can't be made or can't grow.
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or FOLDERS.full() is not None
    return isinstance(cause, asyncpg.DiskFullError) or isinstance(
        getattr(cause, "__cause__", None), asyncpg.DiskFullError
    )


# Planning a hot statement anew takes longer than running it, and a plan made for an empty table must not be one that
# reads whole tables: they grow by thousands of rows a second.
_HOT_SETTINGS = {"jit": "off", "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}


#: What stands between us and PostgreSQL and lends its connections: nothing, or one such as PgBouncer that does so for a
#: transaction at a time.
Pooler = Literal["", "transaction"]


def at_start(session: dict[str, str], pooler: Pooler) -> dict[str, str]:
    """What of the settings of a session a new connection may be told; a pooler takes nothing else."""
    return {"application_name": session["application_name"]} if pooler else session


def in_transaction(session: dict[str, str]) -> str:
    """The statement that sets the rest of it, for one transaction."""
    # Those of TCP are a matter between the pooler and the server.
    left_out = {"application_name", *SERVER_NOTICES}
    calls = ", ".join(
        f"set_config('{name}', '{value}', true)" for name, value in session.items() if name not in left_out
    )
    return f"SELECT {calls}"


def is_pooler(error: BaseException) -> bool:
    """Whether a pooler that we were not told of refuses the settings of a session."""
    cause = _as_raised(error)
    return isinstance(cause, asyncpg.ProtocolViolationError) and "startup parameter" in str(cause)


def pooler_unknown() -> Misconfigured:
    """What to raise for it."""
    return Misconfigured(
        "FORETELL_DATABASE_URL leads to a pooler such as PgBouncer, which does not pass on the settings of a session: "
        "set FORETELL_DATABASE_POOLER=transaction."
    )


async def _leave_session(connection: Any) -> None:
    """Nothing to undo."""


#: How long a connection lives on without a sign of life from the other machine, idle or not. Left to itself, TCP waits
#: for a quarter of an hour, or for two when it was idle: so long a server that is back would seem to be away, and the
#: server would keep connections, and what is locked in them, for clients that are gone.
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
    """One that breaks when its server is not to be reached, and never takes long to close."""

    def __init__(self, protocol: Any, transport: Any, *details: Any) -> None:
        super().__init__(protocol, transport, *details)
        _break_when_cut_off(transport.get_extra_info("socket"))

    async def close(self, *, timeout: float | None = None) -> None:
        """As asyncpg's. A statement that is under way is canceled in the server.

        Whoever closes in haste has a user waiting.
        """
        await super().close(timeout=timeout and min(timeout, _CLOSE_TIMEOUT_S))


class PostgresqlDriver:
    """A small asyncpg pool for the hot statements.

    A connection whose server does not answer keeps its place in the pool until it does or the connection breaks: so
    there are never more than `size` in the server, whatever they wait for there. To cancel the statement would be no
    help: the server does that itself in time. All that it lets go on is the wait of a commit for a synchronous
    standby, and one that is canceled there is committed on one machine alone, for everybody to see.
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
        """`session` are settings of every connection. With a `pooler`, each `run` is a transaction of its own."""
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
                    # asyncpg would send a statement after each use to undo what sessions can change. Ours change
                    # nothing, and it is a round trip per batch.
                    reset=_leave_session,
                )
            return self._pool

    async def run(self, work: Callable[[Any], Awaitable[Returned]]) -> Returned:
        """Run `work(connection)`: one statement, or one transaction.

        Raises `Unavailable` when the database is away or refuses, and `MayBeDone` when it does not say. A caller who
        is cancelled gives up only the answer: what the server was asked for is done to its end.
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
            # Nobody may be left who waits for it; that is no reason for a warning.
            working.exception()

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
            # Its state is unknown, or another server is wanted now. One that was closed under us says so, and is gone.
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
        """`pragmas` prepare the connection. So long it waits for a lock that another process has on the file."""
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
        connection = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
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
