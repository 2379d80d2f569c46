"""What a measurement needs around it: a database and a queue of its own, and the facts of the machine."""

import asyncio
import os
import platform
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import aio_pika
import asyncpg
import psutil

#: An administrator's URL: each measurement makes a database of its own beside this one and drops it afterwards.
DATABASE_URL = os.environ.get("BENCHMARK_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
BROKER_URL = os.environ.get("BENCHMARK_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/")


@asynccontextmanager
async def private_database(url: str) -> AsyncIterator[str]:
    """The URL of a new, empty database on the server of `url`; dropped at the end, whoever is still connected."""
    name = f"measured_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        finally:
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await connection.close()


@asynccontextmanager
async def private_queue(url: str) -> AsyncIterator[str]:
    """A queue name nobody else has. A queue and an exchange of that name are deleted at the end, if there are any."""
    name = f"measured_{uuid.uuid4().hex[:12]}"
    try:
        yield name
    finally:
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            await channel.queue_delete(name)
            await channel.exchange_delete(name)


@asynccontextmanager
async def private_vhost(url: str) -> AsyncIterator[str]:
    """The URL of a new virtual host on the broker of `url`, for clients that leave things behind; deleted at the end.

    Needs `rabbitmqctl` and the right to use it. Raises `CalledProcessError`, or `FileNotFoundError` without it.
    """
    parts = urlsplit(url)
    name, user = f"measured_{uuid.uuid4().hex[:12]}", unquote(parts.username or "guest")
    await _rabbitmqctl("add_vhost", name)
    try:
        await _rabbitmqctl("set_permissions", "-p", name, user, ".*", ".*", ".*")
        yield urlunsplit(parts._replace(path=f"/{name}"))
    finally:
        await _rabbitmqctl("delete_vhost", name)


async def _rabbitmqctl(*arguments: str) -> None:
    await asyncio.to_thread(subprocess.run, ["rabbitmqctl", "--quiet", *arguments], check=True, timeout=60)


class Depth(NamedTuple):
    """What stands in a queue, and how many consumers take from it."""

    ready: int
    consumers: int


async def depth(url: str, queue: str) -> Depth:
    """The messages that wait in `queue` (not those in a consumer's hands) and its consumers; zeros without a queue."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        try:
            declared = await channel.declare_queue(queue, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return Depth(0, 0)
        result = declared.declaration_result
        return Depth(result.message_count or 0, result.consumer_count or 0)


async def machine(database_url: str, broker_url: str) -> dict[str, Any]:
    """The machine and its servers: what figures of two runs must share to be compared."""
    connection = await asyncpg.connect(database_url)
    postgresql = await connection.fetchval("SHOW server_version")
    settings = {
        name: await connection.fetchval(f"SHOW {name}") for name in ("synchronous_commit", "fsync", "max_connections")
    }
    await connection.close()
    broker = await aio_pika.connect(broker_url)
    async with broker:
        assert broker.transport is not None
        rabbitmq = broker.transport.connection.server_properties.get("version")
    return {
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "postgresql": postgresql,
        "postgresql_settings": settings,
        "rabbitmq": str(rabbitmq),
    }
