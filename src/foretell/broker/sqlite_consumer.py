"""Consumers and subscriptions of the embedded broker."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Protocol

from foretell.broker import sqlite_statements as say
from foretell.broker.attempts import earlier_attempts, own_headers
from foretell.broker.measures import Redeliveries
from foretell.broker.port import BrokerUnavailable, Delivery


class Verdict(Enum):
    """What becomes of a message in our hands."""

    DONE = "done"
    AGAIN = "again"
    DEAD = "dead"
    #: Back to its queue, as if it had never been delivered.
    UNTOUCHED = "untouched"


class Messages(Protocol):
    """What listeners need of their broker."""

    @property
    def receiver(self) -> str:
        """The name under which this process claims messages."""

    async def claim(self, source: str, limit: int) -> list[say.Row]:
        """Up to `limit` ready messages, now ours. Waits for a file that is locked or fails, and never raises."""

    async def settle(self, ids: Iterable[int], verdict: Verdict) -> None:
        """Write the fate of messages in our hands: now, or as soon as the file can be written. Never raises."""

    async def events_after(self, source: str, number: int) -> list[tuple[int, bytes]]:
        """The events after that one, oldest first; none while the file can't be read."""

    async def unregister(self, listener: "Listener") -> None:
        """Wake this listener no more."""


class Listener:
    """Something in this process that wants to be woken when there is news in `source`."""

    def __init__(self, broker: Messages, source: str, number: int) -> None:
        self.source = source
        self.number = number
        self.registered = False
        self.closed = False
        self.news = asyncio.Event()
        self._broker = broker

    def register(self, connection: sqlite3.Connection) -> None:
        """Enter this listener into the file; again, when the file is a new one or our lease had expired."""
        say.listen(connection, self.source, self._broker.receiver, self.number)

    def forget(self) -> None:
        """Everything that is held is void."""


class SqliteConsumer(Listener):
    """Keeps the promises of `port.Consumer`: a claimed message bears our receiver's name until it is settled."""

    def __init__(
        self, broker: Messages, source: str, number: int, *, queue: str, prefetch: int, delivery_limit: int
    ) -> None:
        super().__init__(broker, source, number)
        self._queue = queue
        self._prefetch = prefetch
        # What is in a dead-letter queue was only looked at before.
        self._limit = None if say.is_dead_letter_queue(queue) else delivery_limit
        self._redeliveries = None if self._limit is None else Redeliveries(queue)
        #: The deliveries that are ours to settle. The identity counts: an identifier is used again, a delivery is not.
        self._held: dict[int, object] = {}
        self._since: float | None = None
        self._stopped = False

    async def receive(self, max_messages: int) -> list[Delivery]:
        while not self.closed:
            if self._stopped:
                return []
            self.news.clear()
            room = min(max_messages, self._prefetch - len(self._held))
            if room > 0 and (rows := await self._broker.claim(self.source, room)):
                deliveries = [self._delivery(row) for row in rows]
                spent = [each for each in deliveries if self._limit is not None and each.attempts > self._limit]
                if spent:
                    # With what is behind the message of which each is a copy; the file counts the copy's own.
                    await self.reject(spent, requeue=False)
                if len(spent) < len(deliveries):
                    return [each for each in deliveries if each not in spent]
                continue
            await self.news.wait()
        raise BrokerUnavailable(f"The consumer of {self._queue} is closed.")

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await self._broker.settle(self._take(deliveries), Verdict.DONE)
        self.news.set()

    async def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        await self._broker.settle(self._take(deliveries), Verdict.AGAIN if requeue else Verdict.DEAD)
        self.news.set()

    async def stop(self) -> None:
        # Nothing is claimed before somebody receives it.
        self._stopped = True
        self.news.set()

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        held = list(self._held)
        self._held.clear()
        self.news.set()
        await self._broker.settle(held, Verdict.UNTOUCHED if self._stopped else Verdict.AGAIN)
        await self._broker.unregister(self)

    def register(self, connection: sqlite3.Connection) -> None:
        super().register(connection)
        if self._since is None:
            self._since = time.monotonic()

    def forget(self) -> None:
        self._held.clear()
        self._since = None

    @property
    def since(self) -> float | None:
        return self._since if self.registered else None

    def _take(self, deliveries: Sequence[Delivery]) -> list[int]:
        """The identifiers of those `deliveries` that are in our hands, and no longer are."""
        taken = []
        for delivery in deliveries:
            handle = delivery.tag
            assert isinstance(handle, _Handle), "a delivery of another broker"
            if self._held.get(handle.id) is handle:
                del self._held[handle.id]
                taken.append(handle.id)
        return taken

    def _delivery(self, row: say.Row) -> Delivery:
        handle = self._held[row.id] = _Handle(row.id)
        attempts = row.attempts + (0 if self._limit is None else earlier_attempts(row.headers))
        if attempts > 1 and self._redeliveries is not None:
            self._redeliveries.note(row.message_id, attempts)
        return Delivery(
            body=row.body,
            queue=self._queue,
            message_id=row.message_id,
            attempts=attempts,
            headers=own_headers(row.headers),
            tag=handle,
        )


class _Handle:
    __slots__ = ("id",)

    def __init__(self, number: int) -> None:
        self.id = number


class SqliteSubscription(Listener):
    """The events of one source, by remembering the last one that was seen."""

    def __init__(self, broker: Messages, source: str, number: int) -> None:
        super().__init__(broker, source, number)
        self._last: int | None = None
        self._since: float | None = None
        self._buffer: deque[bytes] = deque()

    def register(self, connection: sqlite3.Connection) -> None:
        super().register(connection)
        if self._last is None:
            self._last = say.last_event(connection)
            self._since = time.monotonic()

    def forget(self) -> None:
        self._last = self._since = None

    @property
    def since(self) -> float | None:
        return self._since if self.registered else None

    def __aiter__(self) -> "SqliteSubscription":
        return self

    async def __anext__(self) -> bytes:
        while not self._buffer:
            if self.closed:
                raise StopAsyncIteration
            self.news.clear()
            last = self._last
            if last is not None:
                for number, body in await self._broker.events_after(self.source, last):
                    self._last = number
                    self._buffer.append(body)
            if not self._buffer:
                await self.news.wait()
        return self._buffer.popleft()

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self.news.set()
            await self._broker.unregister(self)
