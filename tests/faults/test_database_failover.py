"""The primary PostgreSQL dies and its synchronous standby is promoted; PgBouncer between goes and comes."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.callers import FAULT_SECONDS, REQUEST_TIMEOUT_S, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_database import PrivatePostgresql
from tests.services_pgbouncer import PrivatePgbouncer
from tests.services_system import Backends

pytestmark = pytest.mark.faults


@pytest.fixture
def standby(private_postgresql: PrivatePostgresql) -> Iterator[PrivatePostgresql]:
    """The synchronous standby of the private server."""
    server = private_postgresql.new_standby()
    try:
        yield server
    finally:
        server.remove()


async def test_the_standby_takes_over(
    private_postgresql: PrivatePostgresql,
    standby: PrivatePostgresql,
    rabbitmq_url: str,
    broker_prefix: str,
    tmp_path: Path,
) -> None:
    hosts = f"127.0.0.1:{private_postgresql.port},127.0.0.1:{standby.port}"
    url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
    system = Backends("servers", url, rabbitmq_url, broker_prefix).system(tmp_path)
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(50)
            private_postgresql.kill()
            await asyncio.sleep(FAULT_SECONDS)
            await asyncio.to_thread(standby.promote)
            await callers.progress(50)
        ended = await assert_promises_kept(system, callers)
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < REQUEST_TIMEOUT_S
    assert set(ended) == {("succeeded", None)}


async def test_pgbouncer_goes_and_comes(
    private_postgresql: PrivatePostgresql,
    new_pgbouncer: Callable[..., PrivatePgbouncer],
    rabbitmq_url: str,
    broker_prefix: str,
    tmp_path: Path,
) -> None:
    pgbouncer = new_pgbouncer()
    # What the test itself looks up, it asks the server.
    system = Backends("servers", private_postgresql.url, rabbitmq_url, broker_prefix).system(
        tmp_path, FORETELL_DATABASE_URL=pgbouncer.url, FORETELL_DATABASE_POOLER="transaction"
    )
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(50)
            pgbouncer.kill()
            await asyncio.sleep(FAULT_SECONDS)
            await asyncio.to_thread(pgbouncer.start)
            await callers.progress(50)
        ended = await assert_promises_kept(system, callers)
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < REQUEST_TIMEOUT_S
    assert set(ended) == {("succeeded", None)}
