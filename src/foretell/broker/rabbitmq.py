"""The broker's port on RabbitMQ (4.x; 3.10 works too), by AMQP 0-9-1.

Two connections: RabbitMQ stops reading from a connection that publishes while it is in alarm (disk, memory), and
acknowledgements on the same connection would be held up with it.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.connection import Connection
from aiormq.exceptions import AMQPChannelError, ChannelPreconditionFailed, DeliveryError, PublishError
from pamqp.commands import Basic

from foretell.broker.health import Publishes
from foretell.broker.measures import measured_publish
from foretell.broker.port import BrokerUnavailable, MessageRefused, QueueDepth, Trouble, Unroutable
from foretell.broker.rabbitmq_consumer import RabbitConsumer, RabbitSubscription
from foretell.broker.rabbitmq_link import (
    Link,
    cancelled_by_caller,
    close_channel,
    ended_over_a_channel,
    ready_and_consumers,
    within,
)
from foretell.broker.rabbitmq_registration import NOTICE_S, Registration
from foretell.broker.rabbitmq_topology import Topology
from foretell.contracts import queues
from foretell.kit.errors import ForetellError

QUESTION_TIMEOUT_S = 5.0
MAX_REFUSALS = 10
REFUSAL_PAUSE_S = 0.05
#: How often a message is published whose connection ends because of another one.
_ATTEMPTS_BESIDE_OTHERS = 4
_TRANSIENT, _PERSISTENT = 1, 2


class RabbitBroker:
    """Keeps the promises of `port.Broker`."""

    def __init__(self, url: str, *, name: str, prefix: str, delivery_limit: int) -> None:
        self._publishing = Link(url, name=f"{name} publishes")
        self._consuming = Link(url, name=f"{name} consumes")
        self._topology = Topology(prefix, delivery_limit)
        self._lane = _Lane(self._publishing)
        # RabbitMQ closes the channel for a message that is too large, and with it fails all that are under way there.
        # On a channel of its own, one at a time, who is refused is refused for itself.
        self._lane_for_one = _Lane(self._publishing)
        self._turn = asyncio.Lock()
        #: The size of the smallest message that was refused.
        self._refused_bytes = sys.maxsize
        # Events are hints: a confirm for each would cost the broker a message and the publisher a round trip.
        self._event_lane = _Lane(self._publishing, confirms=False, prepare=self._declare_events)
        self._confirmed_event_lane = _Lane(self._publishing, prepare=self._declare_events)
        self._publishes = Publishes()
        self._ensured: set[str] = set()
        self._in_flight: dict[str, asyncio.Future[None]] = {}
        self._registrations: list[Registration] = []

    @classmethod
    async def open(cls, url: str, *, name: str, prefix: str, delivery_limit: int) -> "RabbitBroker":
        """Begin to connect, in the background, again and again until `close`. Raises `Misconfigured` for a bad URL."""
        broker = cls(url, name=name, prefix=prefix, delivery_limit=delivery_limit)
        broker._publishing.start()
        return broker

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        properties = Basic.Properties(
            message_id=message_id,
            delivery_mode=_PERSISTENT,
            headers=dict(headers) if headers else None,
        )
        sending = self._publish(queue, body, properties, message_id)
        await measured_publish(within(timeout_s, f"publish to {queue}", sending), self._publishes)

    async def _publish(self, queue: str, body: bytes, properties: Basic.Properties, message_id: str) -> None:
        # A message that no queue takes is returned by its id, so that an id may be in flight only once.
        while (earlier := self._in_flight.get(message_id)) is not None:
            await asyncio.wait([earlier])
        done = self._in_flight[message_id] = asyncio.get_running_loop().create_future()
        try:
            await self._send(queue, body, properties)
        finally:
            del self._in_flight[message_id]
            done.set_result(None)

    async def _send(self, queue: str, body: bytes, properties: Basic.Properties) -> None:
        name = self._topology.name(queue)
        returns = refusals = 0
        alone = len(body) >= self._refused_bytes
        while True:
            publish = self._publish_alone if alone else self._lane.publish
            try:
                await publish(body, exchange="", routing_key=name, properties=properties, mandatory=True)
                return
            except ChannelPreconditionFailed:
                if alone:
                    self._refused_bytes = min(self._refused_bytes, len(body))
                    raise MessageRefused(size_bytes=len(body)) from None
                alone = True
                continue
            except PublishError:
                returns += 1
                if queue not in self._ensured or returns == 3:
                    raise Unroutable(queue=queue) from None
            except DeliveryError:
                # Refused, so not stored: a quorum queue does that while it has no leader, right after its declaration.
                refusals += 1
                if refusals == MAX_REFUSALS:
                    raise
                await asyncio.sleep(REFUSAL_PAUSE_S * refusals)
                continue
            if returns == 1:
                # The queue was there once: somebody deleted it, or the broker lost its data. Its consumers bring it
                # back; declaring it before all of them have noticed would leave some attached to nothing.
                await asyncio.sleep(NOTICE_S)
            else:
                await self._topology.declare(self._publishing, queue)

    async def _publish_alone(
        self, body: bytes, *, exchange: str, routing_key: str, properties: Basic.Properties, mandatory: bool
    ) -> None:
        async with self._turn:
            await self._lane_for_one.publish(
                body, exchange=exchange, routing_key=routing_key, properties=properties, mandatory=mandatory
            )

    async def publish_event(
        self, routing_key: str, body: bytes, *, confirmed: bool = False, timeout_s: float = 2.0
    ) -> None:
        if len(body) >= self._refused_bytes:
            raise MessageRefused(size_bytes=len(body))
        # Not mandatory: an event that nobody listens to is no error, and must not come back.
        lane = self._confirmed_event_lane if confirmed else self._event_lane
        work = lane.publish(
            body,
            exchange=self._topology.events,
            routing_key=routing_key,
            properties=Basic.Properties(delivery_mode=_TRANSIENT),
            mandatory=False,
        )
        await within(timeout_s, f"publish the event {routing_key}", work)

    async def consume(self, queue: str, *, prefetch: int) -> RabbitConsumer:
        self._consuming.start()
        self._ensured.add(queue)
        consumer = RabbitConsumer(self._consuming, self._topology, queue, prefetch=prefetch, publish=self.publish)
        self._register(consumer)
        return consumer

    def subscribe(self, routing_key: str) -> RabbitSubscription:
        self._consuming.start()
        subscription = RabbitSubscription(self._consuming, self._topology, routing_key)
        self._register(subscription)
        return subscription

    async def depth(self, queue: str) -> QueueDepth:
        self._consuming.start()
        question = ready_and_consumers(self._consuming, self._topology.name(queue))
        answer = await within(QUESTION_TIMEOUT_S, f"depth of {queue}", question)
        if answer is None:
            # A queue that we rely on and that is gone at this moment is empty: the next publish declares it.
            if queue.removesuffix(queues.dead_queue("")) not in self._ensured:
                raise Unroutable(queue=queue)
            answer = (0, 0)
        ready, consumers = answer
        return QueueDepth(queue=queue, ready=ready, consumers=consumers)

    async def ensure_queue(self, queue: str) -> None:
        # Remembered first: should RabbitMQ be away now, the first publish declares the queue.
        self._ensured.add(queue)
        await within(QUESTION_TIMEOUT_S, f"declare {queue}", self._topology.declare(self._publishing, queue))

    @property
    def connected(self) -> bool:
        return all(link.up for link in self._links) and all(each.registered for each in self._registrations)

    @property
    def trouble(self) -> Trouble | None:
        if not all(link.up for link in self._links):
            return Trouble("away", "RabbitMQ is not reached.")
        if any(link.blocked for link in self._links):
            return Trouble("alarm", "RabbitMQ is in alarm (its disk or memory) and takes no messages.")
        return next((found for each in self._registrations if (found := each.trouble)), self._publishes.trouble)

    @property
    def _links(self) -> list[Link]:
        return [self._publishing] + ([self._consuming] if self._consuming.started else [])

    async def close(self) -> None:
        await asyncio.gather(*(registration.close() for registration in list(self._registrations)))
        lanes = self._lane, self._lane_for_one, self._event_lane, self._confirmed_event_lane
        await asyncio.gather(*(lane.close() for lane in lanes))
        await asyncio.gather(self._publishing.close(), self._consuming.close())

    def _register(self, registration: Registration) -> None:
        self._registrations.append(registration)
        registration.on_close = self._registrations.remove

    async def _declare_events(self, channel: AbstractChannel) -> None:
        await channel.exchange_declare(self._topology.events, exchange_type="topic", durable=True)


class _UsedChannel:
    """A channel and how many publishes are under way on it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.in_flight = 0
        self.retired = False


