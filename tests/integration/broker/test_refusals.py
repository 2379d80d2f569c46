"""Messages that are too large for the broker, on both: refused for good, and nobody else is disturbed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic
from tests.integration.broker.conftest import PATIENCE_S, Place, take, until
from tests.model_packages import ModelsThatAre
from tests.services_rabbitmq import STRICT_BYTES, PrivateRabbitMQ

from foretell.broker.port import Broker, BrokerUnavailable, MessageRefused
from foretell.broker.rabbitmq import RabbitBroker
from foretell.contracts import queues
from foretell.contracts.messages import Result, Task, TaskEnvelope, decode_results, encode
from foretell.kit.clock import uuid7
from foretell.services.worker.work import Worker


class StrictPlace(Place):
    """A place that takes messages up to `most_bytes`."""

    most_bytes = queues.MAX_MESSAGE_BYTES


@pytest.fixture
async def strict_rabbitmq_place(strict_rabbitmq: PrivateRabbitMQ, private_prefix: str) -> AsyncIterator[StrictPlace]:
    place = StrictPlace(strict_rabbitmq.url, private_prefix)
    place.most_bytes = STRICT_BYTES
    try:
        yield place
    finally:
        await place.close()


@pytest.fixture
async def strict_sqlite_place(tmp_path: Path) -> AsyncIterator[StrictPlace]:
    place = StrictPlace(f"sqlite:///{tmp_path / 'broker.db'}", "test.")
    try:
        yield place
    finally:
        await place.close()


@pytest.fixture(params=["rabbitmq", "sqlite"])
def strict(request: pytest.FixtureRequest) -> StrictPlace:
    found: StrictPlace = request.getfixturevalue(f"strict_{request.param}_place")
    return found


async def test_what_is_too_large_is_refused_again_and_again(strict: StrictPlace) -> None:
    broker = await strict.open()
    consumer = await broker.consume(queues.TASKS, prefetch=10)
    for _ in range(3):
        with pytest.raises(MessageRefused, match=str(strict.most_bytes + 1)):
            await broker.publish(
                queues.TASKS, bytes(strict.most_bytes + 1), message_id="too large", timeout_s=PATIENCE_S
            )
    await broker.publish(queues.TASKS, bytes(strict.most_bytes), message_id="just right", timeout_s=PATIENCE_S)
    [delivery] = await take(consumer, 1)
    assert (delivery.message_id, len(delivery.body)) == ("just right", strict.most_bytes)
    await until(lambda: broker.connected)


async def test_a_refusal_disturbs_no_neighbour(strict: StrictPlace) -> None:
    broker = await strict.open()
    consumer = await broker.consume(queues.TASKS, prefetch=1000)
    bodies = [bytes(strict.most_bytes + 1) if number % 10 == 3 else b"small" for number in range(40)]
    outcomes = await asyncio.gather(
        *(
            broker.publish(queues.TASKS, body, message_id=str(number), timeout_s=PATIENCE_S)
            for number, body in enumerate(bodies)
        ),
        return_exceptions=True,
    )
    refused = {number for number, outcome in enumerate(outcomes) if isinstance(outcome, MessageRefused)}
    assert refused == {3, 13, 23, 33}
    assert {type(outcome) for outcome in outcomes} <= {MessageRefused, type(None)}
    # What was under way on the same channel may have been stored before it was closed, and once more after that.
    received: set[str] = set()
    while len(received) < 36:
        received |= {delivery.message_id for delivery in await consumer.receive(100)}
    assert received == {str(number) for number in range(40)} - {str(number) for number in refused}


async def test_a_connection_that_ends_over_one_channel_costs_the_others_no_message(
    strict_rabbitmq_place: StrictPlace,
) -> None:
    """What happens now and then when more arrives on a channel that was closed a moment ago, brought about."""
    place = strict_rabbitmq_place
    broker = await place.open()
    assert isinstance(broker, RabbitBroker)
    consumer = await broker.consume(queues.TASKS, prefetch=1000)
    await broker.publish(queues.TASKS, b"first", message_id="first", timeout_s=PATIENCE_S)
    for round_ in range(3):
        publishes = [
            asyncio.ensure_future(
                broker.publish(queues.TASKS, b"small", message_id=f"{round_} {number}", timeout_s=PATIENCE_S)
            )
            for number in range(20)
        ]
        connection = await broker._publishing.connection()
        never_opened = ChannelFrame.marshall(channel_number=999, frames=[Basic.Ack(1)])
        connection.write_queue.put_nowait(never_opened)
        await asyncio.sleep(0)
        await asyncio.gather(*publishes)
        assert broker._publishing.connections == round_ + 2
    expected = {"first"} | {f"{round_} {number}" for round_ in range(3) for number in range(20)}
    received: set[str] = set()
    while len(received) < len(expected):
        received |= {delivery.message_id for delivery in await consumer.receive(100)}
    assert received == expected


async def test_an_event_that_is_too_large_costs_no_later_one(strict: StrictPlace) -> None:
    broker = await strict.open()
    events = broker.subscribe(queues.PREDICTION_FINISHED)
    await until(lambda: broker.connected)
    for _ in range(2):
        with suppress(MessageRefused):
            await broker.publish_event(queues.PREDICTION_FINISHED, bytes(strict.most_bytes + 1), timeout_s=PATIENCE_S)
        heard = asyncio.ensure_future(anext(events))
        while not heard.done():
            # An event is a hint: one that leaves just when the channel is closed is lost.
            with suppress(BrokerUnavailable):
                await broker.publish_event(queues.PREDICTION_FINISHED, b"later", timeout_s=PATIENCE_S)
            await asyncio.wait({heard}, timeout=0.2)
        assert await heard == b"later"


class Echo:
    """Answers with the payload, `factor` times as large."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        outputs = [b'"' + bytes(task.payload)[1:-1] * self._factor + b'"' for task in envelope.tasks]
        return [
            Result(task.id, output=msgspec.Raw(output)) for task, output in zip(envelope.tasks, outputs, strict=True)
        ]


