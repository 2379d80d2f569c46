"""Statements that PostgreSQL lets wait: an honest 503 soon, few connections, and nothing made that was denied."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest
from tests.faults.callers import FAULT_SECONDS, REQUEST_TIMEOUT_S, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_database import PrivatePostgresql, without_standby
from tests.services_system import Backends
from tests.system import FLIGHT, System

pytestmark = pytest.mark.faults

#: What app (5, and 10 besides the hot ones) and dispatcher (3 and 6) may have.
_MOST_CONNECTIONS = 24
_WAIT_S = max(5.0, FAULT_SECONDS)


@pytest.fixture
def on_private_postgresql(private_postgresql: PrivatePostgresql, rabbitmq_url: str, broker_prefix: str) -> Backends:
    """A PostgreSQL whose settings the test may change, and RabbitMQ."""
    return Backends("servers", private_postgresql.url, rabbitmq_url, broker_prefix)


@contextlib.asynccontextmanager
async def _locked_wallets(url: str) -> AsyncIterator[None]:
    owner = await asyncpg.connect(url)
    try:
        async with owner.transaction():
            await owner.execute("LOCK TABLE wallets")
            yield
    finally:
        await owner.close()


async def _most_connections(url: str) -> int:
    """The most that our processes had at any moment, until cancelled or time is up."""
    operator = await asyncpg.connect(url)
    most = 0
    try:
        async with asyncio.timeout(_WAIT_S):
            while True:
                asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^(app|dispatcher)-'"
                most = max(most, await operator.fetchval(asked))
                await asyncio.sleep(0.2)
    except TimeoutError:
        return most
    finally:
        await operator.close()


async def _ask_once(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post("/predictions/predict", json={"model": "flight-delay", "input": FLIGHT}, headers=headers)


async def _ids(system: System, user_id: UUID) -> int:
    operator = await asyncpg.connect(system.database_url)
    try:
        count: int = await operator.fetchval("SELECT count(*) FROM predictions WHERE user_id = $1", user_id)
        return count
    finally:
        await operator.close()


async def test_wallets_are_locked(
    on_private_postgresql: Backends, private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    system = on_private_postgresql.system(tmp_path)
    async with system.running(workers=2):
        user_id, client = await authorized(system)
        callers = await new_callers(system)
        async with client, callers.calling():
            await callers.progress(50)
            async with _locked_wallets(private_postgresql.url):
                counting = asyncio.create_task(_most_connections(private_postgresql.url))
                answers = await asyncio.gather(*(_ask_once(client) for _ in range(5)))
                assert await counting <= _MOST_CONNECTIONS
            await callers.progress(50)
        ended = await assert_promises_kept(system, callers)
        # Nobody sent a key here, so what was denied must not be made.
        assert {(answer.status_code, answer.json()["outcome"]) for answer in answers} == {(503, "not_done")}
        assert await _ids(system, user_id) == 0
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < REQUEST_TIMEOUT_S
    assert set(ended) == {("succeeded", None)}


async def test_the_synchronous_standby_is_missing(
    on_private_postgresql: Backends, private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    system = on_private_postgresql.system(tmp_path)
    async with system.running(workers=2):
        user_id, client = await authorized(system)
        callers = await new_callers(system)
        async with client, callers.calling():
            await callers.progress(50)
            async with without_standby(private_postgresql.url):
                counting = asyncio.create_task(_most_connections(private_postgresql.url))
                first = await _ask_once(client, **{"Idempotency-Key": "one"})
                again = await _ask_once(client, **{"Idempotency-Key": "one"})
                assert await counting <= _MOST_CONNECTIONS
            await callers.progress(50)
            final = await _ask_once(client, **{"Idempotency-Key": "one"})
        ended = await assert_promises_kept(system, callers, ids=[UUID(final.json()["id"])])
        outcomes = Counter(answer.json().get("outcome") for answer in (first, again))
        # Nothing that only this machine has is promised to anybody.
        assert {first.status_code, again.status_code} == {503}, outcomes
        assert final.status_code in (200, 202)
        assert await _ids(system, user_id) == 1
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < REQUEST_TIMEOUT_S
    assert set(ended) == {("succeeded", None)}
