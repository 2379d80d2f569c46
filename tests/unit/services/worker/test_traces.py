"""Tasks that are part of a trace, in a worker on the embedded broker."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs
from tests.model_packages import ModelsThatAre
from tests.tracers import TRACE_ID, TRACEPARENT, noted

from foretell.broker.connect import connect
from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.contracts.messages import (
    Failure,
    Result,
    ResultEnvelope,
    Task,
    TaskEnvelope,
    decode_results,
    decode_tasks,
    encode,
)
from foretell.kit import tracing
from foretell.kit.clock import now, uuid7
from foretell.kit.tracing import TraceContext
from foretell.services.worker.work import Worker

_TRACE = TraceContext(TRACEPARENT, "vendor=1")
_OTHER = TraceContext(f"00-{'1' * 32}-{'2' * 16}-00")


class Engine:
    """Succeeds for `1`, fails for everything else, and notes what is bound for log lines meanwhile."""

    def __init__(self) -> None:
        self.bound: list[dict[str, Any]] = []

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        self.bound.append(structlog.contextvars.get_contextvars())
        failure = Failure("model_error", "It failed.")
        return [
            Result(task.id, output=task.payload) if bytes(task.payload) == b"1" else Result(task.id, error=failure)
            for task in envelope.tasks
        ]


class Bench:
    """A broker, an engine, and a worker that works until as many result envelopes are there as are waited for."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.engine = Engine()

    async def put(self, *tasks: tuple[bytes, TraceContext | None], redelivered: bool = False) -> list[UUID]:
        made = [Task(uuid7(), "input", msgspec.Raw(payload), trace) for payload, trace in tasks]
        envelope = TaskEnvelope(model="echo", version="1.0.0", published_at=now(), tasks=made)
        await self.broker.publish(queues.TASKS, encode(envelope), message_id=uuid7().hex)
        if redelivered:
            consumer = await self.broker.consume(queues.TASKS, prefetch=1)
            await consumer.reject(await consumer.receive(1), requeue=True)
            await consumer.close()
        return [task.id for task in made]

    async def results(self, envelopes: int = 1) -> list[ResultEnvelope]:
        stopping = asyncio.Event()
        worker = Worker(
            self.broker,
            self.engine,
            ModelsThatAre(),
            worker_id="worker-7",
            pulse_s=3600.0,
            time_limit_s=lambda *_: 60.0,
            stopping=stopping,
        )
        consumer = await self.broker.consume(queues.TASKS, prefetch=1)
        working = asyncio.create_task(worker.work(consumer))
        listener = await self.broker.consume(queues.RESULTS, prefetch=64)
        taken: list[ResultEnvelope] = []
        while len(taken) < envelopes:
            deliveries = await listener.receive(64)
            taken += [decode_results(delivery.body) for delivery in deliveries]
            await listener.acknowledge(deliveries)
        stopping.set()
        await working
        await consumer.close()
        await listener.close()
        return taken


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    broker = await connect(f"sqlite:///{tmp_path / 'broker.db'}", name="test")
    await broker.ensure_queue(queues.TASKS)
    await broker.ensure_queue(queues.RESULTS)
    yield Bench(broker)
    await broker.close()
    assert tracing.current() is None


async def test_a_trace_goes_from_the_task_to_its_result(bench: Bench) -> None:
    ids = await bench.put((b"1", _TRACE), (b"1", None), (b"0", _OTHER), (b"1", TraceContext("nonsense")))
    with capture_logs() as lines:
        (answer,) = await bench.results()
    assert [result.id for result in answer.results] == ids
    assert [result.trace for result in answer.results] == [_TRACE, None, _OTHER, None]
    assert [result.error is None for result in answer.results] == [True, True, False, True]
    runs = [line for line in lines if line["event"] == "task_run"]
    assert [(line["prediction_id"], line["outcome"], line["trace.id"]) for line in runs] == [
        (ids[0], "succeeded", TRACE_ID),
        (ids[2], "model_error", "1" * 32),
    ]
    assert {(line["model"], line["version"]) for line in runs} == {("echo", "1.0.0")}
    # An envelope of several belongs to none of them.
    assert bench.engine.bound == [{}]


async def test_all_that_is_done_for_a_task_alone_belongs_to_its_trace(bench: Bench) -> None:
    await bench.put((b"1", _TRACE))
    await bench.results()
    assert bench.engine.bound == [tracing.fields(_TRACE)]


async def test_without_traces_nothing_is_said_of_tasks(bench: Bench) -> None:
    await bench.put((b"1", None), (b"1", None))
    with noted() as notebook, capture_logs() as lines:
        (answer,) = await bench.results()
    assert [result.trace for result in answer.results] == [None, None]
    assert [line["event"] for line in lines] == ["envelope_run"]
    assert notebook.spans == []


async def test_an_envelope_that_is_split_keeps_its_traces(bench: Bench) -> None:
    ids = await bench.put((b"1", _TRACE), (b"1", None), redelivered=True)
    answers = await bench.results(2)
    traces = {result.id: result.trace for answer in answers for result in answer.results}
    assert traces == {ids[0]: _TRACE, ids[1]: None}


async def test_where_spans_are_recorded_each_traced_run_is_one(bench: Bench) -> None:
    ids = await bench.put((b"1", _TRACE), (b"1", None), (b"0", _OTHER))
    with noted() as notebook:
        (answer,) = await bench.results()
    first, second = notebook.spans
    assert [result.trace for result in answer.results] == [first.context, None, second.context]
    assert (first.name, first.kind, first.parent, first.ended, first.error) == (
        "worker run",
        "consumer",
        _TRACE,
        True,
        "",
    )
    assert (second.parent, second.ended, second.error) == (_OTHER, True, "model_error")
    assert first.attributes == {
        "foretell.prediction.id": str(ids[0]),
        "foretell.model.name": "echo",
        "foretell.model.version": "1.0.0",
        "foretell.worker.id": "worker-7",
        "messaging.destination.name": "ml_tasks",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": 3,
    }


class Hanging(Engine):
    """Does not answer until it is left behind."""

    def __init__(self) -> None:
        super().__init__()
        self.left = threading.Event()

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        self.left.wait()
        return []


async def test_runs_that_hang_end_as_such(bench: Bench) -> None:
    ids = await bench.put((b"1", _TRACE), (b"1", _OTHER))
    with noted() as notebook:
        engine = Hanging()
        stopping = asyncio.Event()
        worker = Worker(
            bench.broker,
            engine,
            ModelsThatAre(),
            worker_id="worker-7",
            pulse_s=3600.0,
            time_limit_s=lambda *_: 0.05,
            stopping=stopping,
            exit_process=lambda status: stopping.set(),
        )
        consumer = await bench.broker.consume(queues.TASKS, prefetch=1)
        await worker.work(consumer)
        engine.left.set()
        await consumer.close()
    # Their tasks come again, each alone, and in the same trace.
    assert [(span.ended, span.error) for span in notebook.spans] == [(True, "split")] * 2
    consumer = await bench.broker.consume(queues.TASKS, prefetch=2)
    tasks: list[Task] = []
    while len(tasks) < 2:
        tasks += [decode_tasks(delivery.body).tasks[0] for delivery in await consumer.receive(2)]
    await consumer.close()
    assert {task.id: task.trace for task in tasks} == {ids[0]: _TRACE, ids[1]: _OTHER}
