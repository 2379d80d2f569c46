"""Consumers at RabbitMQ: registered again whenever they are lost, and checked for progress."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

import structlog
from aiormq.abc import AbstractChannel
from aiormq.connection import Connection

from foretell.broker.port import Trouble
from foretell.broker.rabbitmq_link import FIRST_DELAY_S, MAX_DELAY_S, Link, cancelled_by_caller, close_channel, explain
from foretell.kit.randomness import RANDOM

log = structlog.get_logger()

#: Longer than any consumer waits for the answer of its queue.
REGISTER_TIMEOUT_S = 55.0
CHECK_INTERVAL_S = 5.0
#: How long it takes until everybody has noticed that a queue is gone.
NOTICE_S = 0.5
REFRESHED = "had nothing for a while"


class Registration(ABC):
    """A consumer at the broker, as one task that registers it and notices when it is gone.

    RabbitMQ can cancel a consumer (its queue was deleted) or forget it while the connection stays up; the client
    library then goes on in silence. So besides listening for a closed channel and a cancellation, `_stalled` is asked
    now and then.
    """

    def __init__(self, link: Link, source: str) -> None:
        self._link = link
        self._source = source
        self._channel: AbstractChannel | None = None
        #: Whether the broker has confirmed the registration on `_channel`, which is set before that.
        self._confirmed = False
        self._closed = False
        self._stopped = False
        self._refreshing = False
        #: Told when this is closed; the broker then no longer counts on it.
        self.on_close: Callable[[Registration], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task = asyncio.create_task(self._run(), name=f"rabbitmq consumer of {source}")

    @property
    def registered(self) -> bool:
        if self._stopped or self._refreshing:
            return True
        return self._confirmed and self._channel is not None and not self._channel.is_closed

    @property
    def leaderless(self) -> bool:
        """Whether nothing was heard of the queue when it was asked last."""
        return False

    @property
    def trouble(self) -> Trouble | None:
        """Why this is not registered, when it is not."""
        if self.registered:
            return None
        if self.leaderless:
            return Trouble("no_leader", f"The queue {self._source} does not answer: it has no leader.")
        return Trouble("unregistered", f"Nobody listens to {self._source} here yet.")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.on_close is not None:
            self.on_close(self)
        self._task.cancel()
        await asyncio.wait([self._task])
        self._wake()

    @abstractmethod
    async def _register(self, channel: AbstractChannel) -> None:
        """Declare what is needed and begin to consume."""

    @abstractmethod
    def _forget(self) -> None:
        """The channel is gone, and with it everything that was received and not settled."""

    async def _stalled(self) -> str | None:
        """Why this should be registered anew, though nothing says that it is lost; None when all is well."""
        return None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopped:
            connection = await self._link.connection()
            try:
                reason = await self._serve(connection)
                delay_s = FIRST_DELAY_S
            except (Exception, asyncio.CancelledError) as error:
                if cancelled_by_caller():
                    raise asyncio.CancelledError from None
                if isinstance(error, TimeoutError):
                    reason = "not registered in time: has the queue a leader?"
                else:
                    reason = explain(error)
            self._refreshing = reason == REFRESHED
            if self._refreshing or self._stopped:
                continue
            log.warning("consumer_lost", consumed=self._source, reason=reason)
            await asyncio.sleep(delay_s * RANDOM.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, MAX_DELAY_S)

    async def _serve(self, connection: Connection) -> str:
        """Register, and return why the registration ended. Raises whatever prevents it."""
        cancelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_cancel(_: object) -> None:
            if not cancelled.done():
                cancelled.set_result("cancelled by the broker")

        channel: AbstractChannel | None = None
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                # An unbounded frame buffer: what arrives together is handed out together. The prefetch bounds it.
                channel = await connection.channel(publisher_confirms=False, frame_buffer_size=0)
                channel.on_consumer_cancel_callbacks.add(on_cancel)
                await self._register(channel)
            self._channel, self._confirmed = channel, True
            if not self._refreshing:
                log.info("consumer_registered", consumed=self._source)
            self._refreshing = False
            closing = channel.closing
            while True:
                await asyncio.wait([closing, cancelled], timeout=CHECK_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
                if cancelled.done():
                    # Not before the others have noticed: who declares the queue at once gets them lost.
                    await asyncio.sleep(NOTICE_S)
                    return cancelled.result()
                if closing.done():
                    error = None if closing.cancelled() else closing.exception()
                    return "the channel was closed" if error is None else explain(error)
                if (reason := await self._stalled()) is not None:
                    return reason
        finally:
            self._channel, self._confirmed = None, False
            self._forget()
            if channel is not None:
                # What is unacknowledged goes back to the queue with the channel.
                await close_channel(channel)
