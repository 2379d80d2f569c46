"""RabbitMQ on three nodes: with the leader's killed it goes on, and what lies there is never given up."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.integration.broker.conftest import PATIENCE_S, Place, take, until
from tests.services_rabbitmq import PrivateRabbitMQ

from foretell.broker import rabbitmq_consumer
from foretell.broker.port import Broker, BrokerUnavailable
from foretell.contracts.queues import TASKS


@pytest.fixture
async def cluster_place(rabbitmq_cluster: list[PrivateRabbitMQ], private_prefix: str) -> AsyncIterator[Place]:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in rabbitmq_cluster)
    place = Place(f"amqp://guest:guest@{hosts}/", private_prefix)
    try:
        yield place
    finally:
        await place.close()


async def _publish_at_last(broker: Broker, message_id: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await broker.publish(TASKS, b"", message_id=message_id, timeout_s=2)
                return
            except BrokerUnavailable:
                await asyncio.sleep(0.1)


async def test_with_the_leaders_node_killed_it_goes_on_and_without_a_quorum_nothing_is_given_up(
    rabbitmq_cluster: list[PrivateRabbitMQ],
    cluster_place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rabbitmq_consumer, "SILENCE_S", 2.0)
    broker = await cluster_place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await until(lambda: broker.connected)
    for number in range(5):
        await broker.publish(TASKS, b"", message_id=str(number), timeout_s=PATIENCE_S)
    leader = await asyncio.to_thread(rabbitmq_cluster[0].leader_of, cluster_place.prefix + TASKS)
    first = next(node for node in rabbitmq_cluster if node.node == leader)
    second, _ = [node for node in rabbitmq_cluster if node is not first]

    await asyncio.to_thread(first.kill)
    await _publish_at_last(broker, "without the first")
    names: set[str] = set()
    while len(names) < 6:
        [delivery] = await take(consumer, 1)
        names.add(delivery.message_id)
        await consumer.acknowledge([delivery])
    # One of three is no quorum: nobody leads, which may pass.
    await asyncio.to_thread(second.kill)
    for reason in ("no_leader", "away", "no_leader"):
        await until(lambda reason=reason: broker.trouble is not None and broker.trouble.reason == reason)  # type: ignore[misc]
    said = capfd.readouterr()
    assert "asking by another connection" in said.out + said.err
    assert "queue_rebuilt" not in said.out + said.err
