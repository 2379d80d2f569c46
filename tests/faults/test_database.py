"""PostgreSQL dies, drops its clients, or stands still: an honest 503 meanwhile, and everything as before afterwards."""

import asyncio
import time
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.faults.callers import FAULT_SECONDS, REQUEST_TIMEOUT_S, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_database import PrivatePostgresql
from tests.services_system import Backends
from tests.system import FLIGHT, System

pytestmark = pytest.mark.faults

# Three times what is promised: the machine of the tests may be as slow as that.
#: While the database is away, everybody hears so within this long.
_REFUSED_WITHIN_S = 15.0
#: So long after its return, no connection of the pools is a broken one any more.
_WHOLE_AGAIN_S = 30.0


@pytest.fixture
def on_private_postgresql(private_postgresql: PrivatePostgresql, rabbitmq_url: str, broker_prefix: str) -> Backends:
    """A PostgreSQL that the test may kill, and RabbitMQ."""
    return Backends("servers", private_postgresql.url, rabbitmq_url, broker_prefix)


async def _assert_refused_in_time(client: httpx.AsyncClient) -> None:
    """Every route that needs the database says 503, with Retry-After, and soon."""
    requests = [
        client.build_request("POST", "/predictions/predict", json={"model": "flight-delay", "input": FLIGHT}),
        client.build_request("GET", "/balance"),
        client.build_request("GET", "/predictions"),
        client.build_request("POST", "/users", json={"username": "nobody-yet", "password": "a long pass phrase"}),
    ]
    for request in requests:
        begun = time.monotonic()
        answer = await client.send(request)
        assert answer.status_code == 503, f"{request.method} {request.url.path}: {answer.text}"
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["code"] == "unavailable"
        assert time.monotonic() - begun < _REFUSED_WITHIN_S
    health = await client.get("/health")
    assert (health.status_code, list(health.json()["failing"])) == (503, ["database"])
    assert (await client.get("/health/live")).status_code == 200


async def _assert_whole_again(system: System, client: httpx.AsyncClient) -> None:
    """After the time that the pools may take, no request meets a broken connection."""
    async with asyncio.timeout(_WHOLE_AGAIN_S):
        while (await client.get("/health")).status_code != 200:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    answers = await asyncio.gather(*(client.get(path) for path in ["/balance", "/predictions", "/transactions"] * 10))
    assert {answer.status_code for answer in answers} == {200}
    order = {"model": "flight-delay", "input": FLIGHT}
    answer = await client.post("/predictions/predict", json=order, headers={"Prefer": "wait=10"})
    assert answer.status_code == 200
    await system.wait_healthy()


async def test_postgresql_dies_under_load(
    on_private_postgresql: Backends, private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    system = on_private_postgresql.system(tmp_path)
    async with system.running(workers=2):
        _, client = await authorized(system)
        callers = await new_callers(system)
        async with client:
            async with callers.calling():
                await callers.progress(100)
                await client.get("/balance")
                private_postgresql.kill()
                await _assert_refused_in_time(client)
                async with asyncio.timeout(_REFUSED_WITHIN_S):
                    while not callers.answers[503]:
                        await asyncio.sleep(0.02)
                await asyncio.to_thread(private_postgresql.start)
                await _assert_whole_again(system, client)
                await callers.progress(50)
            ended = await assert_promises_kept(system, callers)
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < _REFUSED_WITHIN_S
    assert set(ended) == {("succeeded", None)}


async def test_postgresql_drops_its_clients_every_second(
    on_private_postgresql: Backends, private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    system = on_private_postgresql.system(tmp_path)
    async with system.running(workers=2):
        callers = await new_callers(system)
        operator = await asyncpg.connect(private_postgresql.url)
        try:
            async with callers.calling():
                await callers.progress(50)
                for _ in range(round(FAULT_SECONDS) + 2):
                    await operator.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                    )
                    await callers.progress(5)
                    await asyncio.sleep(1)
                await callers.progress(50)
        finally:
            await operator.close()
        ended = await assert_promises_kept(system, callers)
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < _REFUSED_WITHIN_S
    assert set(ended) == {("succeeded", None)}


async def test_postgresql_stands_still(
    on_private_postgresql: Backends, private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    system = on_private_postgresql.system(tmp_path)
    async with system.running(workers=2):
        _, client = await authorized(system)
        callers = await new_callers(system)
        async with client:
            async with callers.calling():
                await callers.progress(100)
                private_postgresql.pause()
                try:
                    await asyncio.sleep(4 * FAULT_SECONDS)
                finally:
                    private_postgresql.resume()
                await _assert_whole_again(system, client)
                await callers.progress(50)
            ended = await assert_promises_kept(system, callers)
    # A client that gave up would stand here as a ReadTimeout.
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < REQUEST_TIMEOUT_S
    assert set(ended) == {("succeeded", None)}
