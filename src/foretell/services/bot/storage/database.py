"""The bot's own database: a SQLite file in the data folder, with one connection in one thread."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from foretell.kit.disk_folders import FOLDERS
from foretell.kit.errors import Unavailable
from foretell.kit.private_folder import keep_private

Returned = TypeVar("Returned")
_Waiting = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]

_BUSY_S = 5.0
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "cache_size = -2000")

#: The migrations from each version to the next; a released one is never changed.
_STEPS = (
    """
    CREATE TABLE chats (
        chat_id INTEGER PRIMARY KEY, language TEXT, heard TEXT, elsewhere INTEGER NOT NULL DEFAULT 0,
        blocked INTEGER NOT NULL DEFAULT 0
    );
    -- Updates that are not handled yet, and the numbers of those that came in the last days.
    CREATE TABLE inbox (
        update_id INTEGER PRIMARY KEY, person_id INTEGER NOT NULL, body BLOB NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX inbox_by_person ON inbox (person_id, update_id);
    CREATE TABLE received (update_id INTEGER PRIMARY KEY, at REAL NOT NULL);
    CREATE INDEX received_by_time ON received (at);
    CREATE TABLE forms (
        chat_id INTEGER NOT NULL, user_id INTEGER NOT NULL, state BLOB NOT NULL, changed_at REAL NOT NULL,
        PRIMARY KEY (chat_id, user_id)
    ) WITHOUT ROWID;
    -- What was asked for in a chat. `key` is the idempotency key; `prediction_id` is null until the app answered.
    CREATE TABLE asked (
        key TEXT PRIMARY KEY, chat_id INTEGER NOT NULL, user_id INTEGER NOT NULL, message_id INTEGER NOT NULL,
        language TEXT NOT NULL, model TEXT NOT NULL, input BLOB NOT NULL, prediction_id TEXT UNIQUE,
        state TEXT NOT NULL, asked_at REAL NOT NULL, look_at REAL NOT NULL, looks INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX asked_open ON asked (state, look_at);
    -- Events to tell; those that were told stay for a while, since they may come again.
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, chat_id INTEGER NOT NULL, type TEXT NOT NULL,
        data BLOB NOT NULL, stored_at REAL NOT NULL, done_at REAL, UNIQUE (event, chat_id)
    );
    CREATE INDEX outbox_waiting ON outbox (chat_id, number) WHERE done_at IS NULL;
    CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL;
    CREATE TABLE payments (
        charge_id TEXT PRIMARY KEY, user_id INTEGER NOT NULL, chat_id INTEGER NOT NULL, stars INTEGER NOT NULL,
        credits INTEGER NOT NULL, counted INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE pages (
        chat_id INTEGER NOT NULL, message_id INTEGER NOT NULL, page INTEGER NOT NULL, cursor TEXT NOT NULL,
        PRIMARY KEY (chat_id, message_id, page)
    ) WITHOUT ROWID;
    """,
    "ALTER TABLE outbox ADD COLUMN account TEXT NOT NULL DEFAULT '';",
    "ALTER TABLE payments ADD COLUMN thanked INTEGER NOT NULL DEFAULT 0;",
    """
    ALTER TABLE inbox ADD COLUMN of_money INTEGER NOT NULL DEFAULT 0;
    DROP INDEX inbox_by_person;
    CREATE INDEX inbox_by_person ON inbox (person_id, of_money DESC, update_id);
    """,
)
#: The schema version of this release.
VERSION = len(_STEPS)


class BotDatabase:
    """Durable to the last commit, because Telegram and the dispatcher do not resend what is confirmed to them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bot-database")
        self._connection: sqlite3.Connection | None = None
        self._waiting: deque[_Waiting] = deque()

    async def open(self) -> None:
        """Create or migrate the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        FOLDERS.watch(self._path.parent)

    def _open(self) -> None:
        keep_private(self._path.parent)
        connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for number, step in enumerate(_STEPS[version:], start=version + 1):
            connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
        self._connection = connection

    async def run(self, work: Callable[[sqlite3.Connection], Returned]) -> Returned:
        """Run `work(connection)` in a transaction, committed unless it raises. Raises `Unavailable`.

        All waiting calls share one commit, because commits are slow; each call has its own savepoint.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Returned] = loop.create_future()
        self._waiting.append((work, done))
        # If an earlier job has already taken this call along, this job finds nothing to do.
        self._thread.submit(self._work_off, loop)
        try:
            return await done
        except sqlite3.OperationalError as error:
            raise Unavailable(part=f"database of the bot ({error})") from error

    def _work_off(self, loop: asyncio.AbstractEventLoop) -> None:
        batch: list[_Waiting] = []
        with suppress(IndexError):
            while True:
                batch.append(self._waiting.popleft())
        if not batch:
            return
        outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        try:
            self._transact(batch, outcomes)
        except BaseException as error:
            # The whole transaction was rolled back.
            outcomes = [(done, None, error) for _, done in batch]
        loop.call_soon_threadsafe(_resolve, outcomes)

    def _transact(
        self, batch: list[_Waiting], outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]
    ) -> None:
        connection = self._connection
        assert connection is not None, "not open"
        connection.execute("BEGIN IMMEDIATE")
        try:
            for work, done in batch:
                connection.execute("SAVEPOINT one")
                try:
                    outcomes.append((done, work(connection), None))
                except Exception as error:
                    connection.execute("ROLLBACK TO one")
                    outcomes.append((done, None, error))
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    async def ping(self) -> None:
        """Raises `Unavailable` when the database can't be used."""
        await self.run(lambda connection: connection.execute("SELECT 1").fetchone())

    async def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            FOLDERS.forget(self._path.parent)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=True)


def _resolve(outcomes: list[tuple["asyncio.Future[Any]", Any, BaseException | None]]) -> None:
    for done, value, error in outcomes:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
