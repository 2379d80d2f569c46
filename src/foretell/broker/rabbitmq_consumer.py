"""What is consumed at RabbitMQ: messages of a queue, and events."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import structlog
from aiormq.abc import AbstractChannel, DeliveredMessage

from foretell.broker.attempts import earlier_attempts, own_headers
from foretell.broker.measures import Redeliveries
from foretell.broker.port import BrokerUnavailable, Delivery
from foretell.broker.rabbitmq_link import (
    Link,
    explain,
    ready_and_consumers,
    within,
)
from foretell.broker.rabbitmq_registration import REFRESHED, Registration
from foretell.broker.rabbitmq_silence import Remedy, Silences
from foretell.broker.rabbitmq_topology import Topology
from foretell.contracts import queues
from foretell.kit.clock import uuid7
from foretell.kit.errors import ForetellError

log = structlog.get_logger()

#: A queue that is there and says nothing to a consumer for this long, again and again, has no leader. It may have lost
#: it for good, with most of its nodes, or because RabbitMQ 3.10 was killed in the second after its declaration.
SILENCE_S = 6.0
#: In a cluster, after another connection did not help either. RabbitMQ keeps a request that was given up and serves it
#: as soon as there is a leader: that delivery reaches nobody and counts as an attempt. RabbitMQ itself waits for 30 s.
PATIENT_SILENCE_S = 35.0
#: A consumer that held and received nothing for this long, while messages are ready, has been forgotten.
IDLE_S = 10.0
#: A consumer that has had nothing at all for this long registers anew, for what no question can tell: RabbitMQ may
#: count it as a consumer of a queue that was deleted and declared again, and hand it messages that never arrive.
REFRESH_S = 30.0
SETTLE_TIMEOUT_S = 5.0
#: How long what a queue has sent may be on its way.
IN_FLIGHT_S = 0.1
MAX_BUFFERED_EVENTS = 10_000


class _Handle(NamedTuple):
    """A delivery tag means something on its own channel only."""

    channel: AbstractChannel
    tag: int


class RabbitConsumer(Registration):
    """Keeps the promises of `port.Consumer` with `basic.consume` and a local buffer."""

    def __init__(
        self, link: Link, topology: Topology, queue: str, *, prefetch: int, publish: Callable[..., Awaitable[None]]
    ) -> None:
        """`publish` is the broker's: what is given back uncounted is published anew."""
        self._topology = topology
        self._publish = publish
        self._queue = queue
        self._prefetch = prefetch
        self._limit = None if topology.is_dead_letter_queue(queue) else topology.delivery_limit
        # In a dead-letter queue, RabbitMQ counts on: a message that was never delivered there seems to come again.
        self._redeliveries = None if self._limit is None else Redeliveries(queue)
        self._buffer: deque[Delivery] = deque()
        #: What is ours to settle on the present channel, by delivery tag, in the order of arrival: ascending.
        self._held: dict[int, Delivery] = {}
        #: Whether we hold as many as we may.
        self._full = asyncio.Event()
        #: Nothing is settled while we leave: the next message would be sent.
        self._settling = asyncio.Lock()
        self._received = 0
        self._since: float | None = None
        #: Whether it left the queue, with no message on its way, to register again.
        self._left_in_order = False
        self._consumer_tag: str | None = None
        self._silences = Silences(in_cluster=link.has_several_hosts)
        self._idle_since = asyncio.get_running_loop().time()
        super().__init__(link, topology.name(queue))

    async def receive(self, max_messages: int) -> list[Delivery]:
        while self._stopped or not self._buffer:
            if self._closed:
                raise BrokerUnavailable(f"The consumer of {self._queue} is closed.")
            if self._stopped:
                return []
            await self._arrival()
        return [self._buffer.popleft() for _ in range(min(max_messages, len(self._buffer)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        async with self._settling:
            await self._acknowledge(deliveries)

    async def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        tags = {tag for delivery in deliveries if (tag := self._tag_in_hand(delivery)) is not None}
        channel = self._channel
        if channel is None or not tags:
            return
        # An acknowledgement of several settles *all* up to its tag: right only while nothing older is left out.
        together = 0
        for held in self._held:
            if held not in tags:
                break
            together = held
        with suppress(Exception):
            # A failure means that the channel is going down: the deliveries are void and come again.
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                if together:
                    await channel.basic_ack(together, multiple=True, wait=False)
                for tag in tags:
                    if tag > together:
                        await channel.basic_ack(tag, wait=False)
        self._settled(tags)

    async def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        async with self._settling:
            channel = self._channel
            for delivery in deliveries:
                tag = self._tag_in_hand(delivery)
                if channel is None or tag is None:
                    continue
                with suppress(Exception):
                    async with asyncio.timeout(SETTLE_TIMEOUT_S):
                        # One by one, and not basic.nack: since RabbitMQ 4.3 only basic.reject counts as an attempt.
                        await channel.basic_reject(tag, requeue=requeue, wait=False)
                self._settled({tag})

    async def stop(self) -> None:
        self._stopped = True
        self._wake()
        await self._leave()
        unreceived = list(self._buffer)
        self._buffer.clear()
        await self._give_back(unreceived)

    async def close(self) -> None:
        if self._stopped and not self._closed:
            await self._give_back(list(self._held.values()))
        await super().close()

    async def _leave(self) -> None:
        """Have nothing more sent to us.

        What is on its way to a consumer at its cancellation, RabbitMQ keeps from us, and counts when it returns.
        Nothing is on its way once the prefetch is reached: under load in a moment; or, but by chance, from an empty
        queue.
        """
        channel, tag, self._consumer_tag = self._channel, self._consumer_tag, None
        if channel is None or tag is None:
            return
        async with self._settling:
            with suppress(TimeoutError):
                async with asyncio.timeout(IN_FLIGHT_S):
                    await self._full.wait()
            with suppress(BrokerUnavailable):
                await within(SETTLE_TIMEOUT_S, f"leave {self._queue}", channel.basic_cancel(tag))

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Replace each by a copy at the end of the queue: every return counts as an attempt."""
        in_hand = [delivery for delivery in deliveries if self._tag_in_hand(delivery) is not None]
        copied = await asyncio.gather(*(self._copy(delivery) for delivery in in_hand))
        await self.acknowledge([delivery for delivery, is_safe in zip(in_hand, copied, strict=True) if is_safe])

    async def _copy(self, delivery: Delivery) -> bool:
        headers = dict(delivery.headers)
        if delivery.attempts > 1:
            headers[queues.EARLIER_ATTEMPTS] = str(delivery.attempts - 1)
        try:
            await self._publish(
                self._queue,
                delivery.body,
                message_id=delivery.message_id,
                headers=headers,
                timeout_s=SETTLE_TIMEOUT_S,
            )
        except ForetellError as error:
            # The original goes back when the channel is closed.
            log.warning("return_counted", consumed=self._source, reason=error.message)
            return False
        return True

    def _tag_in_hand(self, delivery: Delivery) -> int | None:
        handle = delivery.tag
        assert isinstance(handle, _Handle), "a delivery of another broker"
        return handle.tag if handle.channel is self._channel and handle.tag in self._held else None

    def _settled(self, tags: set[int]) -> None:
        for tag in tags:
            self._held.pop(tag, None)
        self._full.clear()
        self._idle_since = asyncio.get_running_loop().time()

    async def _register(self, channel: AbstractChannel) -> None:
        remedy = self._silences.ask(self._link.connections)
        if remedy is Remedy.ANOTHER_CONNECTION:
            self._link.renew(f"{self._source} has no leader")
            raise BrokerUnavailable(f"{self._source} has no leader: asking by another connection.")
        if remedy is Remedy.REBUILD:
            await self._topology.rebuild(self._link, self._queue)
        await self._topology.declare(self._link, self._queue)
        await channel.basic_qos(prefetch_count=self._prefetch)
        self._idle_since = asyncio.get_running_loop().time()
        if self._stopped:
            return
        # The first message may come before the answer to basic.consume does.
        self._channel = channel
        try:
            async with asyncio.timeout(PATIENT_SILENCE_S if self._silences.patient else SILENCE_S):
                await self._consume(channel)
        except TimeoutError:
            self._silences.silent()
            raise
        self._silences.answered()
        if self._since is None:
            self._since = time.monotonic()

    @property
    def since(self) -> float | None:
        return self._since

    @property
    def leaderless(self) -> bool:
        return not self._silences.has_leader

    async def _consume(self, channel: AbstractChannel) -> None:
        # Ours, and known before the answer comes: a `stop` meanwhile cancels it right after that.
        self._consumer_tag = tag = uuid7().hex
        await channel.basic_consume(self._topology.name(self._queue), self._on_message, consumer_tag=tag)

    def _forget(self) -> None:
        if not self._left_in_order:
            self._since = None
        self._left_in_order = False
        self._consumer_tag = None
        self._buffer.clear()
        self._held.clear()
        self._full.clear()

    async def _on_message(self, message: DeliveredMessage) -> None:
        channel, tag = message.channel, message.delivery_tag
        if channel is not self._channel or tag is None:
            return
        properties = message.header.properties
        headers: dict[str, Any] = properties.headers or {}
        returns = headers.get("x-delivery-count")
        attempts = 1 + (returns if isinstance(returns, int) else 0)
        if self._limit is not None:
            attempts += earlier_attempts(headers)
        self._received += 1
        if attempts > 1 and self._redeliveries is not None:
            self._redeliveries.note(properties.message_id or "", attempts)
        if self._limit is not None and attempts > self._limit:
            # The queue counts this copy's deliveries only; and one declared by somebody else may have another limit.
            with suppress(Exception):
                await channel.basic_reject(tag, requeue=False, wait=False)
            return
        delivery = self._held[tag] = Delivery(
            body=message.body,
            queue=self._queue,
            message_id=properties.message_id or "",
            attempts=attempts,
            headers=own_headers(headers),
            tag=_Handle(channel, tag),
        )
        self._buffer.append(delivery)
        if len(self._held) >= self._prefetch:
            self._full.set()
        self._wake()

    async def _stalled(self) -> str | None:
        idle_s = asyncio.get_running_loop().time() - self._idle_since
        if self._stopped or self._held or idle_s < IDLE_S:
            return None
        received = self._received
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                depth = await ready_and_consumers(self._link, self._topology.name(self._queue))
        except Exception as error:
            # The connection is checked by the link itself.
            log.debug("consumer_check_failed", consumed=self._source, reason=explain(error))
            return None
        if depth is None:
            return "the queue is gone"
        if depth[0] > 0:
            # What was ready a moment ago may be on its way.
            await asyncio.sleep(1.0)
            return None if self._received != received else "idle while messages were ready"
        return await self._retire() if idle_s > REFRESH_S else None

    async def _retire(self) -> str | None:
        """Leave the queue in good order before registering anew: a message on its way must not count as returned."""
        channel = self._channel
        if self._stopped or channel is None or self._consumer_tag is None:
            return None
        received = self._received
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await channel.basic_cancel(self._consumer_tag)
            if self._received == received:
                self._left_in_order = True
                return REFRESHED
            if not self._stopped:
                await self._consume(channel)
        return None


class RabbitSubscription(Registration):
    """The events of one routing key, from a queue of our own that lives as long as the connection."""

    def __init__(self, link: Link, topology: Topology, routing_key: str) -> None:
        self._topology = topology
        self._routing_key = routing_key
        # Events are hints: a subscriber that cannot keep up loses the oldest.
        self._buffer: deque[bytes] = deque(maxlen=MAX_BUFFERED_EVENTS)
        self._since: float | None = None
        super().__init__(link, f"{topology.events} {routing_key}")

    def __aiter__(self) -> "RabbitSubscription":
        return self

    async def __anext__(self) -> bytes:
        while not self._buffer:
            if self._closed:
                raise StopAsyncIteration
            await self._arrival()
        return self._buffer.popleft()

    @property
    def since(self) -> float | None:
        return self._since

    async def aclose(self) -> None:
        await self.close()

    async def _register(self, channel: AbstractChannel) -> None:
        await channel.exchange_declare(self._topology.events, exchange_type="topic", durable=True)
        declared = await channel.queue_declare(
            exclusive=True, auto_delete=True, arguments={"x-max-length": MAX_BUFFERED_EVENTS}
        )
        name = declared.queue or ""
        await channel.queue_bind(name, self._topology.events, routing_key=self._routing_key)
        await channel.basic_consume(name, self._on_event, no_ack=True)
        self._since = time.monotonic()

    def _forget(self) -> None:
        # Events that have arrived stay good; those that come now go past us.
        self._since = None

    async def _on_event(self, message: DeliveredMessage) -> None:
        self._buffer.append(message.body)
        self._wake()
