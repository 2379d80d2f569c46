"""The queues and exchanges at RabbitMQ, and how they are declared."""

from dataclasses import dataclass, field
from typing import Any

import structlog
from aiormq.exceptions import ChannelLockedResource, ChannelPreconditionFailed

from foretell.broker.rabbitmq_link import Link, ready_and_consumers
from foretell.contracts import queues

log = structlog.get_logger()

_DEAD_LETTERS = "ml_dead_letters"
#: RabbitMQ 4 drops a message after 20 deliveries unless told otherwise, and 3.10 takes no "unlimited".
_NO_LIMIT = 1_000_000


@dataclass(slots=True)
class Topology:
    """Names at the broker (`prefix` in front of each) and the arguments of queues."""

    prefix: str
    delivery_limit: int
    _reported: set[str] = field(default_factory=set)

    @property
    def events(self) -> str:
        return self.prefix + queues.EVENTS

    @property
    def dead_letters(self) -> str:
        """The exchange that leads to dead-letter queues."""
        return self.prefix + _DEAD_LETTERS

    def name(self, queue: str) -> str:
        return self.prefix + queue

    def is_dead_letter_queue(self, queue: str) -> bool:
        return queue == queues.dead_queue(queue.removesuffix(queues.dead_queue("")))

    async def declare(self, link: Link, queue: str) -> None:
        """Declare `queue`, after the dead-letter queue that it relies on. Safe to repeat."""
        name = self.name(queue)
        if self.is_dead_letter_queue(queue):
            await self._declare(link, name, self.arguments(queue))
            return
        dead = queues.dead_queue(queue)
        # Without a bound dead-letter queue, the delivery limit would drop messages.
        await self._declare(link, self.name(dead), self.arguments(dead))
        async with link.channel() as channel:
            await channel.exchange_declare(self.dead_letters, exchange_type="direct", durable=True)
            await channel.queue_bind(self.name(dead), self.dead_letters, routing_key=name)
        await self._declare(link, name, self.arguments(queue))

    def arguments(self, queue: str) -> dict[str, Any]:
        """With which arguments `queue` is declared."""
        if self.is_dead_letter_queue(queue):
            return {"x-queue-type": "quorum", "x-delivery-limit": _NO_LIMIT}
        return {
            "x-queue-type": "quorum",
            # RabbitMQ counts returns, we count deliveries: the third delivery is the second return.
            "x-delivery-limit": self.delivery_limit - 1,
            "x-dead-letter-exchange": self.dead_letters,
            "x-dead-letter-routing-key": self.name(queue),
            "x-dead-letter-strategy": "at-least-once",
            # Required by at-least-once; it is no bound by itself.
            "x-overflow": "reject-publish",
        }

    async def rebuild(self, link: Link, queue: str) -> None:
        """Delete `queue`, which has no leader, and declare it anew. What was in it comes again from the database.

        One at a time does it: a second deletion would hit the new queue.
        """
        name = self.name(queue)
        async with link.channel() as channel:
            try:
                # It belongs to our connection, so that others are kept out until we are done, or dead.
                await channel.queue_declare(f"{name}.rebuilding", exclusive=True, auto_delete=True)
            except ChannelLockedResource:
                return
            found = await ready_and_consumers(link, name)
            if found is not None and found[1] == 0:
                log.warning("queue_rebuilt", queue=name, reason="it has had no leader for a while")
                await channel.queue_delete(name)
            await self.declare(link, queue)
            await channel.queue_delete(f"{name}.rebuilding")

    async def _declare(self, link: Link, name: str, arguments: dict[str, Any]) -> None:
        try:
            async with link.channel() as channel:
                await channel.queue_declare(name, durable=True, arguments=arguments)
        except ChannelPreconditionFailed as error:
            # It exists with other arguments, from before a setting changed. Working with it as it is beats not working.
            if name not in self._reported:
                self._reported.add(name)
                log.warning(
                    "queue_declared_otherwise",
                    queue=name,
                    reason=str(error),
                    remedy="delete the queue when it is empty; it is declared anew with the present settings",
                )
