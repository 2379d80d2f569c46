"""A worker with an engine of the tests, on the embedded broker."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from tests.model_packages import ModelsThatAre

from foretell.broker.port import Broker, BrokerUnavailable, Consumer, Delivery
from foretell.contracts import queues
from foretell.contracts.messages import (
    Failure,
    Result,
    ResultEnvelope,
    Task,
    TaskEnvelope,
    TasksKept,
    decode_kept,
    decode_results,
    encode,
)
from foretell.inference.loading import State
from foretell.kit.clock import uuid7
from foretell.services.worker.work import Worker

PUBLISHED_AT = datetime(2025, 11, 16, 9, 30, tzinfo=UTC)


class Exited(Exception):
    """The process would have ended here."""


class Engine:
    """Echoes payloads; fails for `"fail"`, hangs for `"hang"` until released, raises for `"raise"`."""

    def __init__(self) -> None:
        self.runs: list[list[UUID]] = []
        self.entered = threading.Event()
        self.released = threading.Event()
        self.wait_in_every_run = False

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        self.runs.append([task.id for task in envelope.tasks])
        self.entered.set()
        payloads = [bytes(task.payload) for task in envelope.tasks]
        if b'"raise"' in payloads:
            raise RuntimeError("the engine never raises")
        if b'"hang"' in payloads or self.wait_in_every_run:
            self.released.wait()
        return [self._result(task) for task in envelope.tasks]

    def _result(self, task: Task) -> Result:
        if bytes(task.payload) == b'"fail"':
            return Result(task.id, error=Failure("model_error", "The model failed on this input."))
        return Result(task.id, output=task.payload)


class Changing(ModelsThatAre):
    """Each model is as `states` says, by name; those that it does not name are ready."""

    def __init__(self, **states: State) -> None:
        super().__init__()
        self.states = states

    def state(self, model: str, version: str) -> State:
        return self.states.get(model, State.READY)


class Observed:
    """A broker and its consumers that note what is done in which order, and may be away for publishing."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.noted: list[str] = []
        self.away = 0
        self.takes_events = True
        self.untaken_events = 0
        #: Whether each event had to be confirmed.
        self.confirmed_events: list[bool] = []

    async def publish_event(
        self, routing_key: str, body: bytes, *, confirmed: bool = False, timeout_s: float = 2.0
    ) -> None:
        if not self.takes_events:
            self.untaken_events += 1
            raise BrokerUnavailable
        self.confirmed_events.append(confirmed)
        await self._broker.publish_event(routing_key, body, confirmed=confirmed, timeout_s=timeout_s)

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
            self.away -= 1
            self.noted.append(f"no publish {queue}")
            raise BrokerUnavailable
        await self._broker.publish(queue, body, message_id=message_id, headers=headers, timeout_s=timeout_s)
        self.noted.append(f"publish {queue}")

    async def consume(self, queue: str, *, prefetch: int) -> "ObservedConsumer":
        # What a test itself takes from the results is nobody's business.
        noted = self.noted if queue == queues.TASKS else []
        return ObservedConsumer(await self._broker.consume(queue, prefetch=prefetch), noted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


class ObservedConsumer:
    """See `Observed`."""

    def __init__(self, consumer: Consumer, noted: list[str]) -> None:
        self._consumer = consumer
        self._noted = noted
        self.was_cut_off = False

    async def receive(self, max_messages: int) -> list[Delivery]:
        return await self._consumer.receive(max_messages)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await self._consumer.acknowledge(deliveries)
        self._noted.append("acknowledge")

    async def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        await self._consumer.reject(deliveries, requeue=requeue)
        self._noted.append("reject")

    async def stop(self) -> None:
        await self._consumer.stop()

    async def close(self) -> None:
        await self._consumer.close()

    @property
    def since(self) -> float | None:
        return None if self.was_cut_off else self._consumer.since


class Deaf(ObservedConsumer):
    """A consumer whose acknowledgements do not arrive."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(consumer, [])
        self.missed = 0

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.missed += 1


class Bench:
    """A worker at work, and what goes in and comes out."""

    def __init__(
        self,
        broker: Observed,
        engine: Engine,
        *,
        time_limit_s: float = 60.0,
        hold_s: float = 3600.0,
        pulse_s: float = 3600.0,
    ) -> None:
        self.broker = broker
        self.engine = engine
        self.stopping = asyncio.Event()
        self.exits: list[int] = []
        self.models = Changing()
        self.worker = Worker(
            broker,
            engine,
            self.models,
            worker_id="worker-7",
            pulse_s=pulse_s,
            time_limit_s=lambda model, version: time_limit_s,
            hold_s=hold_s,
            stopping=self.stopping,
            exit_process=self._exit,
        )

    def _exit(self, status: int) -> None:
        self.exits.append(status)
        raise Exited

    @asynccontextmanager
    async def working(self) -> AsyncIterator["asyncio.Task[None]"]:
        """The worker's task; stopped, and its consumer closed, at the end."""
        consumer = await self.broker.consume(queues.TASKS, prefetch=1)
        working = asyncio.create_task(self.worker.work(consumer))
        try:
            yield working
        finally:
            self.stopping.set()
            await asyncio.wait({working})
            await consumer.close()

    async def put(self, *payloads: str, model: str = "echo") -> list[UUID]:
        """Publish one envelope, with a task for each payload."""
        envelope = envelope_of(*payloads, model=model)
        await self.broker.publish(queues.TASKS, encode(envelope), message_id=uuid7().hex)
        self.broker.noted.clear()
        return [task.id for task in envelope.tasks]

    async def results(self, envelopes: int) -> list[ResultEnvelope]:
        """Take this many result envelopes."""
        consumer = await self.broker.consume(queues.RESULTS, prefetch=64)
        taken: list[ResultEnvelope] = []
        while len(taken) < envelopes:
            deliveries = await consumer.receive(64)
            taken += [decode_results(delivery.body) for delivery in deliveries]
            await consumer.acknowledge(deliveries)
        await consumer.close()
        return taken

    async def depth(self, queue: str) -> tuple[int, int | None]:
        """How many wait in a queue, and how many are in somebody's hands."""
        depth = await self.broker.depth(queue)
        return depth.ready, depth.unacknowledged


def envelope_of(*payloads: str, model: str = "echo") -> TaskEnvelope:
    tasks = [Task(uuid7(), "input", msgspec.Raw(msgspec.json.encode(payload))) for payload in payloads]
    return TaskEnvelope(model=model, version="1.0.0", published_at=PUBLISHED_AT, tasks=tasks)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def redeliver(broker: Observed) -> None:
    """Take what waits and give it back, as a worker that dies does."""
    consumer = await broker.consume(queues.TASKS, prefetch=10)
    await consumer.reject(await consumer.receive(10), requeue=True)
    await consumer.close()


class Heard:
    """What is said of tasks that a worker keeps, by state."""

    def __init__(self, broker: Observed) -> None:
        self.said: list[TasksKept] = []
        self._events = broker.subscribe(queues.TASKS_KEPT)
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for body in self._events:
            self.said.append(decode_kept(body))

    @property
    def states(self) -> list[str]:
        return [each.state for each in self.said]

    async def close(self) -> None:
        await self._events.aclose()
        await self._task


async def takes(broker: Observed, count: int) -> list[Delivery]:
    consumer = await broker.consume(queues.TASKS, prefetch=count)
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += await consumer.receive(count)
    await consumer.acknowledge(taken)
    await consumer.close()
    return taken
