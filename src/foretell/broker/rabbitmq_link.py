"""A connection to RabbitMQ that is made again whenever it is lost.

The loop is ours, and not `aio_pika.connect_robust`: there, consumers can get lost over a reconnect without a word, and
the deadline of a publish does not cover the wait for one. Here a connection is thrown away as a whole.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog
from aiormq.abc import AbstractChannel
from aiormq.connection import Connection, TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    AMQPConnectionError,
    ChannelNotFoundEntity,
    ConnectionChannelError,
    ConnectionCommandInvalid,
    ConnectionUnexpectedFrame,
)
from yarl import URL

from foretell.broker.port import BrokerUnavailable
from foretell.broker.rabbitmq_address import addresses
from foretell.kit.errors import ForetellError
from foretell.kit.randomness import RANDOM

log = structlog.get_logger()

# Each lost connection is one event of ours; aiormq reports it again, several times and with tracebacks.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

Answer = TypeVar("Answer")

HEARTBEAT_S = 10
CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
PROBE_INTERVAL_S = 5.0
PROBE_TIMEOUT_S = 5.0
FIRST_DELAY_S = 0.1
#: A broker that is back is in use again after at most this plus the time to connect.
MAX_DELAY_S = 5.0


async def within(timeout_s: float, doing: str, work: Awaitable[Answer]) -> Answer:
    """Await `work`, all of it within `timeout_s`; whatever goes wrong becomes `BrokerUnavailable`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except (Exception, asyncio.CancelledError) as error:
        if cancelled_by_caller():
            # aiormq may answer a cancellation with an error of its own, and the cancellation must not get lost.
            raise asyncio.CancelledError from None
        if isinstance(error, ForetellError):
            raise
        if isinstance(error, TimeoutError):
            raise BrokerUnavailable(f"RabbitMQ did not answer within {timeout_s:g} s: {doing}.") from None
        if isinstance(error, asyncio.CancelledError):
            # aiormq cancels what waits for a connection that it gives up. That is not a cancellation of ours.
            raise BrokerUnavailable(f"The connection to RabbitMQ was lost: {doing}.") from None
        raise BrokerUnavailable(f"RabbitMQ failed: {doing}: {explain(error)}") from error


def cancelled_by_caller() -> bool:
    """Whether the `CancelledError` in hand was asked for, or is how aiormq says that a connection is gone."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def explain(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


#: How soon a connection that is at its end says why.
_REASON_WITHIN_S = 1.0


async def ended_over_a_channel(connection: Connection) -> bool:
    """Whether RabbitMQ has ended this connection because of what arrived on a channel that it had just closed.

    It closes a channel for one message, and the whole connection when the next one is on its way there already.
    """
    closing = connection.closing
    if not closing.done():
        await asyncio.wait([closing], timeout=_REASON_WITHIN_S)
    if not closing.done() or closing.cancelled():
        return False
    return isinstance(
        closing.exception(), ConnectionChannelError | ConnectionCommandInvalid | ConnectionUnexpectedFrame
    )


_closing: set[asyncio.Future[None]] = set()


async def close_channel(channel: AbstractChannel) -> None:
    """Close `channel`, or leave it to its connection's end when the broker does not answer."""
    # In a task of its own: when the wait for the answer is cancelled, aiormq asks a second time, and RabbitMQ ends the
    # whole connection for that.
    closing = asyncio.ensure_future(channel.close(AMQPConnectionError("the channel was closed")))
    _closing.add(closing)
    closing.add_done_callback(_closed)
    await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S)


def _closed(closing: asyncio.Future[None]) -> None:
    _closing.discard(closing)
    if not closing.cancelled():
        closing.exception()


