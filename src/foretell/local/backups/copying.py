"""Copies of SQLite files that other processes write meanwhile."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from foretell.kit.errors import ForetellError

#: Pages that are copied between two words of progress: some megabytes.
_PAGES = 1024
_BUSY_S = 10.0

#: Hears how many of how many bytes are done.
Told = Callable[[int, int], None]


class Damaged(ForetellError):
    """{path} is damaged: {reason}."""

    code = "damaged"


class InUse(ForetellError):
    """{path} is in use by another process. Stop Foretell first (foretell down), and whatever else has it open."""

    code = "in_use"


class Snapshot:
    """One moment of a SQLite file, held while it is copied. Nobody who writes has to wait for it."""

    def __init__(self, path: Path) -> None:
        """The moment is now. Raises `Damaged`."""
        self.path = path
        # mode=rw: a file that is not there must not be made.
        uri = f"{path.as_uri()}?mode=rw"
        self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            # In a transaction that is held, the copy never has to begin anew because somebody wrote.
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
        """How large the copy will be."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    def copy(self, target: Path, told: Told = lambda *_: None) -> None:
        """Write this moment to a new file. Raises `sqlite3.Error`, `Damaged` for what was copied."""
        size = self.bytes
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            # Nobody sees it before it is whole.
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
    """Raises `Damaged` for a SQLite file that does not hang together."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            # Nothing beside the file: what is read is all in it.
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        raise Damaged(path=path, reason=error) from error
    if said != "ok":
        raise Damaged(path=path, reason=said)


def make_whole(path: Path) -> None:
    """Bring what stands in the log beside a SQLite file into the file, and prove that nobody else has it open.

    Raises `InUse`. A damaged file stays as it is: it may be why somebody restores a backup.
    """
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
        try:
            # Granted only to who is alone: in the mode of a log, whoever has the file open holds a lock on it.
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InUse(path=path) from error
            return
        if mode != "delete":
            raise InUse(path=path)
