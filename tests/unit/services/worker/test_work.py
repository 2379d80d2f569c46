"""A worker with an engine that does as it is told, on the embedded broker."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.model_packages import ModelsThatAre

from foretell.broker.connect import connect
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
    decode_tasks,
    encode,
)
from foretell.inference.loading import State
from foretell.kit.clock import now, uuid7
from foretell.services.worker import work
from foretell.services.worker.work import EXIT_HANGING_MODEL, Worker

_PUBLISHED_AT = datetime(2025, 11, 16, 9, 30, tzinfo=UTC)


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


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Observed]:
    broker = await connect(f"sqlite:///{tmp_path / 'broker.db'}", name="test")
    await broker.ensure_queue(queues.TASKS)
    await broker.ensure_queue(queues.RESULTS)
    yield Observed(broker)
    await broker.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    # Threads that hang would keep the tests from ending.
    engine.released.set()


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
    return TaskEnvelope(model=model, version="1.0.0", published_at=_PUBLISHED_AT, tasks=tasks)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_results_are_handed_back_before_the_acknowledgement(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a", "fail", "b")
    async with bench.working():
        (answer,) = await bench.results(1)
        await _until(lambda: "acknowledge" in broker.noted)
    assert broker.noted == ["publish ml_results", "acknowledge"]
    assert await bench.depth(queues.TASKS) == (0, 0)
    assert (answer.model, answer.version, answer.worker_id) == ("echo", "1.0.0", "worker-7")
    assert answer.published_at == _PUBLISHED_AT
    assert _PUBLISHED_AT < answer.started_at <= answer.finished_at
    assert [result.id for result in answer.results] == ids
    assert [isinstance(result.output, msgspec.Raw) for result in answer.results] == [True, False, True]
    assert answer.results[1].error == Failure("model_error", "The model failed on this input.")
    assert bench.worker.tasks_done == 3
    assert not bench.worker.busy
    assert bench.worker.current_task is None
    assert bench.exits == []


async def test_envelopes_are_run_whole_and_in_order(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    envelopes = [await bench.put("a"), await bench.put("b", "c"), await bench.put("d")]
    async with bench.working():
        await bench.results(3)
    assert engine.runs == envelopes


@pytest.mark.parametrize(
    "garbage",
    [b"", b"not JSON", b"{}", b"\xff\xfe", b"[" * 100_000, encode(envelope_of("a")).replace(b"09:30:00Z", b"09:30:00")],
    ids=["empty", "text", "no envelope", "no text", "deep", "time without zone"],
)
async def test_garbage_goes_to_the_dead_letters_and_the_next_is_run(
    broker: Observed, engine: Engine, garbage: bytes
) -> None:
    bench = Bench(broker, engine)
    await broker.publish(queues.TASKS, garbage, message_id="garbage")
    ids = await bench.put("a")
    async with bench.working() as working:
        (answer,) = await bench.results(1)
        assert not working.done()
    assert [result.id for result in answer.results] == ids
    assert await bench.depth(queues.dead_queue(queues.TASKS)) == (1, 0)
    assert broker.noted[0] == "reject"


async def _redeliver(broker: Observed) -> None:
    """Take what waits and give it back, as a worker that dies does."""
    consumer = await broker.consume(queues.TASKS, prefetch=10)
    await consumer.reject(await consumer.receive(10), requeue=True)
    await consumer.close()


async def test_what_comes_again_with_many_tasks_is_split(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a", "b", "c")
    await _redeliver(broker)
    async with bench.working():
        answers = await bench.results(3)
    # If one of them ended the worker, it is alone when it does so again.
    assert sorted(engine.runs) == sorted([identifier] for identifier in ids)
    assert sorted(result.id for answer in answers for result in answer.results) == sorted(ids)
    assert {answer.published_at for answer in answers} == {_PUBLISHED_AT}
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_a_large_envelope_is_split_whole(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put(*["a"] * 150)
    await _redeliver(broker)
    async with bench.working():
        answers = await bench.results(150)
    assert sorted(answer.results[0].id for answer in answers) == sorted(ids)


async def test_a_task_that_comes_again_alone_is_run(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a")
    await _redeliver(broker)
    async with bench.working():
        await bench.results(1)
    assert engine.runs == [ids]


# A model that hangs.


async def test_a_task_that_hangs_fails_and_the_process_ends(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    ids = await bench.put("hang")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    (answer,) = await bench.results(1)
    assert [result.id for result in answer.results] == ids
    assert answer.results[0].error == Failure("timeout", "The model did not answer within 0.1 seconds.")
    assert bench.exits == [EXIT_HANGING_MODEL] == [70]
    # Settled as it is, it must not hang the next worker too.
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_many_tasks_of_which_one_hangs_are_split_and_the_process_ends(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    ids = await bench.put("a", "hang", "b")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    assert bench.exits == [70]
    assert await bench.depth(queues.RESULTS) == (0, 0)
    assert await bench.depth(queues.TASKS) == (3, 0)
    consumer = await broker.consume(queues.TASKS, prefetch=3)
    deliveries: list[Delivery] = []
    while len(deliveries) < 3:
        deliveries += await consumer.receive(3)
    singles = [decode_tasks(delivery.body) for delivery in deliveries]
    assert sorted(task.id for single in singles for task in single.tasks) == sorted(ids)
    assert [len(single.tasks) for single in singles] == [1, 1, 1]
    assert [delivery.attempts for delivery in deliveries] == [1, 1, 1]
    await consumer.close()


async def test_of_many_tasks_only_the_one_that_hangs_fails(broker: Observed, engine: Engine) -> None:
    ids = await Bench(broker, engine).put("a", "hang", "b")
    # As the supervisor does: whoever leaves is replaced.
    for _ in range(3):
        bench = Bench(broker, engine, time_limit_s=0.5)
        async with bench.working() as working:
            await asyncio.wait({working}, timeout=3)
    answers = await Bench(broker, engine).results(3)
    failures = {result.id: result.error and result.error.code for answer in answers for result in answer.results}
    assert failures == {ids[0]: None, ids[1]: "timeout", ids[2]: None}


# A broker that is away.


async def test_results_are_published_as_soon_as_the_broker_is_back(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a")
    broker.away = 1
    async with bench.working():
        (answer,) = await bench.results(1)
        await _until(lambda: "acknowledge" in broker.noted)
    assert [result.id for result in answer.results] == ids
    assert broker.noted == ["no publish ml_results", "publish ml_results", "acknowledge"]
    # Not run again: that is what trying again is for.
    assert engine.runs == [ids]


async def test_told_to_stop_it_leaves_behind_what_nobody_takes(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    await bench.put("a")
    broker.away = 1_000_000
    async with bench.working() as working:
        await _until(lambda: bool(broker.noted))
        bench.stopping.set()
        await working
    assert "acknowledge" not in broker.noted
    assert not bench.worker.busy
    # With the consumer gone, the next worker gets it.
    assert await bench.depth(queues.TASKS) == (1, 0)


async def test_told_to_stop_with_a_model_that_hangs_and_a_broker_that_is_away_it_ends(
    broker: Observed, engine: Engine
) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    await bench.put("hang")
    broker.away = 1_000_000
    async with bench.working() as working:
        await _until(lambda: bool(broker.noted))
        bench.stopping.set()
        with pytest.raises(Exited):
            await working
    assert bench.exits == [70]
    assert await bench.depth(queues.TASKS) == (1, 0)


# A model that is being loaded.


async def _takes(broker: Observed, count: int) -> list[Delivery]:
    consumer = await broker.consume(queues.TASKS, prefetch=count)
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += await consumer.receive(count)
    await consumer.acknowledge(taken)
    await consumer.close()
    return taken


async def test_what_is_being_loaded_is_held_and_others_are_run(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    slow = [await bench.put("a", model="slow"), await bench.put("b", model="slow")]
    fast = await bench.put("c")
    async with bench.working():
        await bench.results(1)
        assert engine.runs == [fast]
        await _until(lambda: bench.worker.postponed == 2)
        assert not bench.worker.busy
        bench.models.states["slow"] = State.READY
        bench.worker.models_changed()
        await bench.results(2)
    assert sorted(engine.runs[1:]) == sorted(slow)
    assert bench.worker.postponed == 0
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_what_is_held_goes_back_after_a_while_for_somebody_who_has_the_model(
    broker: Observed, engine: Engine
) -> None:
    bench = Bench(broker, engine, hold_s=0.05)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", "b", model="slow")
    async with bench.working():
        await _until(lambda: broker.noted.count("publish ml_tasks") >= 2)
    other = Bench(broker, engine)
    async with other.working():
        (answer,) = await other.results(1)
    # Whole and once, however often it was given back.
    assert engine.runs == [ids]
    assert [result.id for result in answer.results] == ids
    assert answer.published_at == _PUBLISHED_AT


async def test_told_to_stop_it_gives_back_what_it_holds(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    ids = [await bench.put("a", model="slow"), await bench.put("b", model="slow")]
    async with bench.working():
        await _until(lambda: bench.worker.postponed == 2)
    copies = await _takes(broker, 2)
    assert [[task.id for task in decode_tasks(copy.body).tasks] for copy in copies] == ids
    # It is no fault of theirs: nothing counts towards the delivery limit.
    assert [copy.attempts for copy in copies] == [1, 1]


async def test_a_model_that_hangs_does_not_take_along_what_is_held(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", model="slow")
    await bench.put("hang")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    (copy,) = await _takes(broker, 1)
    assert [task.id for task in decode_tasks(copy.body).tasks] == ids


async def test_to_be_held_does_not_save_an_input_that_kills_its_worker(broker: Observed, engine: Engine) -> None:
    """A copy is a new message to the broker; how often its worker died is not forgotten with it."""
    await Bench(broker, engine).put("a", model="slow")
    died = 0
    while (await broker.depth(queues.TASKS)).ready:
        # Somebody takes it and dies; the worker that comes next is still loading, and gives it back.
        await _redeliver(broker)
        died += 1
        bench = Bench(broker, engine, hold_s=0.01)
        bench.models.states["slow"] = State.LOADING
        async with bench.working():
            while not any("publish" in note for note in broker.noted):
                if (await broker.depth(queues.dead_queue(queues.TASKS))).ready:
                    break
                await asyncio.sleep(0.01)
        broker.noted.clear()
    assert died == queues.DELIVERY_LIMIT
    assert await bench.depth(queues.dead_queue(queues.TASKS)) == (1, 0)
    assert engine.runs == []


async def test_tasks_of_a_model_that_cannot_be_loaded_fail_and_say_why(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    bench.models.states["bent"] = State.LOADING
    ids = await bench.put("a", "b", model="bent")
    async with bench.working():
        await _until(lambda: bench.worker.postponed == 1)
        bench.models.states["bent"] = State.FAILED
        bench.worker.models_changed()
        (answer,) = await bench.results(1)
    failure = Failure("model_error", "The model bent 1.0.0 could not be loaded on this worker. It is bent.")
    assert {result.id: result.error for result in answer.results} == dict.fromkeys(ids, failure)
    assert engine.runs == []


async def test_time_in_which_nobody_could_run_is_not_the_models_fault(broker: Observed, engine: Engine) -> None:
    """A model that is loaded beside the call may keep the interpreter's lock for longer than the call may take."""
    bench = Bench(broker, engine, time_limit_s=1.5)
    engine.wait_in_every_run = True
    await bench.put("a")
    async with bench.working():
        await asyncio.to_thread(engine.entered.wait)
        # Nothing in this process can look at the clock meanwhile, nor can the call go on.
        threading.Timer(2.0, engine.released.set).start()
        time.sleep(2.0)
        (answer,) = await bench.results(1)
    assert answer.results[0].error is None
    assert bench.exits == []