class _AbortableTransport(TransportFactory):
    """Keeps hold of the socket: closing an AMQP connection politely takes an answer from the broker."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **kwargs)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class Link:
    """One connection at a time, from `start` until `close`."""

    def __init__(self, url: str, *, name: str) -> None:
        self._urls = [each.update_query(name=name) for each in addresses(url)]
        if "heartbeat" not in self._urls[0].query:
            self._urls = [each.update_query(heartbeat=str(HEARTBEAT_S)) for each in self._urls]
        #: Which host is asked at this moment; after each failure, the next.
        self._turn = 0
        self._name = name
        #: How many connections there have been.
        self.connections = 0
        #: Whether the broker has said that it is in alarm, and reads nothing from us.
        self.blocked = False
        self._renewal: asyncio.Future[str] | None = None
        self._connection: Connection | None = None
        self._transport = _AbortableTransport()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def has_several_hosts(self) -> bool:
        """Whether this is a cluster."""
        return len(self._urls) > 1

    @property
    def _url(self) -> URL:
        return self._urls[self._turn % len(self._urls)]

    def renew(self, reason: str) -> None:
        """Give the present connection up and take another one, to the next host where there are several."""
        if self._renewal is not None and not self._renewal.done():
            self._renewal.set_result(reason)

    def start(self) -> None:
        """Begin to connect, in the background. Safe to repeat."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"rabbitmq link {self._name}")

    @property
    def started(self) -> bool:
        return self._task is not None

    @property
    def up(self) -> bool:
        return self._connection is not None and self._connection.is_opened

    async def connection(self) -> Connection:
        """The connection, as soon as there is one."""
        while True:
            await self._up.wait()
            if self._connection is not None and self._connection.is_opened:
                return self._connection
            # The connection broke a moment ago and the loop has not noticed yet.
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel of its own for a few questions: a refusal closes the channel, and nobody else's."""
        connection = await self.connection()
        channel = await connection.channel(publisher_confirms=False)
        try:
            yield channel
        finally:
            await close_channel(channel)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        delay_s, failures = FIRST_DELAY_S, 0
        while True:
            try:
                self._connection = await self._connect()
            except (Exception, asyncio.CancelledError) as error:
                self._transport.abort()
                if cancelled_by_caller():
                    raise asyncio.CancelledError from None
                if failures % 10 == 0:
                    log.warning(
                        "broker_not_reached",
                        connection=self._name,
                        server_address=self._url.host,
                        reason=explain(error),
                    )
                failures += 1
                self._turn += 1
                # The jitter keeps the processes of an installation from returning all in the same instant.
                await asyncio.sleep(delay_s * RANDOM.uniform(0.5, 1.0))
                delay_s = min(delay_s * 2, MAX_DELAY_S)
                continue
            delay_s, failures = FIRST_DELAY_S, 0
            self.blocked = False
            self.connections += 1
            self._up.set()
            log.info("broker_connected", connection=self._name, server_address=self._url.host)
            try:
                reason = await self._watch(self._connection)
            except asyncio.CancelledError:
                await self._disconnect(self._connection)
                raise
            finally:
                self._up.clear()
            log.warning("broker_lost", connection=self._name, server_address=self._url.host, reason=reason)
            self._turn += 1
            await self._abort(self._connection)
            # A broker that accepts connections and drops them at once must not make this loop spin.
            await asyncio.sleep(FIRST_DELAY_S)

    async def _connect(self) -> Connection:
        self._transport = _AbortableTransport()
        connection = Connection(self._url, transport_factory=self._transport)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
        return connection

    async def _watch(self, connection: Connection) -> str:
        """Return why `connection` is of no more use, when it is."""
        closing = connection.closing
        renewal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._renewal = renewal
        while True:
            await asyncio.wait([closing, renewal], timeout=PROBE_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
            if renewal.done():
                return renewal.result()
            if closing.done():
                error = None if closing.cancelled() else closing.exception()
                return "closed" if error is None else explain(error)
            if not await self._answers(connection):
                return f"no answer within {PROBE_TIMEOUT_S:g} s"

    async def _answers(self, connection: Connection) -> bool:
        """Whether the broker still talks. A heartbeat alone would notice a stopped one after half a minute."""
        if await self._blocked(connection):
            return True
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                channel = await connection.channel(publisher_confirms=False)
            await close_channel(channel)
        except TimeoutError:
            return await self._blocked(connection)
        except (Exception, asyncio.CancelledError) as error:
            if cancelled_by_caller():
                raise asyncio.CancelledError from None
            log.debug("broker_probe_failed", connection=self._name, reason=explain(error))
        # Anything but silence is an answer; a closed connection is noticed by `closing`.
        return True

    async def _blocked(self, connection: Connection) -> bool:
        """Whether the broker has said that it is in alarm (disk, memory) and reads nothing from us until it is over."""
        try:
            async with asyncio.timeout(0.01):
                await connection.ready()
        except TimeoutError:
            log.warning("broker_blocked", connection=self._name, server_address=self._url.host)
            self.blocked = True
        else:
            self.blocked = False
        return self.blocked

    async def _disconnect(self, connection: Connection) -> None:
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await connection.close(AMQPConnectionError("the connection was closed"))
        await self._abort(connection)

    async def _abort(self, connection: Connection) -> None:
        """Cut the socket, so that everything that waits for this connection fails now."""
        self._transport.abort()
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await connection.close(AMQPConnectionError("the connection was lost"))


async def ready_and_consumers(link: Link, name: str) -> tuple[int, int] | None:
    """How many messages are ready in the queue `name`, and its consumers; None without such a queue."""
    async with link.channel() as channel:
        try:
            declared = await channel.queue_declare(name, passive=True)
        except ChannelNotFoundEntity:
            return None
    return declared.message_count or 0, declared.consumer_count or 0
