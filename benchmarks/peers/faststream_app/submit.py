# mypy: disable-error-code="import-not-found"
"""Submits tasks to FastStream from many coroutines, as an asynchronous web application does.

Takes the same lines on standard input as the submitter of the Celery application, and answers alike.
"""

import asyncio
import itertools
import os
import sys
import time
import uuid

import uvloop
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.peers import flight

QUEUE = RabbitQueue(os.environ["PEER_QUEUE"], queue_type=QueueType(os.environ["PEER_QUEUE_TYPE"]), durable=True)


def say(*words: object) -> None:
    """Answer the driver."""
    print(*words, flush=True)


class Clients:
    """Coroutines that submit one task after another, each waiting for nothing but the broker's confirmation."""

    def __init__(self, broker: RabbitBroker, clients: int, backlog: int) -> None:
        self.accepted = 0
        self._broker = broker
        self._permits = asyncio.Semaphore(backlog)
        self._numbers = itertools.count()
        self._stopping = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(clients)]

    def stored(self, count: int) -> None:
        """Let `count` more tasks go."""
        for _ in range(count):
            self._permits.release()

    async def stop(self) -> None:
        """Wait for the submissions under way."""
        self._stopping = True
        self.stored(len(self._tasks))
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        while True:
            await self._permits.acquire()
            if self._stopping:
                return
            await submit(self._broker, str(uuid.uuid4()), next(self._numbers))
            self.accepted += 1


async def submit(broker: RabbitBroker, task_id: str, number: int) -> None:
    """Publish one task, persistent, and wait until RabbitMQ has confirmed it."""
    await broker.publish({"task_id": task_id, **flight.sample(number)}, QUEUE, persist=True, message_id=task_id)


async def main() -> None:
    """Do what the driver says until it says stop."""
    loop = asyncio.get_running_loop()
    clients: Clients | None = None
    channel = Channel(publisher_confirms=True, on_return_raises=True)
    async with RabbitBroker(os.environ["PEER_BROKER_URL"], default_channel=channel) as broker:
        say("ready")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, *words = line.split()
            if command == "one":
                started = time.monotonic()
                await submit(broker, words[0], 0)
                say("one", started)
            elif command == "start":
                clients = Clients(broker, int(words[0]), int(words[1]))
            elif command == "stored" and clients is not None:
                clients.stored(int(words[0]))
                say("accepted", clients.accepted)
            elif command == "stop":
                break
        if clients is not None:
            await clients.stop()
            say("accepted", clients.accepted)


if __name__ == "__main__":
    uvloop.run(main())
