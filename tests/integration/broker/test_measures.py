"""What is measured of publishing and receiving, at both brokers."""

import pytest
from prometheus_client import REGISTRY
from tests.integration.broker.conftest import Place, take

from foretell.broker.port import Unroutable
from foretell.contracts import queues


def _publishes(outcome: str) -> float:
    return REGISTRY.get_sample_value("foretell_broker_publishes_total", {"outcome": outcome}) or 0.0


def _timed() -> float:
    return REGISTRY.get_sample_value("foretell_broker_publish_duration_seconds_count") or 0.0


def _redeliveries(queue: str) -> float | None:
    return REGISTRY.get_sample_value("foretell_broker_redeliveries_total", {"queue": queue})


async def test_publishes_are_counted_by_outcome(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(queues.TASKS)
    confirmed, failed, timed = _publishes("confirmed"), _publishes("failed"), _timed()
    for number in range(3):
        await broker.publish(queues.TASKS, b"task", message_id=str(number))
    with pytest.raises(Unroutable):
        await broker.publish("nobody", b"task", message_id="lost")
    # An event is no message that the broker keeps.
    await broker.publish_event(queues.PREDICTION_FINISHED, b"event")
    assert _publishes("confirmed") - confirmed == 3
    assert _publishes("failed") - failed == 1
    assert _timed() - timed == 3


async def test_what_comes_again_is_counted_by_queue(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(queues.TASKS, prefetch=10)
    before = _redeliveries(queues.TASKS)
    assert before is not None
    for number in range(2):
        await broker.publish(queues.TASKS, b"task", message_id=str(number))
    first, second = await take(consumer, 2)
    assert _redeliveries(queues.TASKS) == before
    await consumer.acknowledge([second])
    for attempt in (2, 3):
        await consumer.reject([first], requeue=True)
        (first,) = await take(consumer, 1)
        assert first.attempts == attempt
    assert _redeliveries(queues.TASKS) == before + 2
    await consumer.reject([first], requeue=False)
    dead = await broker.consume(queues.dead_queue(queues.TASKS), prefetch=1)
    assert len(await take(dead, 1)) == 1
    # It is there for the first time, and nobody handles what is dead.
    assert _redeliveries(queues.TASKS) == before + 2
    assert _redeliveries(queues.dead_queue(queues.TASKS)) is None
