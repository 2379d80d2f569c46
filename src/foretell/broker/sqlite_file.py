"""The file of the embedded broker: opening, transactions, tables and the write-ahead log.

SQLite is called straight from the event loop. A transaction takes some tens of microseconds, less than a switch to a
thread and back. For that to hold, nothing may block here: SQLite's own busy timeout is zero and waiting for another
process's lock is an `asyncio.sleep`; and the log is copied into the file by a thread, since that waits for the disk.
Writers that outrun that thread wait for it, so that the log stays short on a slow disk, too.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from foretell.broker.port import BrokerUnavailable
from foretell.kit.disk_folders import FOLDERS
from foretell.kit.errors import Misconfigured
from foretell.kit.randomness import RANDOM

Answer = TypeVar("Answer")

SCHEMA_VERSION = 1
OPEN_TIMEOUT_S = 10.0
#: The write-ahead log is copied back into the file when it has grown to this.
LONG_LOG_BYTES = 8 * 1024 * 1024
#: Beyond this, a process that copies writes nothing more until it is done.
MAX_LOG_BYTES = 16 * 1024 * 1024
#: Somebody who stands still while reading keeps the log from being cut. Then it may grow, and for a while nobody waits.
SHORTENING_TIMEOUT_S = 2.0
SHORTENING_PAUSE_S = 5.0
FIRST_PAUSE_S = 0.0005
MAX_PAUSE_S = 0.02

# `message` is narrow and changes with each delivery; the body stands apart, because SQLite writes a row as a whole.
_TABLES = """
CREATE TABLE queue (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    receiver TEXT
);
CREATE INDEX message_ready ON message (queue, id) WHERE receiver IS NULL;
CREATE INDEX message_held ON message (receiver, queue) WHERE receiver IS NOT NULL;
CREATE TABLE payload (
    id INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL,
    headers TEXT,
    body BLOB NOT NULL
);
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    body BLOB NOT NULL,
    published_at REAL NOT NULL
);
CREATE TABLE receiver (
    name TEXT PRIMARY KEY,
    seen_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE listener (
    source TEXT NOT NULL,
    receiver TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (source, receiver, number)
) WITHOUT ROWID;
"""


def path_of(url: str) -> Path:
    """The file that `sqlite:///RELATIVE` or `sqlite:////ABSOLUTE` names. Raises `Misconfigured`."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path == ":memory:":
        raise Misconfigured(f"The embedded broker needs a file: sqlite:///PATH or sqlite:////PATH, not {url}")
    return Path(path).absolute()


class BrokerFile:
    """One process's connection to the file.

    `on_open` is called inside a transaction whenever the file was opened: at first, and again when somebody has
    deleted or replaced it.
    """

    def __init__(self, path: Path, *, on_open: Callable[[sqlite3.Connection], None]) -> None:
        self.path = path
        self.bells = path.with_name(path.name + "-receivers")
        self.healthy = False
        self.closed = False
        self._on_open = on_open
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._log_path = str(path) + "-wal"
        self._shortening: asyncio.Task[None] | None = None
        self._shorten_after = 0.0

    async def open(self) -> None:
        """Open, and make what is missing. Raises `BrokerUnavailable`, and `Misconfigured` when this can never work."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.bells.mkdir(exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"The embedded broker cannot make its folder beside {self.path}: {error}") from error
        FOLDERS.watch(self.path.parent)
        try:
            await self.write(lambda _: None, timeout_s=OPEN_TIMEOUT_S, doing="open")
        except BaseException:
            FOLDERS.forget(self.path.parent)
            raise

    async def close(self) -> None:
        if not self.closed:
            FOLDERS.forget(self.path.parent)
        self.closed = True
        if self._shortening is not None:
            await asyncio.wait([self._shortening])
        self._disconnect()

    def _disconnect(self) -> None:
        self.healthy = False
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def read(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """`work` without a transaction around it. Raises SQLite's errors, `busy` ones among them."""
        return work(self._ready())

    def _write_now(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """`work` in one transaction. Raises SQLite's errors; with `busy` ones, nothing has happened."""
        connection = self._ready()
        try:
            # A transaction that begins by reading and turns to writing fails at once when another one writes.
            connection.execute("BEGIN IMMEDIATE")
            answer = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        return answer

    async def write(self, work: Callable[[sqlite3.Connection], Answer], *, timeout_s: float, doing: str) -> Answer:
        """`work` in one transaction, waiting for those of others. Raises `BrokerUnavailable` within `timeout_s`."""
        if self._shortening is not None and self._log_bytes() > MAX_LOG_BYTES:
            # A long log is no reason to fail: half of the time is left for the work itself.
            begun = asyncio.get_running_loop().time()
            await asyncio.wait([self._shortening], timeout=timeout_s / 2)
            timeout_s -= asyncio.get_running_loop().time() - begun
        answer = await self._patiently(self._write_now, work, timeout_s, doing)
        self.shorten_log_if_long()
        return answer

    async def read_patiently(
        self, work: Callable[[sqlite3.Connection], Answer], *, timeout_s: float, doing: str
    ) -> Answer:
        """`read`, waiting while the file is being recovered. Raises `BrokerUnavailable` within `timeout_s`."""
        return await self._patiently(self.read, work, timeout_s, doing)

    async def _patiently(
        self,
        attempt: Callable[[Callable[[sqlite3.Connection], Answer]], Answer],
        work: Callable[[sqlite3.Connection], Answer],
        timeout_s: float,
        doing: str,
    ) -> Answer:
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                answer = attempt(work)
            except (sqlite3.Error, OSError) as error:
                if not busy(error):
                    if _code(error) == sqlite3.SQLITE_FULL:
                        self.healthy = False
                    else:
                        # Whatever is wrong with the connection (its log deleted, a disk that failed): begin anew.
                        self._disconnect()
                    raise BrokerUnavailable(f"The embedded broker {self.path} failed: {doing}: {error}") from error
            else:
                self.healthy = True
                return answer
            if clock() + pause_s > deadline:
                raise BrokerUnavailable(
                    f"The embedded broker {self.path} was locked by another process for {timeout_s:g} s: {doing}."
                )
            # Two processes that wait for the same lock must not march in step.
            await asyncio.sleep(pause_s * RANDOM.uniform(0.5, 1.5))
            pause_s = min(pause_s * 1.5, MAX_PAUSE_S)

    def shorten_log_if_long(self) -> None:
        """Begin to copy the log into the file, in a thread, when it has grown too long."""
        if self._shortening is not None or self._log_bytes() <= LONG_LOG_BYTES:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._shorten_after and not self.closed:
            self._shortening = loop.create_task(self._shorten_log())

    async def _shorten_log(self) -> None:
        try:
            await asyncio.to_thread(self._copy_log)
        finally:
            self._shortening = None
            if self._log_bytes() > LONG_LOG_BYTES:
                self._shorten_after = asyncio.get_running_loop().time() + SHORTENING_PAUSE_S

    def _log_bytes(self) -> int:
        try:
            return os.stat(self._log_path).st_size
        except OSError:
            return 0

    def _copy_log(self) -> None:
        """Copy the write-ahead log into the file and cut it. Waits for the disk: for a thread, not the event loop."""
        with suppress(sqlite3.Error):
            # mode=rw: a file that somebody deleted a moment ago must not come back empty.
            uri = f"{self.path.as_uri()}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, timeout=SHORTENING_TIMEOUT_S, isolation_level=None)
            try:
                # The bulk goes while others write; only the rest of it keeps them waiting.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.close()

    def _ready(self) -> sqlite3.Connection:
        """The connection, to the file that is there now: somebody may have deleted the one that we knew."""
        if self.closed:
            raise BrokerUnavailable(f"The embedded broker {self.path} is closed.")
        if self._connection is not None:
            try:
                found = os.stat(self.path)
            except FileNotFoundError:
                found = None
            if found is not None and (found.st_dev, found.st_ino) == self._identity:
                return self._connection
            self._disconnect()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.bells.mkdir(exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, cached_statements=64)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        found = os.stat(self.path)
        self._identity = (found.st_dev, found.st_ino)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._check_owner(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        # A commit survives the death of every process, and may be lost with the power. That costs a delay only: what
        # matters stands in the database, and the dispatcher publishes again what nobody has answered.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone() == (0,):
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._on_open(connection)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _check_owner(self, connection: sqlite3.Connection) -> None:
        """Refuse a file of somebody else before anything is changed in it."""
        try:
            # Both at the same moment: between two looks, another process may make the tables.
            connection.execute("BEGIN")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if _code(error) == sqlite3.SQLITE_NOTADB:
                raise Misconfigured(f"{self.path} is not the file of an embedded broker.") from error
            raise
        if version not in (0, SCHEMA_VERSION):
            raise Misconfigured(f"{self.path} is of another version of Foretell: stop all services and delete it.")
        if tables and not version:
            raise Misconfigured(f"{self.path} is a database of something else: the embedded broker needs its own file.")


def busy(error: Exception) -> bool:
    """Whether another process holds a lock that it will let go of."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def _code(error: Exception) -> int | None:
    """SQLite's primary result code; None for errors that are not SQLite's."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
