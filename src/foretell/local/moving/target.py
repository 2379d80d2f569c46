"""The PostgreSQL database that an installation moves to.

All tables are filled in a separate schema, which no service reads, and are renamed in one transaction at the
end, so that a partial installation is never visible. Each chunk of rows is one transaction together with the progress,
so that a killed move continues where it ended.
"""

import io
from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy import Table

from foretell.domain.migrations.run import migrate
from foretell.domain.migrations.schema import metadata
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError
from foretell.kit.postgresql_address import Connector, read_postgresql_url
from foretell.local.moving.source import NULL, QUOTE, Chunk, is_text

SCHEMA = "foretell_moving"
_POSITIONS = f"{SCHEMA}.moving_tables"
_INDEXES = f"{SCHEMA}.moving_indexes"
_CONNECT_S = 10.0
_PATIENCE_S = 1800.0
#: Prefix of the comment that records a finished move.
_MARK = "Moved by foretell migrate: "
#: Alembic's table.
_VERSIONS = "alembic_version"
#: Tables with one row, which a start creates.
_OF_A_START = frozenset(("telegram_bot", "usage_progress"))


class TargetNotEmpty(ForetellError):
    """There are {tables} with rows in that database already. Move to an empty one. Nothing was changed."""

    code = "target_not_empty"


class WrongEncoding(ForetellError):
    """That database has the encoding {encoding}, and Foretell needs UTF8. Make another one: CREATE DATABASE NAME ENCODING 'UTF8' TEMPLATE template0. Nothing was changed."""  # noqa: E501

    code = "wrong_encoding"


class MovedMeanwhile(ForetellError):
    """Another foretell migrate is at work on that database. Let it end."""

    code = "moved_meanwhile"


class NotWhole(ForetellError):
    """{table} has {found} rows in PostgreSQL and {expected} here. Nothing was switched; run the command again."""

    code = "not_whole"


def tables() -> list[Table]:
    """Every table of the product; referenced tables come first."""
    return list(metadata.sorted_tables)