# What takes long, and what comes again.


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


@pytest.fixture
async def heard(broker: Observed) -> AsyncIterator[Heard]:
    heard = Heard(broker)
    while not broker.connected:
        await asyncio.sleep(0.01)
    yield heard
    await heard.close()


async def test_a_short_run_is_not_spoken_of(broker: Observed, engine: Engine, heard: Heard) -> None:
    bench = Bench(broker, engine)
    await bench.put("a")
    async with bench.working():
        await bench.results(1)
    assert heard.said == []


async def test_a_long_run_is_acknowledged_while_it_lasts_and_nothing_is_taken_meanwhile(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02)
    engine.wait_in_every_run = True
    ids = await bench.put("a", "b")
    async with bench.working():
        await _until(lambda: "acknowledge" in broker.noted)
        assert await bench.depth(queues.TASKS) == (0, 0)
        next_ids = await bench.put("c")
        await _until(lambda: heard.states.count("alone") > 3)
        # Somebody else may have it.
        assert await bench.depth(queues.TASKS) == (1, 0)
        said = list(heard.said)
        engine.released.set()
        answers = await bench.results(2)
        await _until(lambda: not bench.worker.busy)
    assert engine.runs == [ids, next_ids]
    assert [[result.id for result in answer.results] for answer in answers] == [ids, next_ids]
    assert [each.state for each in said[:4]] == ["held", "held", "held", "alone"]
    assert {(each.worker_id, *each.ids) for each in said} == {("worker-7", *ids)}
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_a_run_of_which_nothing_can_be_said_is_not_released(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02)
    engine.wait_in_every_run = True
    await bench.put("a")
    broker.takes_events = False
    async with bench.working():
        await _until(lambda: broker.untaken_events > 2 * queues.PULSES_UNTIL_RELEASED)
        assert "acknowledge" not in broker.noted
        assert (await broker.depth(queues.TASKS)).unacknowledged == 1
        broker.takes_events = True
        await _until(lambda: "acknowledge" in broker.noted and bool(heard.said))
        engine.released.set()
        await bench.results(1)
    assert heard.states[0] == "alone"


