"""Connections to databases are counted as they are, and waits for them."""

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client import REGISTRY

from foretell.kit.database import Database
from foretell.kit.drivers import PostgresqlDriver


def _connections() -> dict[str, float]:
    return {
        state: REGISTRY.get_sample_value("foretell_database_connections", {"state": state}) or 0.0
        for state in ("in_use", "idle")
    }


def _waits() -> float:
    return REGISTRY.get_sample_value("foretell_database_wait_seconds_count") or 0.0


async def _use_driver(database: Database) -> None:
    if isinstance(database.driver, PostgresqlDriver):
        await database.driver.run(lambda connection: connection.fetch("SELECT 1"))
    else:
        await database.driver.run(lambda connection: connection.execute("SELECT 1").fetchone())


async def test_connections_are_counted_until_their_database_is_closed(empty_database_url: str) -> None:
    before = _connections()

    def more() -> dict[str, float]:
        return {state: count - before[state] for state, count in _connections().items()}

    database = Database(empty_database_url)
    assert more() == {"in_use": 0, "idle": 0}
    waits = _waits()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(database.transaction())
        for _ in range(2):
            await stack.enter_async_context(database.snapshot())
        assert more() == {"in_use": 3, "idle": 0}
    assert more() == {"in_use": 0, "idle": 3}
    await _use_driver(database)
    assert more() == {"in_use": 0, "idle": 4}
    assert _waits() - waits == 4
    await database.close()
    assert more() == {"in_use": 0, "idle": 0}


async def test_a_connection_of_the_driver_is_in_use_while_it_works(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    await _use_driver(database)
    in_use = _connections()["in_use"]
    if isinstance(database.driver, PostgresqlDriver):

        async def look(_: Any) -> float:
            return _connections()["in_use"]

        assert await database.driver.run(look) == in_use + 1
    else:
        assert await database.driver.run(lambda _: _connections()["in_use"]) == in_use + 1
    assert _connections()["in_use"] == in_use
    await database.close()


async def test_who_waits_for_a_connection_is_timed(fresh_postgresql: str) -> None:
    def waited_s() -> float:
        return REGISTRY.get_sample_value("foretell_database_wait_seconds_sum") or 0.0

    database = Database(fresh_postgresql, pool_size=1)
    loop = asyncio.get_running_loop()
    await _use_driver(database)
    assert isinstance(database.driver, PostgresqlDriver)
    before, begun = waited_s(), loop.time()
    held = asyncio.create_task(database.driver.run(lambda _: asyncio.sleep(0.3)))
    await asyncio.sleep(0)
    await _use_driver(database)
    took = loop.time() - begun
    await held
    await database.close()
    # Nothing else took time: nearly all of it was the wait, and no wait is longer than it was.
    assert took / 2 < waited_s() - before <= took


@pytest.mark.parametrize("closed", [False, True])
async def test_what_a_scrape_finds_does_not_depend_on_who_forgot_to_close(fresh_postgresql: str, closed: bool) -> None:
    before = _connections()
    database = Database(fresh_postgresql)
    if closed:
        await database.close()
    del database
    assert _connections() == before


async def test_both_ends_of_a_connection_find_out_that_they_are_cut_off(fresh_postgresql: str) -> None:
    database = Database(fresh_postgresql)
    settings = "SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_%'"

    async def look(connection: Any) -> tuple[dict[str, str], int, int]:
        told = {name: setting for name, setting in await connection.fetch(settings)}
        ours = connection._transport.get_extra_info("socket")
        keeps_asking = ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return told, keeps_asking, ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    try:
        assert isinstance(database.driver, PostgresqlDriver)
        of_driver = await database.driver.run(look)
        async with database.snapshot() as connection:
            raw = await connection.get_raw_connection()
            of_engine = await look(raw.driver_connection)
    finally:
        await database.close()
    assert of_driver == of_engine
    told, keeps_asking, unanswered_ms = of_engine
    assert keeps_asking == 1
    assert 0 < unanswered_ms <= 15_000
    assert 0 < int(told["tcp_user_timeout"]) <= 15_000
    idle, every, count = (int(told[f"tcp_keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert 0 < idle + every * count <= 15
