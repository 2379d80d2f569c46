"""A broker that is watched, and results as workers send them."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from foretell.broker.port import Broker, BrokerUnavailable, MessageRefused
from foretell.contracts.messages import Failure, Result, ResultEnvelope
from foretell.kit.clock import now, uuid7


class Watched:
    """A broker that counts what is published where, and may be away for publishing, or refuse what is too large."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.published: list[str] = []
        self.away = False
        self.most_bytes = sys.maxsize

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        if self.away:
            raise BrokerUnavailable
        if len(body) > self.most_bytes:
            raise MessageRefused(size_bytes=len(body))
        await self._broker.publish(queue, body, message_id=message_id, headers=headers, timeout_s=timeout_s)
        self.published.append(queue)

    async def put(self, queue: str, *bodies: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish as somebody else, uncounted."""
        for body in bodies:
            await self._broker.publish(queue, body, message_id=uuid7().hex, headers=headers)

    async def ready(self, queue: str) -> int:
        return (await self._broker.depth(queue)).ready

    async def wait_for(self, queue: str, messages: int) -> None:
        """Until this many are in a queue: a broker may take its time to move dead letters and to count."""
        while await self.ready(queue) < messages:
            await asyncio.sleep(0.02)

    async def take_all(self, queue: str) -> list[bytes]:
        """What waits in a queue, which is empty afterwards."""
        consumer = await self._broker.consume(queue, prefetch=1000)
        bodies: list[bytes] = []
        while await self.ready(queue):
            deliveries = await consumer.receive(1000)
            bodies += [delivery.body for delivery in deliveries]
            await consumer.acknowledge(deliveries)
        await consumer.close()
        return bodies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def results_of(*results: Result, worker_id: str = "worker-1") -> ResultEnvelope:
    """An envelope with these results."""
    return ResultEnvelope(
        model="flight-delay",
        version="1.0.0",
        worker_id=worker_id,
        published_at=now(),
        started_at=now(),
        finished_at=now(),
        results=list(results),
    )


def failure_of(prediction_id: UUID, message: str = "The model failed on this input.") -> Result:
    return Result(prediction_id, error=Failure("model_error", message))