class _Lane:
    """Publishes, any number of messages at once, on a channel that is replaced after any error."""

    def __init__(
        self,
        link: Link,
        *,
        confirms: bool = True,
        prepare: Callable[[AbstractChannel], Awaitable[None]] | None = None,
    ) -> None:
        self._link = link
        self._confirms = confirms
        self._prepare = prepare
        self._current: _UsedChannel | None = None
        #: On which channels were asked for last.
        self._connections: deque[Connection] = deque(maxlen=2)
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def publish(
        self, body: bytes, *, exchange: str, routing_key: str, properties: Basic.Properties, mandatory: bool
    ) -> None:
        """Return when the broker has confirmed or, without confirms, when the message is on its way.

        Raises aiormq's errors; `PublishError` when no queue takes it.
        """
        attempts = 0
        while True:
            attempts += 1
            try:
                await self._publish(
                    body, exchange=exchange, routing_key=routing_key, properties=properties, mandatory=mandatory
                )
            except (Exception, asyncio.CancelledError) as error:
                # It may have been stored; then it is there twice, which does no harm.
                if attempts == _ATTEMPTS_BESIDE_OTHERS or not await self._is_not_to_blame(error):
                    raise
            else:
                return

    async def _is_not_to_blame(self, error: BaseException) -> bool:
        """Whether a publish failed because RabbitMQ ended its connection for what somebody else had sent."""
        if isinstance(error, AMQPChannelError | DeliveryError | ForetellError) or cancelled_by_caller():
            return False
        # Which of them it was on is not known: another publish may have opened the next one meanwhile.
        return any([await ended_over_a_channel(connection) for connection in list(self._connections)])

    async def _publish(
        self, body: bytes, *, exchange: str, routing_key: str, properties: Basic.Properties, mandatory: bool
    ) -> None:
        used = self._current
        if used is None or used.channel.is_closed:
            used = await self._open()
        used.in_flight += 1
        try:
            confirmation = await used.channel.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                mandatory=mandatory,
                # No wait for the socket to drain where a wait for the confirm follows.
                wait=not self._confirms,
            )
            if self._confirms and not isinstance(confirmation, Basic.Ack):
                raise BrokerUnavailable(f"RabbitMQ did not confirm a message to {routing_key}.")
        except BaseException:
            # What this channel still answers can no longer be trusted to belong to the right message.
            used.retired = True
            if self._current is used:
                self._current = None
            raise
        finally:
            used.in_flight -= 1
            if used.retired and used.in_flight == 0:
                self._close_soon(used.channel)

    async def _open(self) -> _UsedChannel:
        async with self._opening:
            if self._current is not None and not self._current.channel.is_closed:
                return self._current
            connection = await self._link.connection()
            if connection not in self._connections:
                self._connections.append(connection)
            channel = await connection.channel(publisher_confirms=self._confirms, on_return_raises=True)
            assert isinstance(channel, Channel)
            if self._prepare is not None:
                try:
                    await self._prepare(channel)
                except BaseException:
                    self._close_soon(channel)
                    raise
            self._current = _UsedChannel(channel)
            return self._current

    def _close_soon(self, channel: AbstractChannel) -> None:
        closing = asyncio.create_task(close_channel(channel))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        self._current = None
        with suppress(Exception):
            if self._closing:
                await asyncio.wait(self._closing)
