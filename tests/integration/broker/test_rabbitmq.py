"""What only RabbitMQ can do to us: restart, stop, forget a consumer, lose everything."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiormq
import pytest
from tests.integration.broker.conftest import PATIENCE_S, Place, nothing_comes, take, until
from tests.services_rabbitmq import PrivateRabbitMQ

from foretell.broker import health, rabbitmq_consumer, rabbitmq_link, rabbitmq_registration
from foretell.broker.port import Broker, BrokerUnavailable, Consumer
from foretell.broker.rabbitmq import RabbitBroker
from foretell.contracts.queues import TASKS, dead_queue


@pytest.fixture
async def private_place(private_rabbitmq: PrivateRabbitMQ, private_prefix: str) -> AsyncIterator[Place]:
    place = Place(private_rabbitmq.url, private_prefix)
    try:
        yield place
    finally:
        await place.close()


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let consumers ask more often whether they have been forgotten, for tests that wait for it."""
    monkeypatch.setattr(rabbitmq_registration, "CHECK_INTERVAL_S", 0.5)
    monkeypatch.setattr(rabbitmq_consumer, "IDLE_S", 1.0)
    monkeypatch.setattr(rabbitmq_consumer, "REFRESH_S", 3.0)


async def publish_at_last(broker: Broker, message_id: str) -> None:
    """Publish as the dispatcher does: again until it is confirmed."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await broker.publish(TASKS, b"", message_id=message_id)
                return
            except BrokerUnavailable:
                await asyncio.sleep(0.1)


async def test_a_deleted_queue_is_declared_again_and_consumed(rabbitmq_place: Place) -> None:
    broker = await rabbitmq_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    await until(lambda: broker.connected)
    waiting = asyncio.create_task(take(consumer, 1))
    other = await aiormq.connect(rabbitmq_place.url)
    channel = await other.channel()
    await channel.queue_delete(rabbitmq_place.prefix + TASKS)
    await channel.queue_delete(rabbitmq_place.prefix + dead_queue(TASKS))
    await other.close()
    assert (await broker.depth(TASKS)).ready == (await broker.depth(dead_queue(TASKS))).ready == 0
    # Without waiting for the consumer: a publisher that has seen the queue once brings it back by itself.
    await broker.publish(TASKS, b"", message_id="one")
    [delivery] = await waiting
    assert delivery.message_id == "one"
    await until(lambda: broker.connected)
    await consumer.reject([delivery], requeue=False)
    dead = await broker.consume(dead_queue(TASKS), prefetch=1)
    [buried] = await take(dead, 1)
    assert buried.message_id == "one", "the dead-letter queue is bound again, too"


async def test_a_consumer_that_was_forgotten_in_silence_is_rebuilt(rabbitmq_place: Place, looking_often: None) -> None:
    broker = await rabbitmq_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await until(lambda: broker.connected)
    # There is no other way to make RabbitMQ forget a consumer without a word: cancel it behind the adapter's back.
    channel = consumer._channel  # type: ignore[attr-defined]
    [tag] = channel.consumers
    await channel.basic_cancel(tag, nowait=True)
    await broker.publish(TASKS, b"", message_id="one")
    [delivery] = await take(consumer, 1)
    assert delivery.message_id == "one"


async def test_to_register_anew_in_good_order_is_no_break(rabbitmq_place: Place, looking_often: None) -> None:
    broker = await rabbitmq_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    assert consumer.since is None
    await until(lambda: broker.connected)
    fed_since, channel = consumer.since, consumer._channel  # type: ignore[attr-defined]
    assert fed_since is not None
    # It has had nothing for a while.
    await until(lambda: consumer._channel not in (None, channel))  # type: ignore[attr-defined]
    assert consumer.since == fed_since


async def test_a_consumer_whose_queue_was_replaced_at_once_is_rebuilt(
    rabbitmq_place: Place, looking_often: None
) -> None:
    broker, other = await rabbitmq_place.open(), await rabbitmq_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await until(lambda: broker.connected)
    connection = await aiormq.connect(rabbitmq_place.url)
    channel = await connection.channel()
    await channel.queue_delete(rabbitmq_place.prefix + TASKS)
    # RabbitMQ 3.10 now takes the old consumer for one of the new queue, and messages for it vanish on the way.
    await other.ensure_queue(TASKS)
    await other.publish(TASKS, b"", message_id="one")
    await connection.close()
    [delivery] = await take(consumer, 1)
    assert delivery.message_id == "one"


async def test_messages_of_somebody_else_are_read_as_far_as_they_go(rabbitmq_place: Place) -> None:
    broker = await rabbitmq_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await broker.ensure_queue(TASKS)
    other = await aiormq.connect(rabbitmq_place.url)
    channel = await other.channel()
    properties = aiormq.spec.Basic.Properties(headers={"number": 1, "list": ["a"], "text": "kept"})
    await channel.basic_publish(b"\xff", routing_key=rabbitmq_place.prefix + TASKS, properties=properties)
    await other.close()
    [delivery] = await take(consumer, 1)
    assert (delivery.body, delivery.headers) == (b"\xff", {"text": "kept"})


@pytest.mark.parametrize(
    ("headers", "attempts"),
    [
        ({"x-foretell-attempts": "1"}, 2),
        ({"foretell-earlier-attempts": "1"}, 2),
        ({"x-foretell-attempts": "1", "foretell-earlier-attempts": "1"}, 3),
    ],
    ids=["returned", "postponed", "both"],
)
async def test_counts_of_the_release_before_are_understood(
    rabbitmq_place: Place, headers: dict[str, str], attempts: int
) -> None:
    broker = await rabbitmq_place.open()
    await broker.ensure_queue(TASKS)
    await broker.publish(TASKS, b"", message_id="one", headers=headers)
    consumer = await broker.consume(TASKS, prefetch=1)
    [delivery] = await take(consumer, 1)
    assert (delivery.attempts, delivery.headers) == (attempts, {})
    # What is given back says it once, as the release before understands it, too.
    await consumer.stop()
    await consumer.close()
    other: Any = await aiormq.connect(rabbitmq_place.url)
    channel = await other.channel()
    copy = await channel.basic_get(rabbitmq_place.prefix + TASKS, no_ack=True)
    texts = {name: value for name, value in copy.header.properties.headers.items() if isinstance(value, str)}
    assert texts == {"foretell-earlier-attempts": str(attempts - 1)}
    await other.close()


async def test_a_queue_declared_with_other_settings_is_used_as_it_is(rabbitmq_place: Place) -> None:
    first = await rabbitmq_place.open()
    await first.ensure_queue(TASKS)
    second = await RabbitBroker.open(rabbitmq_place.url, name="test", prefix=rabbitmq_place.prefix, delivery_limit=2)
    try:
        consumer = await second.consume(TASKS, prefetch=1)
        await second.publish(TASKS, b"", message_id="one")
        # The queue's limit is three and ours is two: ours is kept by refusing the third delivery.
        for attempts in (1, 2):
            [delivery] = await take(consumer, 1)
            assert delivery.attempts == attempts
            await consumer.reject([delivery], requeue=True)
        dead = await second.consume(dead_queue(TASKS), prefetch=1)
        [buried] = await take(dead, 1)
        assert buried.message_id == "one"
    finally:
        await second.close()


async def test_a_broker_that_is_away_at_first_is_found_later(
    private_rabbitmq: PrivateRabbitMQ, private_prefix: str
) -> None:
    private_rabbitmq.stop()
    broker = await RabbitBroker.open(private_rabbitmq.url, name="test", prefix=private_prefix, delivery_limit=3)
    try:
        assert not broker.connected
        for attempt in (
            broker.publish(TASKS, b"", message_id="early", timeout_s=0.2),
            broker.publish_event("key", b"", timeout_s=0.2),
        ):
            with pytest.raises(BrokerUnavailable):
                async with asyncio.timeout(PATIENCE_S):
                    await attempt
        consumer = await broker.consume(TASKS, prefetch=1)
        subscription = broker.subscribe("key")
        await asyncio.to_thread(private_rabbitmq.start)
        await until(lambda: broker.connected)
        await broker.publish(TASKS, b"", message_id="one")
        await broker.publish_event("key", b"event")
        assert [delivery.message_id for delivery in await take(consumer, 1)] == ["one"]
        async with asyncio.timeout(PATIENCE_S):
            assert await anext(subscription) == b"event"
    finally:
        await broker.close()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_restart_keeps_messages_and_consumers(
    private_rabbitmq: PrivateRabbitMQ, private_place: Place, end: str
) -> None:
    broker = await private_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    subscription = broker.subscribe("key")
    await until(lambda: broker.connected)
    await broker.publish(TASKS, b"", message_id="held")
    held = await take(consumer, 1)
    await until(lambda: private_rabbitmq.remembers(private_place.prefix + TASKS))
    await asyncio.to_thread(getattr(private_rabbitmq, end))
    await until(lambda: not broker.connected)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(TASKS, b"", message_id="lost", timeout_s=0.2)
    await asyncio.to_thread(private_rabbitmq.start)
    await publish_at_last(broker, "new")
    # A broker may take a while to find its queues; the receiver waits through it.
    deliveries = await take(consumer, 2)
    assert sorted(delivery.message_id for delivery in deliveries) == ["held", "new"]
    await consumer.acknowledge(held)
    await consumer.acknowledge(deliveries)
    assert await nothing_comes(consumer)
    await until(lambda: broker.connected)
    await broker.publish_event("key", b"event")
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(subscription) == b"event"


async def test_a_queue_that_has_lost_its_leader_for_good_is_made_anew(
    private_rabbitmq: PrivateRabbitMQ,
    private_place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rabbitmq_consumer, "SILENCE_S", 2.0)
    brokers = [await private_place.open() for _ in range(2)]
    consumers = [await broker.consume(TASKS, prefetch=10) for broker in brokers]
    await until(lambda: all(broker.connected for broker in brokers))
    # Killed in the second after a declaration, RabbitMQ 3.10 does not find the queue's leader again. Two find that out
    # at the same time, and must not delete the queue that the other has just made.
    await asyncio.to_thread(private_rabbitmq.kill)
    await until(lambda: not any(broker.connected for broker in brokers))
    await asyncio.to_thread(private_rabbitmq.start)
    await until(lambda: all(broker.connected for broker in brokers))
    names: list[str] = []

    async def work(consumer: Consumer) -> None:
        while True:
            deliveries = await consumer.receive(10)
            names.extend(delivery.message_id for delivery in deliveries)
            await consumer.acknowledge(deliveries)

    working = [asyncio.create_task(work(consumer)) for consumer in consumers]
    for number in range(20):
        await publish_at_last(brokers[0], str(number))
    await until(lambda: len(names) >= 20)
    for task in working:
        task.cancel()
    await asyncio.wait(working)
    assert sorted(map(int, names)) == list(range(20))
    captured = capfd.readouterr()
    said = captured.out + captured.err
    if "queue_rebuilt" in said:
        # Not before a fresh connection had been silent, too.
        assert "asking by another connection" in said.partition("queue_rebuilt")[0]


async def test_a_wiped_broker_is_set_up_again(private_rabbitmq: PrivateRabbitMQ, private_place: Place) -> None:
    broker, other = await private_place.open(), await private_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    await other.ensure_queue(TASKS)
    await other.publish(TASKS, b"", message_id="before")
    await consumer.acknowledge(await take(consumer, 1))
    await asyncio.to_thread(private_rabbitmq.kill)
    private_rabbitmq.wipe()
    await asyncio.to_thread(private_rabbitmq.start)
    await publish_at_last(other, "after")
    [delivery] = await take(consumer, 1)
    assert delivery.message_id == "after"


async def test_a_connection_closed_by_the_server_is_made_again(
    private_rabbitmq: PrivateRabbitMQ, private_place: Place
) -> None:
    broker = await private_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    await until(lambda: broker.connected)
    await broker.publish(TASKS, b"", message_id="one")
    [held] = await take(consumer, 1)
    fed_since = consumer.since
    assert fed_since is not None
    await asyncio.to_thread(private_rabbitmq.control, "close_all_connections", "for a test")
    await publish_at_last(broker, "two")
    deliveries = await take(consumer, 2)
    assert {delivery.message_id: delivery.attempts for delivery in deliveries} == {"one": 2, "two": 1}
    # That has cost "one" an attempt, which its receiver can tell.
    assert consumer.since is not None
    assert consumer.since > fed_since
    await consumer.acknowledge([held])
    await consumer.close()
    again = await take(await broker.consume(TASKS, prefetch=10), 2)
    assert {delivery.message_id for delivery in again} == {"one", "two"}, "the old handle settles nothing"


async def test_a_stopped_broker_keeps_nobody_beyond_the_deadline(
    private_rabbitmq: PrivateRabbitMQ, private_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_link, "PROBE_INTERVAL_S", 1.0)
    broker = await private_place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    await until(lambda: broker.connected)
    await broker.publish(TASKS, b"", message_id="one")
    held = await take(consumer, 1)
    private_rabbitmq.pause()
    try:
        # The deadline of the test is far beyond theirs: what hangs fails it.
        async with asyncio.timeout(PATIENCE_S):
            for attempt in (
                broker.publish(TASKS, b"", message_id="two", timeout_s=0.5),
                broker.publish_event("key", b"", timeout_s=0.5),
                broker.depth(TASKS),
            ):
                with pytest.raises(BrokerUnavailable):
                    await attempt
            await consumer.acknowledge(held)
            await until(lambda: not broker.connected)
    finally:
        private_rabbitmq.resume()
    await publish_at_last(broker, "three")
    names: set[str] = set()
    while "three" not in names:
        names |= {delivery.message_id for delivery in await take(consumer, 1)}


async def test_closing_does_not_wait_for_a_stopped_broker(
    private_rabbitmq: PrivateRabbitMQ, private_place: Place
) -> None:
    broker = await private_place.open()
    await broker.consume(TASKS, prefetch=10)
    broker.subscribe("key")
    await until(lambda: broker.connected)
    private_rabbitmq.pause()
    try:
        async with asyncio.timeout(60):
            await broker.close()
    finally:
        private_rabbitmq.resume()


async def test_a_broker_in_alarm_takes_nothing_and_still_lets_consumers_work(
    private_rabbitmq: PrivateRabbitMQ, private_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_link, "PROBE_INTERVAL_S", 0.5)
    broker = await private_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await until(lambda: broker.connected)
    for number in range(3):
        await broker.publish(TASKS, b"", message_id=str(number))
    await asyncio.to_thread(private_rabbitmq.control, "set_disk_free_limit", "1000GB")

    async def publish_without_end() -> None:
        # The alarm takes a moment to reach the connections.
        while True:
            await broker.publish(TASKS, b"", message_id="alarm", timeout_s=1)

    with pytest.raises(BrokerUnavailable):
        await publish_without_end()
    await until(lambda: broker.trouble is not None and broker.trouble.reason == "alarm")
    with pytest.raises(BrokerUnavailable, match="in alarm"):
        await health.check(broker)
    for number in range(3):
        [delivery] = await take(consumer, 1)
        assert delivery.message_id == str(number)
        await consumer.acknowledge([delivery])
    await asyncio.to_thread(private_rabbitmq.control, "set_disk_free_limit", "1MB")
    await publish_at_last(broker, "after")
    await until(lambda: broker.trouble is None)
    names: set[str] = set()
    while "after" not in names:
        [delivery] = await take(consumer, 1)
        await consumer.acknowledge([delivery])
        names.add(delivery.message_id)


async def test_a_wrong_password_is_reported_and_not_shown(
    private_rabbitmq: PrivateRabbitMQ, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"amqp://guest:a-secret-word@127.0.0.1:{private_rabbitmq.port}/"
    broker = await RabbitBroker.open(url, name="test", prefix="", delivery_limit=3)
    try:
        with pytest.raises(BrokerUnavailable) as failure:
            await broker.publish(TASKS, b"", message_id="one", timeout_s=1)
    finally:
        await broker.close()
    said = capfd.readouterr()
    assert "broker_not_reached" in said.out + said.err
    assert "a-secret-word" not in said.out + said.err + str(failure.value)
