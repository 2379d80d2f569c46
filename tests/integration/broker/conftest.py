"""Both brokers, and other processes at them."""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from foretell.broker.connect import connect
from foretell.broker.port import Broker, Consumer, Delivery

#: A wait of a test that ends it. Not an expectation of speed.
PATIENCE_S = 120.0

Spawn = Callable[..., Awaitable["Peer"]]


class Peer:
    """A process of `peer.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self) -> dict[str, Any]:
        """Its next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
        assert line, "the peer ended"
        said: dict[str, Any] = json.loads(line)
        return said

    async def kill(self) -> None:
        """kill -9."""
        if self.process.returncode is None:
            self.process.kill()
        # asyncio waits for the end of the output, too, and stops reading what nobody takes.
        assert self.process.stdout is not None
        await asyncio.gather(self.process.wait(), self.process.stdout.read())


class Place:
    """A broker's URL and the corner of it that belongs to one test."""

    def __init__(self, url: str, prefix: str, delivery_limit: int = 3) -> None:
        self.url = url
        self.prefix = prefix
        self.delivery_limit = delivery_limit
        self._brokers: list[Broker] = []
        self._peers: list[Peer] = []
        self._numbers = itertools.count()

    async def open(self, prefix: str | None = None) -> Broker:
        """A broker, connected."""
        broker = await connect(
            self.url, name="test", prefix=self.prefix if prefix is None else prefix, delivery_limit=self.delivery_limit
        )
        self._brokers.append(broker)
        await until(lambda: broker.connected)
        return broker

    async def spawn(self, role: str, queue: str, count: int = 1) -> Peer:
        """Start a peer. It writes its log to our standard error."""
        arguments = [self.url, self.prefix, str(self.delivery_limit), role, queue, str(count)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("peer.py")),
            *arguments,
            f"peer{next(self._numbers)}",
            stdout=asyncio.subprocess.PIPE,
        )
        peer = Peer(process)
        self._peers.append(peer)
        return peer

    async def close(self) -> None:
        for peer in self._peers:
            await peer.kill()
        for broker in self._brokers:
            await broker.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`; fail after a generous time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def take(consumer: Consumer, count: int, *, most: int = 1000) -> list[Delivery]:
    """Receive until there are `count` deliveries."""
    taken: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(taken) < count:
            taken += await consumer.receive(min(most, count - len(taken)))
    return taken


async def nothing_comes(consumer: Consumer, for_s: float = 0.5) -> bool:
    """Whether `consumer` receives nothing for a moment."""
    try:
        async with asyncio.timeout(for_s):
            return not await consumer.receive(1)
    except TimeoutError:
        return True


@pytest.fixture
async def sqlite_place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(f"sqlite:///{tmp_path / 'broker' / 'broker.db'}", "test.")
    try:
        yield place
    finally:
        await place.close()


@pytest.fixture
async def rabbitmq_place(rabbitmq_url: str, broker_prefix: str) -> AsyncIterator[Place]:
    place = Place(rabbitmq_url, broker_prefix)
    try:
        yield place
    finally:
        await place.close()


@pytest.fixture(params=["rabbitmq", "sqlite"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found