async def test_told_to_stop_during_a_long_run_it_answers_and_ends(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02)
    engine.wait_in_every_run = True
    await bench.put("a")
    async with bench.working() as working:
        await _until(lambda: "alone" in heard.states)
        bench.stopping.set()
        await bench.put("b")
        engine.released.set()
        await bench.results(1)
        await working
    assert await bench.depth(queues.TASKS) == (1, 0)


async def test_many_that_hang_after_they_were_released_are_given_back(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02, time_limit_s=1.0)
    ids = await bench.put("a", "hang")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    assert heard.states[-2:] == ["alone", "returned"]
    copies = await _takes(broker, 2)
    assert sorted(task.id for copy in copies for task in decode_tasks(copy.body).tasks) == sorted(ids)


async def test_a_task_that_comes_to_a_second_worker_is_spoken_of_at_once(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a")
    await _redeliver(broker)
    async with bench.working():
        await bench.results(1)
        await _until(lambda: bool(heard.said))
    # If it kills this one too, the next copy says how often that has happened.
    assert heard.said == [TasksKept("worker-7", ids, "held", 2)]
    # And it may do so at once: the word is out before.
    assert broker.confirmed_events == [True]


async def test_a_worker_that_was_cut_off_says_so(
    broker: Observed, engine: Engine, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_LOOK_EVERY_S", 0.01)
    bench = Bench(broker, engine)
    consumer = await broker.consume(queues.TASKS, prefetch=1)
    working = asyncio.create_task(bench.worker.work(consumer))
    await bench.put("a")
    await bench.results(1)
    assert heard.said == []
    broker.takes_events = False
    consumer.was_cut_off = True
    await _until(lambda: broker.untaken_events > 2)
    # Until it has worked.
    broker.takes_events = True
    await _until(lambda: bool(heard.said))
    bench.stopping.set()
    await working
    await consumer.close()
    assert heard.said == [TasksKept("worker-7", [], "held", cut_off=True)]
    assert broker.confirmed_events == [True]


async def test_what_was_answered_a_moment_ago_is_not_run_again(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    await bench.put("a")
    consumer = await broker.consume(queues.TASKS, prefetch=1)
    deaf = Deaf(consumer)
    working = asyncio.create_task(bench.worker.work(deaf))
    await bench.results(1)
    await _until(lambda: deaf.missed == 1)
    # Its acknowledgement is lost, with the connection: so it comes again.
    await consumer.close()
    working.cancel()
    await asyncio.wait({working})
    async with bench.working():
        await _until(lambda: "acknowledge" in broker.noted)
    assert len(engine.runs) == 1
    assert await bench.depth(queues.TASKS) == (0, 0)
    assert await bench.depth(queues.RESULTS) == (0, 0)


async def test_what_is_held_until_its_model_is_loaded_is_spoken_of(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.01)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", "b", model="slow")
    async with bench.working():
        await _until(lambda: len(heard.said) > 1)
        bench.models.states["slow"] = State.READY
        bench.worker.models_changed()
        await bench.results(1)
        await _until(lambda: "returned" in heard.states)
    # What follows is said of its run.
    until = heard.states.index("returned")
    assert heard.said[:until] == [TasksKept("worker-7", ids, "alone", 0)] * until
    assert heard.said[until] == TasksKept("worker-7", ids, "returned", 0)


async def test_what_nobody_can_be_told_of_is_not_held(broker: Observed, engine: Engine, heard: Heard) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", model="slow")
    broker.takes_events = False
    async with bench.working():
        await _until(lambda: broker.noted[:2] == [f"publish {queues.TASKS}", "acknowledge"])
        assert bench.worker.postponed == 0
        broker.takes_events = True
        await _until(lambda: bench.worker.postponed == 1 and bool(heard.said))
    assert heard.said[0] == TasksKept("worker-7", ids, "alone", 0)


async def test_told_to_stop_while_the_broker_is_away_it_leaves_what_it_can_neither_hold_nor_give_back(
    broker: Observed, engine: Engine
) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    await bench.put("a", model="slow")
    broker.takes_events, broker.away = False, 1_000
    async with bench.working() as working:
        await _until(lambda: f"no publish {queues.TASKS}" in broker.noted)
        bench.stopping.set()
        await working
    assert "acknowledge" not in broker.noted
    assert await bench.depth(queues.TASKS) == (1, 0)


# The end.


async def test_told_to_stop_it_finishes_the_envelope_in_hand(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    engine.wait_in_every_run = True
    ids = await bench.put("a")
    await bench.put("b")
    async with bench.working() as working:
        await asyncio.to_thread(engine.entered.wait)
        assert bench.worker.busy
        task = bench.worker.current_task
        assert task is not None
        assert task.pop("since") <= now()
        # Never what is in it.
        assert task == {"model": "echo", "version": "1.0.0", "tasks": 1, "prediction_id": str(ids[0])}
        bench.stopping.set()
        await asyncio.sleep(0.05)
        assert not working.done()
        engine.released.set()
        await working
    (answer,) = await bench.results(1)
    assert [result.id for result in answer.results] == ids
    assert await bench.depth(queues.TASKS) == (1, 0)


async def test_told_to_stop_while_nothing_waits_it_ends(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    async with bench.working() as working:
        await asyncio.sleep(0.05)
        bench.stopping.set()
        await working
    assert engine.runs == []


async def test_an_engine_that_raises_ends_the_worker_and_loses_nothing(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    await bench.put("raise")
    async with bench.working() as working:
        with pytest.raises(RuntimeError, match="never raises"):
            await working
    assert await bench.depth(queues.TASKS) == (1, 0)
    assert await bench.depth(queues.RESULTS) == (0, 0)
