"""Copies SQLite files while other processes write them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from foretell.kit.errors import ForetellError

#: Pages that are copied between two reports of progress: some megabytes.
_PAGES = 1024
_BUSY_S = 10.0

#: Called with the copied and the total bytes.
Told = Callable[[int, int], None]


class Damaged(ForetellError):
    """{path} is damaged: {reason}."""

    code = "damaged"


class InUse(ForetellError):
    """{path} is in use by another process. Stop Foretell first (foretell down), and whatever else has it open."""

    code = "in_use"


class Snapshot:
    """A snapshot of a SQLite file, held while it is copied. It does not block writers."""

    def __init__(self, path: Path) -> None:
        """Takes the snapshot now. Raises `Damaged`."""
        self.path = path
        # mode=rw, so that a missing file is not created.
        uri = f"{path.as_uri()}?mode=rw"
        self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            # In an open transaction the copy does not start again when another process writes.
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise Damaged(path=path, reason=error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._connection.close()

    @property
    def bytes(self) -> int:
        """The size of the copy."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    def copy(self, target: Path, told: Told = lambda *_: None) -> None:
        """Write the snapshot to a new file. Raises `sqlite3.Error`, and `Damaged` if the copy is damaged."""
        size = self.bytes
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            # The copy is not used before it is complete, so it needs no journal.
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            self._connection.backup(
                copy,
                pages=_PAGES,
                progress=lambda _, left, total: told(size * (total - left) // max(total, 1), size),
            )
        self._connection.execute("COMMIT")
        check(target)


def check(path: Path) -> None:
    """Raises `Damaged` for an inconsistent SQLite file."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            # Without a log beside it, the file is complete.
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        raise Damaged(path=path, reason=error) from error
    if said != "ok":
        raise Damaged(path=path, reason=said)


def make_whole(path: Path) -> None:
    """Write the log beside a SQLite file into the file, and check that no other process has it open.

    Raises `InUse`. A damaged file is left unchanged: it may be the reason for the restore.
    """
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
        try:
            # Succeeds only without other users: in WAL mode every process that has the file open holds a lock.
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InUse(path=path) from error
            return
        if mode != "delete":
            raise InUse(path=path)
