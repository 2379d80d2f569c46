"""The embedded database as the source of a move: locked against writes, and changes between attempts are detected."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Date, Integer, LargeBinary, Table, Text, Uuid
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.database import Moment
from foretell.kit.engines import sqlite_engine
from foretell.local.backups.copying import InUse, make_whole

#: Time limit of an audit.
_PATIENCE_S = 1800.0
_CHANGE_COUNTER = slice(24, 28)
#: Format of rows for `COPY`: CSV with tabs between values, this quote around all texts, and this text for NULL.
#: Texts hardly ever contain these characters, so almost nothing must be escaped.
QUOTE, NULL = "\x01", "\x02"


@contextmanager
def held(path: Path) -> Iterator[str]:
    """Inside, no process can write to the file; reading is possible. Yields a fingerprint of its content.

    Raises `InUse`.
    """
    make_whole(path)
    with closing(sqlite3.connect(path, timeout=1.0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise InUse(path=path) from error
        with path.open("rb") as stream:
            counter = int.from_bytes(stream.read(100)[_CHANGE_COUNTER])
        found = path.stat()
        yield f"{path} {found.st_size} {found.st_mtime_ns} {counter}"
        connection.execute("ROLLBACK")


@asynccontextmanager
async def opened_for_audit(path: Path) -> AsyncIterator[AsyncConnection]:
    """A snapshot of the file that does not change it, not even its journal mode."""
    engine = sqlite_engine(path, ("PRAGMA query_only = ON", "PRAGMA cache_size = -64000"), _PATIENCE_S)
    try:
        async with engine.connect() as connection:
            yield await connection.execution_options(foretell_reads_only=True)
    finally:
        await engine.dispose()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table."""

    lines: bytes
    count: int
    #: SQLite's rowid of the last of them.
    last: int


class Rows:
    """The rows of one table in rowid order. For one thread at a time.

    SQLite itself formats the lines, because creating millions of Python objects takes several times as long.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # One call that formats a line takes half the time of joining its parts.
        places = "\t".join(f"{QUOTE}%s{QUOTE}" if is_text(column) else "%s" for column in table.columns)
        line = f"printf('{places}', {', '.join(map(_written, table.columns))})"
        self._query = f'SELECT rowid, {line} FROM "{table.name}" WHERE rowid > ? ORDER BY rowid LIMIT ?'  # noqa: S608
        self.count = int(self._connection.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()[0])  # noqa: S608

    def after(self, last: int, limit: int) -> Chunk:
        """Up to `limit` rows with a rowid above `last`."""
        found: list[tuple[int, str]] = self._connection.execute(self._query, (last, limit)).fetchall()
        lines = "".join(f"{line}\n" for _, line in found)
        return Chunk(lines.encode(), len(found), found[-1][0] if found else last)

    def close(self) -> None:
        self._connection.close()


def _written(column: Column[Any]) -> str:
    """The SQL that formats a value of this column for `COPY`."""
    name, kind = f'"{column.name}"', column.type
    # On SQLite, a UUID is 32 hexadecimal digits, a truth value 0 or 1, and a day 2026-01-31.
    if isinstance(kind, Uuid | Boolean | Integer | Date):
        written = name
    elif isinstance(kind, Moment):
        # Microseconds since 1970.
        written = f"datetime({name} / 1000000, 'unixepoch') || '.' || substr('000000' || {name}, -6) || '+00'"
    elif isinstance(kind, LargeBinary):
        written = f"'\\x' || hex({name})"
    elif is_text(column):
        # A text ends at a NUL, which PostgreSQL does not support and the API refuses.
        written = f"replace({name}, '{QUOTE}', '{QUOTE}{QUOTE}')"
    else:
        raise TypeError(f"nobody said how to move {column} of type {kind!r}")
    if str(column) == "predictions.published_at":
        # Queued predictions must be published again, because the new installation may use another broker.
        written = f"CASE WHEN status = 'queued' THEN NULL ELSE {written} END"
    return f"coalesce({written}, '{NULL}')"


def is_text(column: Column[Any]) -> bool:
    """Whether values of this column are quoted."""
    return isinstance(column.type, Text | JSON)