class Target:
    """One connection to the database, and the steps of a move there."""

    def __init__(self, url: str, connection: Any, schema: str) -> None:
        self._url = url
        self._connection = connection
        #: The final schema of the tables: the one that the services of this user read.
        self._schema = schema

    @classmethod
    async def connect(cls, url: str) -> "Target":
        """Raises errors of asyncpg and the system; `Misconfigured` for an invalid URL."""
        connector = Connector(read_postgresql_url(url), _CONNECT_S)
        settings = {"application_name": "foretell migrate", "statement_timeout": "0", "jit": "off"}
        connection = await connector.connect(server_settings=settings)
        schema = await connection.fetchval("SELECT current_schema()")
        return cls(url, connection, schema or "public")

    async def close(self) -> None:
        await self._connection.close(timeout=5)

    async def was_moved(self, fingerprint: str) -> bool:
        """Whether exactly this content was moved here before."""
        said = await self._connection.fetchval(
            "SELECT obj_description(to_regclass($1), 'pg_class')", f'"{self._schema}".{_VERSIONS}'
        )
        return bool(said == _MARK + fingerprint)

    async def check_encoding(self) -> None:
        """Raises `WrongEncoding`: other encodings can't store every text, or count its length differently."""
        encoding = await self._connection.fetchval("SHOW server_encoding")
        if encoding != "UTF8":
            raise WrongEncoding(encoding=encoding)

    async def check_empty(self) -> None:
        """Raises `TargetNotEmpty`. Tables without rows, from a start without use, are allowed."""
        filled = []
        for table in tables():
            if table.name not in _OF_A_START and await self._is_there(self._schema, table.name):
                some = f'SELECT EXISTS (SELECT FROM "{self._schema}"."{table.name}")'  # noqa: S608
                if await self._connection.fetchval(some):
                    filled.append(table.name)
        if filled:
            raise TargetNotEmpty(tables=", ".join(filled))

    async def _is_there(self, schema: str, table: str) -> bool:
        return bool(await self._connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f'"{schema}"."{table}"'))

    async def begin(self, fingerprint: str) -> bool:
        """Create the tables, or continue an earlier attempt with the same content; returns whether it continues."""
        there = await self._is_there(SCHEMA, "moving")
        earlier = await self._connection.fetchval(f"SELECT fingerprint FROM {SCHEMA}.moving") if there else None  # noqa: S608
        if earlier == fingerprint:
            return True
        await self._connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
        database = self.database()
        try:
            await migrate(database)
        finally:
            await database.close()
        async with self._connection.transaction():
            await self._connection.execute(
                f"CREATE TABLE {_POSITIONS} (name text PRIMARY KEY, last bigint NOT NULL, rows bigint NOT NULL)"
            )
            for table in tables():
                await self._connection.execute(f"INSERT INTO {_POSITIONS} VALUES ($1, 0, 0)", table.name)  # noqa: S608
            # Indexes are created when all rows are there, which is much faster.
            later = (
                f"SELECT indexname AS name, indexdef AS made FROM pg_indexes WHERE schemaname = '{SCHEMA}'"  # noqa: S608
                f" AND to_regclass('{SCHEMA}.' || quote_ident(indexname)) NOT IN (SELECT conindid FROM pg_constraint)"
            )
            await self._connection.execute(f"CREATE TABLE {_INDEXES} AS {later}")
            for row in await self._connection.fetch(f"SELECT name FROM {_INDEXES}"):  # noqa: S608
                await self._connection.execute(f'DROP INDEX {SCHEMA}."{row["name"]}"')
            # Created last, so that its presence means that everything else exists.
            await self._connection.execute(f"CREATE TABLE {SCHEMA}.moving (fingerprint text NOT NULL)")
            await self._connection.execute(f"INSERT INTO {SCHEMA}.moving VALUES ($1)", fingerprint)  # noqa: S608
        return False

    def database(self) -> Database:
        """The tables that are being filled, for migrations and an audit. The caller must close it."""
        return Database(
            self._url, application="foretell migrate", pool_size=1, statement_timeout_s=_PATIENCE_S, schema=SCHEMA
        )

    async def position(self, table: Table) -> tuple[int, int]:
        """The progress of an earlier attempt with a table: SQLite's rowid of its last row, and the number of rows."""
        query = f"SELECT last, rows FROM {_POSITIONS} WHERE name = $1"  # noqa: S608
        row = await self._connection.fetchrow(query, table.name)
        return row["last"], row["rows"]

    async def add(self, table: Table, last: int, chunk: Chunk) -> None:
        """Add the rows after the rowid `last`. Raises `MovedMeanwhile`."""
        async with self._connection.transaction():
            noted = await self._connection.fetchval(
                f"UPDATE {_POSITIONS} SET last = $3, rows = rows + $4 WHERE name = $1 AND last = $2 RETURNING 1",  # noqa: S608
                table.name,
                last,
                chunk.last,
                chunk.count,
            )
            if not noted:
                raise MovedMeanwhile
            await self._connection.copy_to_table(
                table.name,
                schema_name=SCHEMA,
                columns=[column.name for column in table.columns],
                source=io.BytesIO(chunk.lines),
                format="csv",
                delimiter="\t",
                quote=QUOTE,
                null=NULL,
                force_null=[column.name for column in table.columns if is_text(column)] or None,
                encoding="utf-8",
            )

    async def indexes(self) -> Sequence[tuple[str, str]]:
        """The indexes that are created last: names and statements."""
        rows = await self._connection.fetch(f"SELECT name, made FROM {_INDEXES} ORDER BY name")  # noqa: S608
        return [(row["name"], row["made"].replace(" INDEX ", " INDEX IF NOT EXISTS ", 1)) for row in rows]

    async def make_index(self, statement: str) -> None:
        """Create an index, unless an earlier attempt has."""
        async with self._connection.transaction():
            await self._connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
            await self._connection.execute(statement)

    async def complete(self, table: Table, expected: int) -> None:
        """Set the sequences after the last ids, and update the statistics. Raises `NotWhole`."""
        name = f'{SCHEMA}."{table.name}"'
        found = await self._connection.fetchval(f"SELECT count(*) FROM {name}")  # noqa: S608
        if found != expected:
            raise NotWhole(table=table.name, found=found, expected=expected)
        for column in table.columns:
            sequence = await self._connection.fetchval("SELECT pg_get_serial_sequence($1, $2)", name, column.name)
            if sequence is not None:
                highest = f'SELECT setval($1, max("{column.name}")) FROM {name} HAVING count(*) > 0'  # noqa: S608
                await self._connection.fetchval(highest, sequence)
        await self._connection.execute(f"ANALYZE {name}")

    async def switch(self, fingerprint: str) -> None:
        """Move all tables to the final schema, in one transaction. Raises `TargetNotEmpty`."""
        connection, schema = self._connection, f'"{self._schema}"'
        async with connection.transaction():
            # The lock of the migrations, so that no service creates tables between our check and our commit.
            await connection.execute("SELECT pg_advisory_xact_lock($1)", int.from_bytes(b"foretell"))
            await self.check_empty()
            names = [*(table.name for table in tables()), _VERSIONS]
            functions = await self._functions()
            for name in names:
                await connection.execute(f'DROP TABLE IF EXISTS {schema}."{name}" CASCADE')
            for function in functions:
                await connection.execute(f"DROP FUNCTION IF EXISTS {schema}.{function}")
                await connection.execute(f"ALTER FUNCTION {SCHEMA}.{function} SET SCHEMA {schema}")
            for name in names:
                await connection.execute(f'ALTER TABLE {SCHEMA}."{name}" SET SCHEMA {schema}')
            mark = await connection.fetchval("SELECT quote_literal($1::text)", _MARK + fingerprint)
            await connection.execute(f"COMMENT ON TABLE {schema}.{_VERSIONS} IS {mark}")
            await connection.execute(f"DROP TABLE {SCHEMA}.moving, {_POSITIONS}, {_INDEXES}")
            # Without CASCADE, so that a forgotten table is an error.
            await connection.execute(f"DROP SCHEMA {SCHEMA}")

    async def _functions(self) -> Sequence[str]:
        rows = await self._connection.fetch(
            "SELECT quote_ident(proname) || '(' || pg_get_function_identity_arguments(oid) || ')' AS said"
            " FROM pg_proc WHERE pronamespace = to_regnamespace($1)",
            SCHEMA,
        )
        return [row["said"] for row in rows]


#: Errors that mean that PostgreSQL is unreachable, or refuses.
REFUSALS: tuple[type[Exception], ...] = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
