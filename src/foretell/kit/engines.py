"""SQLAlchemy engines for PostgreSQL and SQLite, and the settings of their sessions."""

import asyncio
import sqlite3
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from foretell.kit.drivers import (
    CONNECT_TIMEOUT_S,
    SERVER_NOTICES,
    Pooler,
    PostgresqlConnection,
    at_start,
    in_transaction,
)
from foretell.kit.fingerprints import SqliteConnection
from foretell.kit.postgresql_address import Connector
from foretell.kit.sqlite_calls import SqliteCallConnection

# All other statements are planned for their parameters. After five runs PostgreSQL would switch to a generic plan for
# any status, and the sweeps would read all predictions instead of the index of the queued ones.
_OTHER_SETTINGS = {"jit": "off", "plan_cache_mode": "force_custom_plan"}
#: Our transactions wait only for the database. An idle transaction belongs to a process that hangs or is cut off, and
#: its locks may block others.
_IDLE_TIMEOUT_S = 10.0


def postgresql_session(
    application: str, schema: str | None, durable: bool, statement_timeout_s: float
) -> dict[str, str]:
    """The settings of every session on PostgreSQL, hot or not."""
    session = {
        "application_name": application,
        "statement_timeout": str(round(statement_timeout_s * 1000)),
        "idle_in_transaction_session_timeout": str(round(max(_IDLE_TIMEOUT_S, statement_timeout_s) * 1000)),
        **SERVER_NOTICES,
    }
    if schema is not None:
        session["search_path"] = schema
    if not durable:
        session["synchronous_commit"] = "off"
    return session


def postgresql_engine(connector: Connector, session: dict[str, str], pool_size: int, pooler: Pooler) -> AsyncEngine:
    """For everything but the hot path."""
    session = session | _OTHER_SETTINGS
    arguments: dict[str, Any] = {"async_creator_fn": connector.connect, "connection_class": PostgresqlConnection}
    if pooler:
        # The next transaction may use another server connection, where the statement is not prepared.
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        arguments["prepared_statement_name_func"] = str
    engine = create_async_engine(
        "postgresql+asyncpg://",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        # Errors are logged, so their texts must not contain password hashes and inputs.
        hide_parameters=True,
        connect_args=arguments | {"server_settings": at_start(session, pooler)},
    )
    if pooler:
        settings = in_transaction(session)
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(settings))
    return engine


def sqlite_pragmas(durable: bool) -> tuple[str, ...]:
    """The PRAGMA statements at the start of a connection to SQLite."""
    return (
        "PRAGMA journal_mode=WAL",
        # FULL: predictions that were answered with 202 must survive a power failure, not only a killed process.
        f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}",
        "PRAGMA foreign_keys=ON",
        "PRAGMA cache_size=-16000",
        "PRAGMA temp_store=MEMORY",
        # Few large checkpoints instead of many small ones; and the log file shrinks again.
        *(() if durable else ("PRAGMA wal_autocheckpoint=4000", "PRAGMA journal_size_limit=33554432")),
    )


def sqlite_engine(path: Path, pragmas: Iterable[str], statement_timeout_s: float) -> AsyncEngine:
    """For everything but the hot path. Transactions read, or lock at their beginning (`foretell_reads_only`)."""
    engine = create_async_engine(
        "sqlite+aiosqlite://",
        poolclass=AsyncAdaptedQueuePool,
        pool_timeout=CONNECT_TIMEOUT_S,
        hide_parameters=True,
        async_creator=partial(_open_sqlite, path, pragmas, statement_timeout_s),
    )
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


async def _open_sqlite(path: Path, pragmas: Iterable[str], timeout_s: float) -> SqliteCallConnection:
    # The driver must not begin transactions automatically: `_begin_sqlite` does.
    connect = partial(sqlite3.connect, path, timeout=timeout_s, isolation_level=None, factory=SqliteConnection)
    connection = SqliteCallConnection(connect)
    # A daemon thread, as in SQLAlchemy: a process that ends does not wait for it.
    thread = connection._thread
    thread.daemon = True

    async def open_and_prepare() -> None:
        await connection
        await connection.executescript(";".join(pragmas))

    opening = asyncio.create_task(open_and_prepare())
    try:
        await asyncio.shield(opening)
    except BaseException:
        # Not interrupted: the thread ends with a call to the event loop, which must not be closed by then.
        await asyncio.wait([opening])
        connection.stop()
        await asyncio.to_thread(thread.join)
        raise
    return connection


def _begin_sqlite(connection: Any) -> None:
    reads_only = connection.get_execution_options().get("foretell_reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
