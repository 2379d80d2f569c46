"""Another process at the same broker, for tests that kill it.

`python peer.py URL PREFIX LIMIT hold|work|publish|listen QUEUE [COUNT]`; prints one JSON object a line.
"""

import asyncio
import json
import sys
from typing import Any

import structlog

from foretell.broker.connect import connect

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def main(url: str, prefix: str, limit: str, role: str, queue: str, count: str = "1") -> None:
    broker = await connect(url, name=f"peer {role}", prefix=prefix, delivery_limit=int(limit))
    if role == "hold":
        consumer = await broker.consume(queue, prefetch=int(count))
        while True:
            for delivery in await consumer.receive(int(count)):
                say(id=delivery.message_id, attempts=delivery.attempts)
    elif role == "work":
        consumer = await broker.consume(queue, prefetch=int(count))
        while True:
            deliveries = await consumer.receive(int(count))
            await consumer.acknowledge(deliveries)
            for delivery in deliveries:
                say(id=delivery.message_id, attempts=delivery.attempts)
    elif role == "publish":
        name = sys.argv[-1]
        for number in range(int(count)):
            await broker.publish(queue, b"from a peer", message_id=f"{name}-{number}", timeout_s=60)
        say(published=int(count))
        await broker.close()
    elif role == "listen":
        events = broker.subscribe(queue)
        while not broker.connected:
            await asyncio.sleep(0.01)
        say(listening=True)
        async for body in events:
            say(event=body.decode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:7]))
