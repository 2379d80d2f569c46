"""The embedded broker: the port's promises kept by one SQLite file, for the processes of one machine.

A message is a row; who claims it writes its name on it. Each process has a bell (`sqlite_bells`) that others ring when
they publish something it listens to, and that falls silent when it dies; then the others return what it held. A pulse
a few times a second does what bells cannot: it notices a publisher killed between its commit and the ringing, the dead,
and those who are stopped for longer than their lease.
"""

import asyncio
import sqlite3
import time
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from foretell.broker import sqlite_bells as bells
from foretell.broker import sqlite_statements as say
from foretell.broker.health import Publishes
from foretell.broker.measures import measured_publish
from foretell.broker.port import BrokerUnavailable, MessageRefused, QueueDepth, Trouble, Unroutable
from foretell.broker.sqlite_consumer import Listener, SqliteConsumer, SqliteSubscription, Verdict
from foretell.broker.sqlite_file import BrokerFile, path_of
from foretell.contracts import queues

log = structlog.get_logger()

PULSE_S = 0.25
#: A receiver that lives but has not renewed its lease for this long is taken for stopped.
LEASE_S = 30.0
RENEW_S = 5.0
TIMEOUT_S = 5.0


def _check_size(body: bytes) -> None:
    if len(body) > queues.MAX_MESSAGE_BYTES:
        raise MessageRefused(size_bytes=len(body))


