"""Connections to SQLite for SQLAlchemy, whose statements each take one call of the connection's thread.

aiosqlite makes one call to open a cursor, one to execute, one to fetch and one to close it, and each call wakes two
threads. That took more processor time than the statements themselves.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import aiosqlite

_ROWS_AT_ONCE = 64


class SqliteCallConnection(aiosqlite.Connection):
    """A connection whose cursors need one call for each statement. All rows are fetched, as SQLAlchemy does anyway."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, _ROWS_AT_ONCE)
        #: Whether the caller of a call was cancelled: then nobody knows what the thread is doing.
        self._abandoned = False

    async def _execute(self, fn: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        before, self._abandoned = self._abandoned, True
        try:
            returned = await super()._execute(fn, *arguments, **options)  # type: ignore[no-untyped-call]
        except Exception:
            self._abandoned = before
            raise
        # The calls of a connection are made in order, so every earlier one has ended, too.
        self._abandoned = False
        return returned

    async def rollback(self) -> None:
        """Roll back; without a call if there is certainly no transaction, as after a commit."""
        if self._abandoned or self._conn.in_transaction:
            await super().rollback()

    def cursor(self) -> "_Cursor":  # type: ignore[override]
        """A cursor that SQLAlchemy can use. It needs no closing."""
        return _Cursor(self)

    async def run(self, method: str, operation: str, parameters: Any) -> "tuple[Any, int, int | None, list[Any]]":
        """Run a statement with a cursor of its own, and return what SQLAlchemy wants to know of that cursor."""
        outcome: tuple[Any, int, int | None, list[Any]] = await self._execute(
            _run, self._conn, method, operation, parameters
        )
        return outcome


def _run(
    connection: sqlite3.Connection, method: str, operation: str, parameters: Any
) -> tuple[Any, int, int | None, list[Any]]:
    cursor = connection.cursor()
    try:
        getattr(cursor, method)(operation, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, cursor.rowcount, cursor.lastrowid, rows
    finally:
        cursor.close()


class _Cursor:
    """As a cursor of aiosqlite, as far as SQLAlchemy uses it."""

    def __init__(self, connection: SqliteCallConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> "_Cursor":
        return self

    async def execute(self, operation: str, parameters: Iterable[Any] = ()) -> "_Cursor":
        return await self._run("execute", operation, parameters)

    async def executemany(self, operation: str, parameters: Iterable[Iterable[Any]]) -> "_Cursor":
        return await self._run("executemany", operation, parameters)

    async def _run(self, method: str, operation: str, parameters: Any) -> "_Cursor":
        outcome = await self._connection.run(method, operation, parameters)
        self.description, self.rowcount, self.lastrowid, self._rows = outcome
        return self

    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []
