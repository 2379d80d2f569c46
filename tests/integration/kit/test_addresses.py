"""Every form of an address of PostgreSQL, on every way to it; and PgBouncer between."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import text
from tests.asides import run_aside
from tests.services_database import PrivatePostgresql, without_standby
from tests.services_pgbouncer import PrivatePgbouncer

from foretell.domain.migrations.run import migrate
from foretell.kit.database import Database
from foretell.kit.errors import MayBeDone, Misconfigured, Unavailable
from foretell.services.monitoring.migrations.run import migrate as migrate_monitoring
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase

NewPgbouncer = Callable[..., PrivatePgbouncer]

_PASSWORD = "p@s:s/w?o#r d%é"


async def _assert_every_way(url: str, folder: Path, pooler: Literal["", "transaction"] = "") -> None:
    """Migrations, transactions, the hot driver, and monitoring's own database."""
    database = Database(url, pool_size=2, pooler=pooler)
    settings = MonitoringSettings(database_url=url, database_pooler=pooler, data_dir=folder)
    monitoring = MonitoringDatabase(settings)
    driver: Any = database.driver
    try:
        await migrate(database)
        await migrate_monitoring(monitoring)
        async with database.transaction() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE mine (number int) ON COMMIT DROP"))
        assert await driver.run(lambda c: c.fetchval("SELECT 1")) == 1
        assert await monitoring.write_postgresql(lambda c: c.fetchval("SELECT to_regclass('logs')::text")) == "logs"
    finally:
        await monitoring.close()
        await database.close()


async def test_every_form_leads_everywhere(private_postgresql: PrivatePostgresql, tmp_path: Path) -> None:
    server = private_postgresql
    port = server.port
    run_aside(_with_odd_user(server))
    user, password = quote("od d@é", safe=""), quote(_PASSWORD, safe="")
    certificate = server.use_tls()
    for form in [
        f"postgres://postgres@127.0.0.1:{port}/postgres",
        f"postgresql://127.0.0.1:{port}?user=postgres&dbname=postgres",
        f"postgresql://postgres@/postgres?host=127.0.0.1&port={port}",
        f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{port}/postgres?target_session_attrs=read-write",
        f"postgresql://postgres@/postgres?host={server.socket_folder}&port={port}",
        f"postgresql://postgres@{quote(server.socket_folder, safe='')}:{port}/postgres?target_session_attrs=primary",
        f"postgresql://{user}:{password}@127.0.0.1:{port}/od%20d%3F",
        f"postgresql://postgres@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={certificate}",
    ]:
        try:
            await _assert_every_way(form, tmp_path)
        except Exception as error:
            raise AssertionError(form) from error


async def test_a_server_with_another_certificate_is_not_trusted(
    private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    private_postgresql.use_tls()
    other = tmp_path / "other"
    other.mkdir()
    certificate = private_postgresql.make_certificate(other)
    port = private_postgresql.port
    url = f"postgresql://postgres@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={certificate}"
    database = Database(url)
    for ask in (database.ping, lambda: database.driver.run(lambda c: c.fetchval("SELECT 1"))):
        with pytest.raises(Unavailable):
            await ask()
    await database.close()


async def _with_odd_user(server: PrivatePostgresql) -> None:
    operator = await asyncpg.connect(server.url)
    try:
        escaped = _PASSWORD.replace("'", "''")
        await operator.execute(f"CREATE ROLE \"od d@é\" LOGIN SUPERUSER PASSWORD '{escaped}'")
        await operator.execute('CREATE DATABASE "od d?"')
    finally:
        await operator.close()
    server.ask_for_password("od d@é")


@pytest.mark.parametrize(
    "more",
    [
        "",
        "ignore_startup_parameters = jit,plan_cache_mode,enable_seqscan,statement_timeout,search_path,"
        "synchronous_commit,idle_in_transaction_session_timeout",
    ],
)
async def test_a_pooler_that_nobody_told_of_is_refused_by_name(new_pgbouncer: NewPgbouncer, more: str) -> None:
    database = Database(new_pgbouncer(more).url)
    with pytest.raises(Misconfigured, match="FORETELL_DATABASE_POOLER=transaction"):
        await migrate(database)
    await database.close()


async def test_every_way_leads_through_a_pooler(new_pgbouncer: NewPgbouncer, tmp_path: Path) -> None:
    await _assert_every_way(new_pgbouncer().url, tmp_path, "transaction")


async def test_many_share_few_connections_of_a_pooler_and_all_have_their_settings(new_pgbouncer: NewPgbouncer) -> None:
    database = Database(new_pgbouncer().url, pool_size=8, pooler="transaction", durable=False, schema="apart")
    driver: Any = database.driver
    asked = ("plan_cache_mode", "enable_seqscan", "statement_timeout", "synchronous_commit", "search_path")
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in asked)
    try:
        async with database.transaction() as connection:
            await connection.execute(text("CREATE SCHEMA apart"))
            await connection.execute(text("CREATE TABLE notes (words text, number bigint)"))

        async def hot(number: int) -> list[str]:
            await driver.run(lambda c: c.execute("INSERT INTO notes VALUES ($1, $2)", "hot", number))
            return list(await driver.run(lambda c: c.fetchrow(query)))

        async def cold(number: int) -> list[str]:
            async with database.transaction() as connection:
                values = {"words": "cold", "number": number}
                await connection.execute(text("INSERT INTO notes VALUES (:words, :number)"), values)
            async with database.snapshot() as connection:
                return list((await connection.execute(text(query))).one())

        hots, colds = await asyncio.gather(
            asyncio.gather(*(hot(number) for number in range(40))),
            asyncio.gather(*(cold(number) for number in range(40))),
        )
        assert hots == [["force_generic_plan", "off", "4s", "off", "apart"]] * 40
        assert colds == [["force_custom_plan", "on", "4s", "off", "apart"]] * 40
        assert await driver.run(lambda c: c.fetchval("SELECT count(*) FROM notes")) == 80
    finally:
        await database.close()


async def test_a_pooler_changes_nothing_in_what_is_told(
    new_pgbouncer: NewPgbouncer, private_postgresql: PrivatePostgresql
) -> None:
    database = Database(new_pgbouncer().url, pool_size=2, statement_timeout_s=0.5, pooler="transaction")
    driver: Any = database.driver
    try:
        await driver.run(lambda c: c.execute("CREATE TABLE notes (words text)"))
        with pytest.raises(Unavailable) as error:
            await driver.run(lambda c: c.execute("SELECT pg_sleep(60)"))
        assert error.value.outcome == "not_done"
        async with without_standby(private_postgresql.url):
            with pytest.raises(MayBeDone):
                await driver.run(lambda c: c.execute("INSERT INTO notes VALUES ('x')"))
        assert await driver.run(lambda c: c.fetchval("SELECT count(*) FROM notes")) == 1
    finally:
        await database.close()