class SqliteBroker:
    """Keeps the promises of `port.Broker`."""

    def __init__(self, path: Path, *, name: str, prefix: str, delivery_limit: int) -> None:
        self._file = BrokerFile(path, on_open=self._on_open)
        self._name = name
        self._prefix = prefix
        self._delivery_limit = delivery_limit
        self._ensured: set[str] = set()
        self._publishes = Publishes()
        self._listeners: list[Listener] = []
        self._numbers = 0
        #: What becomes of messages in our hands; what a locked file or a full disk holds up goes with the next pulse.
        self._verdicts: dict[int, Verdict] = {}
        self._renewed_at = 0.0
        self._data_version = 0
        self._bell: bells.Bell | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, *, name: str, prefix: str, delivery_limit: int) -> "SqliteBroker":
        """Open the file `sqlite:///PATH`, and make it. Raises `BrokerUnavailable` and `Misconfigured`."""
        broker = cls(path_of(url), name=name, prefix=prefix, delivery_limit=delivery_limit)
        await broker._file.open()
        broker._spawn(broker._beat())
        log.info("broker_connected", connection=name, path=str(broker._file.path))
        return broker

    @property
    def receiver(self) -> str:
        assert self._bell is not None
        return self._bell.name

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        _check_size(body)
        name = self._prefix + queue

        def insert(connection: sqlite3.Connection) -> list[str]:
            if not say.exists(connection, name):
                if name not in self._ensured:
                    raise Unroutable(queue=queue)
                say.declare(connection, name)
            say.insert(connection, name, body, message_id, headers)
            return say.listeners(connection, name)

        storing = self._file.write(insert, timeout_s=timeout_s, doing=f"publish to {queue}")
        self._ring(name, await measured_publish(storing, self._publishes))

    async def publish_event(
        self, routing_key: str, body: bytes, *, confirmed: bool = False, timeout_s: float = 2.0
    ) -> None:
        # `confirmed` asks for nothing that is not done anyway: the event is committed.
        _check_size(body)
        source = self._event_source(routing_key)
        doing = f"publish the event {routing_key}"
        audience = await self._file.read_patiently(
            lambda connection: say.listeners(connection, source), timeout_s=timeout_s, doing=doing
        )
        if audience:
            await self._file.write(
                lambda connection: say.insert_event(connection, source, body), timeout_s=timeout_s, doing=doing
            )
            self._ring(source, audience)

    async def consume(self, queue: str, *, prefetch: int) -> SqliteConsumer:
        await self.ensure_queue(queue)
        source = self._prefix + queue
        limit = self._delivery_limit
        number = self._next_number()
        consumer = SqliteConsumer(self, source, number, queue=queue, prefetch=prefetch, delivery_limit=limit)
        self._listeners.append(consumer)
        await self._register(consumer)
        return consumer

    def subscribe(self, routing_key: str) -> SqliteSubscription:
        subscription = SqliteSubscription(self, self._event_source(routing_key), self._next_number())
        self._listeners.append(subscription)
        self._spawn(self._register(subscription))
        return subscription

    async def depth(self, queue: str) -> QueueDepth:
        name = self._prefix + queue
        found = await self._file.read_patiently(
            lambda connection: say.depth(connection, name), timeout_s=TIMEOUT_S, doing=f"depth of {queue}"
        )
        if found is None:
            raise Unroutable(queue=queue)
        return QueueDepth(queue, found.ready, found.consumers, found.unacknowledged)

    async def ensure_queue(self, queue: str) -> None:
        name = self._prefix + queue
        self._ensured.add(name)
        await self._file.write(
            lambda connection: say.declare(connection, name), timeout_s=TIMEOUT_S, doing=f"declare {queue}"
        )

    @property
    def connected(self) -> bool:
        return self._file.healthy and all(listener.registered for listener in self._listeners)

    @property
    def trouble(self) -> Trouble | None:
        if not self._file.healthy:
            return Trouble("away", f"The embedded broker {self._file.path} can't be used.")
        for listener in self._listeners:
            if not listener.registered:
                return Trouble("unregistered", f"Nobody listens to {listener.source} here yet.")
        return self._publishes.trouble

    async def close(self) -> None:
        for listener in list(self._listeners):
            listener.closed = True
            listener.news.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._bell is None:
            await self._file.close()
            return
        # Should this fail, our bell falls silent all the same and the others return what we held.
        with suppress(BrokerUnavailable):
            await self._settle_now()
            await self._strike_out([self.receiver], TIMEOUT_S)
        self._bell.close()
        self._bell = None
        await self._file.close()

    # What consumers and subscriptions need of us: `sqlite_consumer.Messages`.

    async def claim(self, source: str, limit: int) -> list[say.Row]:
        pause_s = 0.1
        while not self._file.closed:
            try:
                if not self._file.read(lambda connection: say.any_ready(connection, source)):
                    return []
            except (sqlite3.Error, OSError):
                # Whatever it is, the write below waits for it or reports it.
                pass
            try:
                return await self._file.write(
                    lambda connection: say.claim(connection, source, self.receiver, limit),
                    timeout_s=TIMEOUT_S,
                    doing=f"receive from {source}",
                )
            except BrokerUnavailable as error:
                log.warning("broker_lost", connection=self._name, reason=error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)
        return []

    async def settle(self, ids: Iterable[int], verdict: Verdict) -> None:
        self._verdicts.update(dict.fromkeys(ids, verdict))
        try:
            await self._settle_now()
        except BrokerUnavailable as error:
            log.warning("settlement_postponed", connection=self._name, messages=len(self._verdicts), reason=str(error))

    async def _settle_now(self) -> None:
        if not self._verdicts:
            return

        def settle(connection: sqlite3.Connection) -> dict[str, list[str]]:
            # Read here, and not before a wait for the file: another call may have settled everything meanwhile.
            by_verdict: dict[Verdict, list[int]] = {verdict: [] for verdict in Verdict}
            for number, verdict in self._verdicts.items():
                by_verdict[verdict].append(number)
            say.delete(connection, self.receiver, by_verdict[Verdict.DONE])
            touched = say.bury(connection, self.receiver, by_verdict[Verdict.DEAD])
            touched |= say.give_back(connection, self.receiver, self._delivery_limit, by_verdict[Verdict.AGAIN])
            touched |= say.give_back_untouched(connection, self.receiver, by_verdict[Verdict.UNTOUCHED])
            return {source: say.listeners(connection, source) for source in touched}

        audiences = await self._file.write(settle, timeout_s=TIMEOUT_S, doing="settle messages")
        self._verdicts.clear()
        for source, audience in audiences.items():
            self._ring(source, audience)

    async def events_after(self, source: str, number: int) -> list[tuple[int, bytes]]:
        try:
            return await self._file.read_patiently(
                lambda connection: say.events_after(connection, source, number), timeout_s=TIMEOUT_S, doing="listen"
            )
        except BrokerUnavailable as error:
            log.warning("broker_lost", connection=self._name, reason=error.message)
            return []

    async def unregister(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        self._listeners.remove(listener)
        with suppress(BrokerUnavailable):
            await self._file.write(
                lambda connection: say.unlisten(connection, listener.source, self.receiver, listener.number),
                timeout_s=TIMEOUT_S,
                doing="stop listening",
            )

    # What goes on in the background.

    def _on_open(self, connection: sqlite3.Connection) -> None:
        """The file is there, perhaps a new one: nothing that we held counts any more."""
        for name in self._ensured:
            say.declare(connection, name)
        self._enter(connection)

    def _hang_bell(self) -> None:
        """See to it that others can ring for us: somebody may have deleted the folder with our bell."""
        if self._bell is not None:
            if bells.alive(self._file.bells, self._bell.name):
                return
            self._bell.close()
        self._bell = bells.Bell(self._file.bells, self._wake_all)

    def _enter(self, connection: sqlite3.Connection) -> None:
        self._hang_bell()
        say.give_back(connection, self.receiver, self._delivery_limit)
        say.enter(connection, self.receiver)
        self._renewed_at = time.monotonic()
        self._verdicts.clear()
        for listener in self._listeners:
            listener.forget()
            listener.register(connection)
            listener.news.set()

    async def _register(self, listener: Listener) -> None:
        while not listener.closed:
            try:
                await self._file.write(listener.register, timeout_s=TIMEOUT_S, doing=f"listen to {listener.source}")
            except BrokerUnavailable as error:
                log.warning("broker_lost", connection=self._name, reason=error.message)
                await asyncio.sleep(PULSE_S)
                continue
            listener.registered = True
            listener.news.set()
            return

    def _ring(self, source: str, audience: Iterable[str]) -> None:
        for name in audience:
            if name == self.receiver:
                for listener in self._listeners:
                    if listener.source == source:
                        listener.news.set()
            else:
                # A bell that cannot be rung is a delay: its owner looks by itself within a pulse.
                with suppress(OSError):
                    bells.ring(self._file.bells, name)

    def _wake_all(self) -> None:
        for listener in self._listeners:
            listener.news.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                await self._pulse()
            except BrokerUnavailable as error:
                log.warning("broker_lost", connection=self._name, reason=error.message)
            except (sqlite3.Error, OSError) as error:
                log.warning("broker_lost", connection=self._name, reason=str(error))

    async def _pulse(self) -> None:
        def look(connection: sqlite3.Connection) -> tuple[int, list[tuple[str, float]]]:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            return version, say.others(connection, self.receiver)

        version, others = await self._file.read_patiently(look, timeout_s=TIMEOUT_S, doing="look around")
        if version != self._data_version:
            self._data_version = version
            self._wake_all()
        await self._settle_now()
        if not bells.alive(self._file.bells, self.receiver):
            await self._file.write(self._enter, timeout_s=TIMEOUT_S, doing="hang the bell again")
        expired_before = say.lease_clock_s() - LEASE_S
        gone = [name for name, seen_at in others if seen_at < expired_before or not bells.alive(self._file.bells, name)]
        if gone:
            log.warning("receivers_gone", connection=self._name, receivers=len(gone))
            await self._strike_out(gone, TIMEOUT_S)
        if time.monotonic() - self._renewed_at > RENEW_S:
            await self._file.write(self._renew, timeout_s=TIMEOUT_S, doing="renew the lease")
        self._file.shorten_log_if_long()

    def _renew(self, connection: sqlite3.Connection) -> None:
        if not say.renew(connection, self.receiver):
            log.warning("lease_expired", connection=self._name)
            self._enter(connection)
        self._renewed_at = time.monotonic()
        say.trim_events(connection)

    async def _strike_out(self, receivers: list[str], timeout_s: float) -> None:
        """Return what `receivers` held, and forget them."""

        def strike(connection: sqlite3.Connection) -> dict[str, list[str]]:
            touched = set()
            for name in receivers:
                touched |= say.leave(connection, name, self._delivery_limit)
            return {source: say.listeners(connection, source) for source in touched}

        audiences = await self._file.write(strike, timeout_s=timeout_s, doing="return messages")
        for name in receivers:
            if not bells.alive(self._file.bells, name):
                bells.remove(self._file.bells, name)
        for source, audience in audiences.items():
            self._ring(source, audience)

    def _event_source(self, routing_key: str) -> str:
        # A space keeps events apart from queues, whatever they are called.
        return f"{self._prefix}event {routing_key}"

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
