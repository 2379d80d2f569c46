"""A full disk under PostgreSQL: clear words, nothing half done, and all goes on when there is room."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.faults.callers import FAULT_SECONDS, REQUEST_TIMEOUT_S, Callers, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_database import PrivatePostgresql, postgresql_programs
from tests.services_disk import SmallDisk
from tests.services_system import Backends
from tests.system import FLIGHT, System

pytestmark = pytest.mark.faults

_PATIENCE_S = 60.0


@pytest.fixture
def postgresql_on_small_disk(server_disk: SmallDisk) -> Iterator[PrivatePostgresql]:
    """A running server with all that it writes on a disk that can be filled."""
    server = PrivatePostgresql(postgresql_programs(), parent=server_disk.folder)
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def _database_on(disk: SmallDisk, server: PrivatePostgresql) -> str:
    """The URL of a database whose tables are on `disk`, while the server's log of what it does is elsewhere."""
    folder = disk.folder / "tables"
    folder.mkdir()
    server.give(folder)
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        await connection.execute("CREATE DATABASE on_small_disk TABLESPACE small")
    finally:
        await connection.close()
    return server.url.rpartition("/")[0] + "/on_small_disk"


async def _until_refused(client: httpx.AsyncClient) -> httpx.Response:
    """Ask until there is no room in any page that is there; the first refusal."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            answer = await client.post("/predictions/predict", json={"model": "flight-delay", "input": FLIGHT})
            if answer.status_code != 202:
                return answer


async def _assert_all_well(system: System, callers: Callers) -> None:
    ended = await assert_promises_kept(system, callers)
    assert callers.answers[503]
    assert set(callers.answers) <= {200, 202, 503}
    assert callers.slowest_s < REQUEST_TIMEOUT_S
    assert set(ended) == {("succeeded", None)}


async def test_the_disk_of_the_tables_is_full(
    server_disk: SmallDisk,
    private_postgresql: PrivatePostgresql,
    rabbitmq_url: str,
    broker_prefix: str,
    tmp_path: Path,
) -> None:
    url = await _database_on(server_disk, private_postgresql)
    system = Backends("servers", url, rabbitmq_url, broker_prefix).system(tmp_path)
    async with system.running(workers=2):
        user_id, client = await authorized(system)
        callers = await new_callers(system)
        async with client:
            async with callers.calling():
                await callers.progress(50)
                server_disk.fill()
                refused = await _until_refused(client)
                assert (refused.status_code, refused.json()["code"]) == (503, "disk_full"), refused.text
                assert refused.json()["outcome"] == "not_done"
                await asyncio.sleep(FAULT_SECONDS)
                server_disk.make_room()
                await callers.progress(50)
            await _assert_all_well(system, callers)
            # What was accepted until then was charged, once, and what was refused was not.
            assert (await system.balance(user_id)).available == 1_000_000 - await _predictions_of(url, user_id)


async def _predictions_of(url: str, user_id: object) -> int:
    connection = await asyncpg.connect(url)
    try:
        found: int = await connection.fetchval("SELECT count(*) FROM predictions WHERE user_id = $1", user_id)
        return found
    finally:
        await connection.close()


async def test_the_only_disk_of_the_server_is_full(
    server_disk: SmallDisk,
    postgresql_on_small_disk: PrivatePostgresql,
    rabbitmq_url: str,
    broker_prefix: str,
    tmp_path: Path,
) -> None:
    """PostgreSQL itself gives up where it can't write its log. What was promised before stands there all the same."""
    url = postgresql_on_small_disk.url
    system = Backends("servers", url, rabbitmq_url, broker_prefix).system(tmp_path)
    async with system.running(workers=2):
        _, client = await authorized(system)
        callers = await new_callers(system)
        async with client:
            async with callers.calling():
                await callers.progress(50)
                server_disk.fill()
                refused = await _until_refused(client)
                assert refused.status_code == 503
                assert refused.json()["code"] in ("disk_full", "unavailable")
                await asyncio.sleep(FAULT_SECONDS)
                server_disk.make_room()
                # As whoever looks after it does, where it has ended.
                await asyncio.to_thread(postgresql_on_small_disk.start)
                await callers.progress(50)
            await _assert_all_well(system, callers)
