"""Databases on a PostgreSQL server: new ones, copies of a migrated one, and some that tests use in turn."""

import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy.engine import make_url

from tests.asides import Aside, run_aside

#: Whoever changes what is in a database, except for rows, changes one of these: a row of a catalog is never changed in
#: place but by statistics, which are looked at, too.
_CATALOGS = (
    "pg_attrdef",
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_extension",
    "pg_index",
    "pg_namespace",
    "pg_proc",
    "pg_rewrite",
    "pg_sequence",
    "pg_statistic_ext",
    "pg_trigger",
    "pg_type",
)
_SHAPE = " UNION ALL ".join(
    [
        *(f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM {name}" for name in _CATALOGS),
        "SELECT 'measured', count(*), sum(greatest(reltuples, 0))::bigint FROM pg_class WHERE oid >= 16384",
        # Those of the catalogs PostgreSQL may renew at any time, also in the template.
        "SELECT 'statistics', count(*), max(xmin::text::bigint) FROM pg_statistic WHERE starelid >= 16384",
        "SELECT 'settings', count(*), 0 FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
        " WHERE d.datname = current_database()",
    ]
)
_TABLES = (
    "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
)
_SEQUENCES = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
_LET_NOBODY_ELSE_IN = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid()"
)
#: What has grown by more is large, and slow to use.
_GROWTH_BYTES = 8 * 1024**2


@contextmanager
def new_postgresql(server_url: str, template: str | None = None) -> Iterator[str]:
    """The URL of a new database, empty or a copy of `template`, that is gone afterwards."""
    url = run_aside(_create(server_url, template))
    try:
        yield url
    finally:
        run_aside(_drop(server_url, url))


@contextmanager
def postgresql_template(server_url: str, migrate: Callable[[str], Coroutine[Any, Any, None]]) -> Iterator[str]:
    """The name of a migrated database that others are copied from, which takes no longer than making empty ones."""
    with new_postgresql(server_url) as url:
        run_aside(migrate(url))
        name = make_url(url).database
        assert name is not None
        # Whoever is connected, be it PostgreSQL's own housekeeping, would be in the way of a copy.
        run_aside(_execute(server_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        yield name


class DatabasePool:
    """Copies of one database on a server, each of them for one test at a time, which finds it as that database is.

    To empty one takes a small part of the time of making one: a copy, even of a database without rows, is a thousand
    files. Where a test has changed anything but rows, its copy is dropped.
    """

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url = server_url
        self._template = template
        self._aside = Aside()
        self._free: list[_Copy] = []
        self._original: _Original | None = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a database that is as new."""
        copy = self._free.pop() if self._free else self._aside.run(self._copy())
        try:
            yield copy.url
        finally:
            assert self._original is not None
            if self._aside.run(_is_as_new(copy.connection, self._original)):
                self._free.append(copy)
            else:
                self._drop(copy)

    def close(self) -> None:
        """Drop all of them."""
        while self._free:
            self._drop(self._free.pop())
        self._aside.close()

    async def _copy(self) -> "_Copy":
        url = await _create(self._server_url, self._template)
        connection = await asyncpg.connect(url, timeout=30, command_timeout=30)
        if self._original is None:
            self._original = await _look(connection)
        return _Copy(url, connection)

    def _drop(self, copy: "_Copy") -> None:
        self._aside.run(copy.connection.close(timeout=30))
        self._aside.run(_drop(self._server_url, copy.url))


@dataclass(frozen=True)
class _Copy:
    """A database, and our connection to it, which stays: it knows the tables already when it empties them again."""

    url: str
    connection: Any


@dataclass(frozen=True)
class _Original:
    """How a copy is before anybody has used it."""

    shape: list[Any]
    size_bytes: int
    #: Digests of the tables in which the migrations left something.
    rows: dict[str, str]
    empty: list[str]
    sequences: list[Any]


async def _create(server_url: str, template: str | None) -> str:
    name = f"foretell_test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server_url, timeout=10)
    try:
        copied = f"TEMPLATE {template}" if template else ""
        if template and connection.get_server_version() >= (15,):
            # The other way, which is usual since then, writes all of it to the log first.
            copied += " STRATEGY FILE_COPY"
        await connection.execute(f"CREATE DATABASE {name} {copied}")
    finally:
        await connection.close()
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


async def _drop(server_url: str, url: str) -> None:
    await _execute(server_url, f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _look(connection: Any) -> _Original:
    rows: dict[str, str] = {}
    empty = []
    for table in [row[0] for row in await connection.fetch(_TABLES)]:
        digest = await _digest(connection, table)
        if digest is None:
            empty.append(table)
        else:
            rows[table] = digest
    sequences = await connection.fetch(_SEQUENCES)
    return _Original(await connection.fetch(_SHAPE), await _size(connection), rows, empty, sequences)


async def _is_as_new(connection: Any, original: _Original) -> bool:
    """Empty it, and return whether it is as it was; not if somebody has changed more than rows in empty tables."""
    try:
        await connection.fetch(_LET_NOBODY_ELSE_IN)
        if (
            await _size(connection) > original.size_bytes + _GROWTH_BYTES
            or await connection.fetch(_SHAPE) != original.shape
        ):
            return False
        # Triggers keep rows of the ledger from being deleted; this is the one who may.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("; ".join(f"DELETE FROM {table}" for table in original.empty))
        await connection.execute("SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence")
        left = {table: await _digest(connection, table) for table in original.rows}
        return left == original.rows and await connection.fetch(_SEQUENCES) == original.sequences
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False


async def _digest(connection: Any, table: str) -> str | None:
    found: str | None = await connection.fetchval(
        f"SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM {table} t"
    )
    return found


async def _size(connection: Any) -> int:
    return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
