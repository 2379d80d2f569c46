"""Answers and tasks that are too large: each fails by itself, and the worker goes on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.model_packages import ModelsThatAre

from foretell.broker.connect import connect
from foretell.broker.port import Broker, MessageRefused
from foretell.contracts import queues
from foretell.contracts.messages import (
    INPUT_TOO_LARGE,
    OUTPUT_TOO_LARGE,
    Failure,
    Result,
    Task,
    TaskEnvelope,
    decode_results,
    encode,
)
from foretell.kit.clock import uuid7
from foretell.services.worker.work import Worker


class Strict:
    """A broker that refuses messages of more than `most_bytes[queue]`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.most_bytes: dict[str, int] = {}
        self.refused: list[int] = []

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        if len(body) > self.most_bytes.get(queue, len(body)):
            self.refused.append(len(body))
            raise MessageRefused(size_bytes=len(body))
        await self._broker.publish(queue, body, message_id=message_id, headers=headers, timeout_s=timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


class Echo:
    """Answers with the payload."""

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        return [Result(task.id, output=task.payload) for task in envelope.tasks]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Strict]:
    broker = await connect(f"sqlite:///{tmp_path / 'broker.db'}", name="test")
    await broker.ensure_queue(queues.TASKS)
    await broker.ensure_queue(queues.RESULTS)
    yield Strict(broker)
    await broker.close()


def _envelope(*sizes: int) -> TaskEnvelope:
    tasks = [Task(uuid7(), "input", msgspec.Raw(b'"' + b"x" * size + b'"')) for size in sizes]
    return TaskEnvelope("echo", "1.0.0", datetime(2025, 11, 16, 9, 30, tzinfo=UTC), tasks)


async def _errors(broker: Strict, envelope: TaskEnvelope, *, came_before: bool = False) -> list[Failure | None]:
    """How the tasks of `envelope` end, in order; and that the worker takes the next one."""
    await broker._broker.publish(queues.TASKS, encode(envelope), message_id="one")
    if came_before:
        first = await broker.consume(queues.TASKS, prefetch=1)
        await first.reject(await first.receive(1), requeue=True)
        await first.close()
    after = _envelope(1)
    await broker._broker.publish(queues.TASKS, encode(after), message_id="two")
    stopping = asyncio.Event()
    worker = Worker(
        broker,
        Echo(),
        ModelsThatAre(),
        worker_id="worker-7",
        time_limit_s=lambda *_: 60.0,
        stopping=stopping,
        max_output_bytes=5000,
    )
    consumer = await broker.consume(queues.TASKS, prefetch=1)
    working = asyncio.create_task(worker.work(consumer))
    results = await broker.consume(queues.RESULTS, prefetch=100)
    errors: dict[object, Failure | None] = {}
    while len(errors) < len(envelope.tasks) + 1:
        for delivery in await results.receive(100):
            errors.update({result.id: result.error for result in decode_results(delivery.body).results})
            await results.acknowledge([delivery])
    stopping.set()
    await working
    await consumer.close()
    assert errors[after.tasks[0].id] is None
    assert (await broker.depth(queues.TASKS)).ready == 0
    return [errors[task.id] for task in envelope.tasks]


async def test_an_answer_that_is_larger_than_allowed_fails(broker: Strict) -> None:
    assert await _errors(broker, _envelope(10, 6000, 10)) == [None, OUTPUT_TOO_LARGE, None]


async def test_answers_that_the_broker_refuses_together_go_in_halves(broker: Strict) -> None:
    broker.most_bytes[queues.RESULTS] = 3000
    assert await _errors(broker, _envelope(*[1000] * 8)) == [None] * 8
    assert len(broker.refused) == 3


async def test_an_answer_that_the_broker_refuses_fails_alone(broker: Strict) -> None:
    broker.most_bytes[queues.RESULTS] = 3000
    assert await _errors(broker, _envelope(10, 4000, 10, 10)) == [None, OUTPUT_TOO_LARGE, None, None]


async def test_a_task_that_the_broker_no_longer_takes_fails_alone(broker: Strict) -> None:
    broker.most_bytes[queues.TASKS] = 3000
    expected = [None, INPUT_TOO_LARGE, None]
    assert await _errors(broker, _envelope(10, 4000, 10), came_before=True) == expected
