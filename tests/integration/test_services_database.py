"""The private PostgreSQL server that fault tests stop and kill."""

import asyncio

import asyncpg
import pytest
from tests.services_database import PrivatePostgresql


async def test_what_was_committed_outlives_a_kill(private_postgresql: PrivatePostgresql) -> None:
    connection = await asyncpg.connect(private_postgresql.url)
    await connection.execute("CREATE TABLE kept (number integer)")
    await connection.execute("INSERT INTO kept VALUES (7)")
    private_postgresql.kill()
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.execute("SELECT 1")
    connection.terminate()
    private_postgresql.start()
    connection = await asyncpg.connect(private_postgresql.url)
    assert await connection.fetchval("SELECT number FROM kept") == 7
    await connection.close()


async def test_a_stopped_server_refuses_and_a_paused_one_hangs(private_postgresql: PrivatePostgresql) -> None:
    connection = await asyncpg.connect(private_postgresql.url)
    private_postgresql.pause()
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT 1", timeout=0.2)
    private_postgresql.resume()
    connection.terminate()
    # The cancelled statement's connection has to go on meanwhile: a half-open one keeps the server from ending.
    await asyncio.to_thread(private_postgresql.stop)
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(private_postgresql.url)