def _envelope(sizes: Sequence[int]) -> TaskEnvelope:
    tasks = [Task(uuid7(), "input", msgspec.Raw(b'"' + b"x" * size + b'"')) for size in sizes]
    return TaskEnvelope("echo", "1.0.0", datetime(2025, 11, 16, 9, 30, tzinfo=UTC), tasks)


async def _answers(broker: Broker, count: int) -> dict[UUID, str | None]:
    """The error code of each of `count` results, None where it succeeded."""
    consumer = await broker.consume(queues.RESULTS, prefetch=100)
    answers: dict[UUID, str | None] = {}
    async with asyncio.timeout(PATIENCE_S):
        while len(answers) < count:
            for delivery in await consumer.receive(100):
                for result in decode_results(delivery.body).results:
                    answers[result.id] = result.error and result.error.code
                await consumer.acknowledge([delivery])
    return answers


async def test_a_worker_goes_on_after_results_that_the_broker_refuses(
    strict_rabbitmq_place: StrictPlace,
) -> None:
    broker = await strict_rabbitmq_place.open()
    await broker.ensure_queue(queues.TASKS)
    await broker.ensure_queue(queues.RESULTS)
    # Answers of 30 kB: two of them are more than the broker takes. One answer alone is too large as well.
    sizes = [3000] * 9
    sizes[4] = int(STRICT_BYTES / 10) + 1
    envelope = _envelope(sizes)
    stopping = asyncio.Event()
    worker = Worker(
        broker,
        Echo(10),
        ModelsThatAre(),
        worker_id="worker-7",
        time_limit_s=lambda *_: PATIENCE_S,
        stopping=stopping,
    )
    consumer = await broker.consume(queues.TASKS, prefetch=1)
    working = asyncio.create_task(worker.work(consumer))
    await broker.publish(queues.TASKS, encode(envelope), message_id="one")
    after = _envelope([10])
    await broker.publish(queues.TASKS, encode(after), message_id="two")
    answers = await _answers(broker, 10)
    stopping.set()
    await working
    expected: list[str | None] = [None] * 9
    expected[4] = "output_too_large"
    assert [answers[task.id] for task in envelope.tasks] == expected
    assert answers[after.tasks[0].id] is None
