"""The promises of `foretell.broker.port`, on every broker."""

import asyncio
import os
import time

import pytest
from tests.integration.broker.conftest import PATIENCE_S, Peer, Place, nothing_comes, take, until

from foretell.broker.port import Broker, BrokerUnavailable, Consumer, Delivery, Unroutable
from foretell.contracts.queues import EARLIER_ATTEMPTS, TASKS, dead_queue


async def test_a_message_arrives_as_it_was_published(place: Place) -> None:
    publisher, receiver = await place.open(), await place.open()
    consumer = await receiver.consume(TASKS, prefetch=1)
    await publisher.ensure_queue(TASKS)
    await publisher.publish(TASKS, b"body", message_id="one", headers={"request-id": "r1", "имя": "значение"})
    [delivery] = await take(consumer, 1)
    assert delivery == Delivery(b"body", TASKS, "one", 1, {"request-id": "r1", "имя": "значение"}, delivery.tag)
    await consumer.acknowledge([delivery])
    assert await nothing_comes(consumer)


@pytest.mark.parametrize("body", [b"", b"\0" * 10, b"{not json", "текст".encode("cp1251"), os.urandom(1_500_000)])
async def test_a_body_is_only_bytes(place: Place, body: bytes) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await broker.publish(TASKS, body, message_id="garbage", timeout_s=PATIENCE_S)
    [delivery] = await take(consumer, 1)
    assert delivery.body == body


async def test_receive_returns_what_waits_in_order_and_no_more_than_asked_for_or_prefetched(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    for number in range(10):
        await broker.publish(TASKS, b"", message_id=str(number))
    consumer = await broker.consume(TASKS, prefetch=6)
    first = await take(consumer, 4)
    second = await take(consumer, 2)
    assert [delivery.message_id for delivery in first + second] == list("012345")
    assert await nothing_comes(consumer), "six are in hand, and the prefetch is six"
    await consumer.acknowledge(first)
    third = await take(consumer, 4)
    assert [delivery.message_id for delivery in third] == list("6789")


async def test_receive_hands_out_a_waiting_batch_at_once(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    await asyncio.gather(*(broker.publish(TASKS, b"", message_id=str(number)) for number in range(50)))
    consumer = await broker.consume(TASKS, prefetch=100)
    sizes = []
    while sum(sizes) < 50:
        sizes.append(len(await consumer.receive(100)))
    assert len(sizes) < 50, "what waits together is received together"


async def test_a_cancelled_receive_loses_nothing(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    waiting = asyncio.create_task(consumer.receive(1))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    await broker.publish(TASKS, b"", message_id="one")
    [delivery] = await take(consumer, 1)
    assert (delivery.message_id, delivery.attempts) == ("one", 1)


async def test_what_is_not_acknowledged_comes_back_when_its_consumer_closes(place: Place) -> None:
    broker = await place.open()
    first = await broker.consume(TASKS, prefetch=10)
    for name in ("done", "not done", "done too"):
        await broker.publish(TASKS, b"", message_id=name)
    deliveries = await take(first, 3)
    # Leaving out one in the middle: acknowledging the third must not settle the second.
    await first.acknowledge([deliveries[0], deliveries[2]])
    await first.close()
    second = await broker.consume(TASKS, prefetch=10)
    [again] = await take(second, 1)
    assert (again.message_id, again.attempts) == ("not done", 2)
    assert await nothing_comes(second)
    await first.acknowledge(deliveries)
    await second.close()
    third = await broker.consume(TASKS, prefetch=10)
    [again] = await take(third, 1)
    assert again.attempts == 3, "a void delivery is passed over in silence"


async def test_acknowledging_twice_does_no_harm(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    await broker.publish(TASKS, b"", message_id="one")
    first = await take(consumer, 1)
    await consumer.acknowledge(first)
    await broker.publish(TASKS, b"", message_id="two")
    second = await take(consumer, 1)
    await consumer.acknowledge(first)
    await consumer.reject(first, requeue=True)
    await consumer.close()
    other = await broker.consume(TASKS, prefetch=10)
    [again] = await take(other, 1)
    assert (again.message_id, again.attempts) == (second[0].message_id, 2)


async def test_a_rejected_message_is_requeued_or_dead(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    dead = await broker.consume(dead_queue(TASKS), prefetch=10)
    await broker.publish(TASKS, b"body", message_id="one", headers={"request-id": "r1"})
    for attempts in (1, 2):
        [delivery] = await take(consumer, 1)
        assert delivery.attempts == attempts
        await consumer.reject([delivery], requeue=attempts == 1)
    [buried] = await take(dead, 1)
    assert (buried.body, buried.queue, buried.message_id) == (b"body", dead_queue(TASKS), "one")
    assert buried.headers == {"request-id": "r1"}
    assert await nothing_comes(consumer)


async def test_requeueing_counts_and_ends_in_the_dead_letter_queue(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    dead = await broker.consume(dead_queue(TASKS), prefetch=10)
    await broker.publish(TASKS, b"poison", message_id="poison")
    await broker.publish(TASKS, b"innocent", message_id="innocent")
    attempts = []
    while len(attempts) < place.delivery_limit:
        for delivery in await take(consumer, 1):
            if delivery.message_id == "innocent":
                await consumer.acknowledge([delivery])
            else:
                attempts.append(delivery.attempts)
                await consumer.reject([delivery], requeue=True)
    assert attempts == [1, 2, 3]
    [buried] = await take(dead, 1)
    assert buried.body == b"poison"
    await dead.acknowledge([buried])
    assert await nothing_comes(dead)


async def test_a_dead_letter_may_be_returned_without_end(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    await broker.publish(TASKS, b"", message_id="one")
    await consumer.reject(await take(consumer, 1), requeue=False)
    dead = await broker.consume(dead_queue(TASKS), prefetch=1)
    for _ in range(2 * place.delivery_limit):
        await dead.reject(await take(dead, 1), requeue=True)
    await dead.acknowledge(await take(dead, 1))
    assert await nothing_comes(dead)


async def test_messages_of_a_killed_receiver_come_again_and_die_at_the_limit(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    dead = await broker.consume(dead_queue(TASKS), prefetch=10)
    for name in ("one", "two"):
        await broker.publish(TASKS, b"", message_id=name)
    for attempts in range(1, place.delivery_limit + 1):
        peer = await place.spawn("hold", TASKS, 2)
        said = [await peer.says(), await peer.says()]
        assert sorted(line["id"] for line in said) == ["one", "two"]
        assert {line["attempts"] for line in said} == {attempts}
        await peer.kill()
    buried = await take(dead, 2)
    assert sorted(delivery.message_id for delivery in buried) == ["one", "two"]
    consumer = await broker.consume(TASKS, prefetch=10)
    assert await nothing_comes(consumer)


async def test_what_a_killed_receiver_acknowledged_does_not_come_again(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    peer = await place.spawn("work", TASKS, 1)
    for number in range(5):
        await broker.publish(TASKS, b"", message_id=str(number))
    assert [(await peer.says())["id"] for _ in range(5)] == list("01234")
    # An acknowledgement travels without an answer: wait until it has arrived, and only then pull the plug.
    await until_empty(broker, TASKS)
    await peer.kill()
    consumer = await broker.consume(TASKS, prefetch=10)
    assert await nothing_comes(consumer, 1.5)


async def test_each_message_has_exactly_one_receiver_among_many_processes(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    each = 150
    workers = [await place.spawn("work", TASKS, 10) for _ in range(4)]
    publishers = [await place.spawn("publish", TASKS, each) for _ in range(4)]
    received: list[str] = []

    async def listen(peer: Peer) -> None:
        while True:
            said = await peer.says()
            assert said["attempts"] == 1
            received.append(said["id"])

    listening = [asyncio.create_task(listen(worker)) for worker in workers]
    for publisher in publishers:
        assert await publisher.says() == {"published": each}
    await until(lambda: len(received) >= 4 * each or any(task.done() for task in listening))
    await asyncio.sleep(0.3)
    for task in listening:
        task.cancel()
    outcomes = await asyncio.gather(*listening, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    assert len(received) == len(set(received)) == 4 * each
    assert (await broker.depth(TASKS)).ready == 0


async def test_messages_outlive_the_connection(place: Place) -> None:
    first = await place.open()
    await first.ensure_queue(TASKS)
    await first.publish(TASKS, b"kept", message_id="one")
    await first.close()
    second = await place.open()
    consumer = await second.consume(TASKS, prefetch=1)
    [delivery] = await take(consumer, 1)
    assert (delivery.body, delivery.attempts) == (b"kept", 1)


async def test_a_queue_that_nobody_declared_takes_nothing(place: Place) -> None:
    broker = await place.open()
    with pytest.raises(Unroutable, match="nowhere"):
        await broker.publish("nowhere", b"", message_id="one")
    with pytest.raises(Unroutable, match="nowhere"):
        await broker.depth("nowhere")
    await broker.ensure_queue(TASKS)
    await broker.ensure_queue(TASKS)
    await broker.publish(TASKS, b"", message_id="one")


async def test_an_unroutable_message_does_not_disturb_its_neighbours(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=100)
    sent = [
        broker.publish(TASKS if number % 2 else "nowhere", b"", message_id=str(number // 2), timeout_s=PATIENCE_S)
        for number in range(60)
    ]
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    assert all(isinstance(outcome, Unroutable) for outcome in outcomes[::2])
    assert all(outcome is None for outcome in outcomes[1::2])
    assert {delivery.message_id for delivery in await take(consumer, 30)} == {str(number) for number in range(30)}


async def test_many_publishes_may_be_under_way_together(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=500)
    # The same identifier several times, as when a message is published again because nobody knows how the first went.
    await asyncio.gather(
        *(broker.publish(TASKS, b"", message_id=str(number % 100), timeout_s=PATIENCE_S) for number in range(300))
    )
    deliveries = await take(consumer, 300)
    assert len({delivery.message_id for delivery in deliveries}) == 100
    await consumer.acknowledge(deliveries)
    await until_empty(broker, TASKS)


async def test_depth_counts_what_is_ready(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    for number in range(5):
        await broker.publish(TASKS, b"", message_id=str(number))
    depth = await broker.depth(TASKS)
    assert (depth.queue, depth.ready, depth.consumers, depth.unacknowledged or 0) == (TASKS, 5, 0, 0)
    consumer = await broker.consume(TASKS, prefetch=2)
    await take(consumer, 2)
    depth = await broker.depth(TASKS)
    assert (depth.ready, depth.consumers, depth.unacknowledged) in ((3, 1, 2), (3, 1, None))


async def test_events_reach_every_subscriber_in_every_process(place: Place) -> None:
    broker = await place.open()
    peers = [await place.spawn("listen", "prediction.finished") for _ in range(2)]
    for peer in peers:
        assert await peer.says() == {"listening": True}
    here, too, other = (
        broker.subscribe("prediction.finished"),
        broker.subscribe("prediction.finished"),
        broker.subscribe("other"),
    )
    await until(lambda: broker.connected)
    for number in range(20):
        await broker.publish_event("prediction.finished", str(number).encode())
    await broker.publish_event("other", b"other")
    expected = [str(number) for number in range(20)]
    for peer in peers:
        assert [(await peer.says())["event"] for _ in range(20)] == expected
    async with asyncio.timeout(PATIENCE_S):
        for subscription in (here, too):
            assert [(await anext(subscription)).decode() for _ in range(20)] == expected
        assert await anext(other) == b"other"


async def test_a_confirmed_event_lies_ready_for_those_who_listen(place: Place) -> None:
    broker = await place.open()
    listener = await place.open()
    subscription = listener.subscribe("key")
    assert subscription.since is None
    await until(lambda: subscription.since is not None)
    assert subscription.since is not None
    assert subscription.since <= time.monotonic()
    await broker.publish_event("key", b"confirmed", confirmed=True)
    await broker.publish_event("nobody", b"missed", confirmed=True)
    await broker.close()
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(subscription) == b"confirmed"


async def test_an_event_without_audience_is_no_error(place: Place) -> None:
    broker = await place.open()
    await broker.publish_event("prediction.finished", b"missed")
    subscription = broker.subscribe("prediction.finished")
    await until(lambda: broker.connected)
    await broker.publish_event("prediction.finished", b"heard")
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(subscription) == b"heard", "from now on, not from before"


async def test_a_subscription_ends_when_it_or_the_broker_is_closed(place: Place) -> None:
    broker = await place.open()
    one, two = broker.subscribe("key"), broker.subscribe("key")
    await until(lambda: broker.connected)
    ends = [asyncio.create_task(anext(one, b"end")), asyncio.create_task(anext(two, b"end"))]
    await asyncio.sleep(0.05)
    await one.aclose()
    async with asyncio.timeout(PATIENCE_S):
        assert await ends[0] == b"end"
        await broker.close()
        assert await ends[1] == b"end"


async def test_prefixes_keep_installations_apart(place: Place) -> None:
    one, two = await place.open(), await place.open(prefix=place.prefix + "two.")
    await one.ensure_queue(TASKS)
    consumer = await one.consume(TASKS, prefetch=1)
    with pytest.raises(Unroutable):
        await two.publish(TASKS, b"", message_id="one")
    await one.publish(TASKS, b"", message_id="one")
    [delivery] = await take(consumer, 1)
    assert delivery.queue == TASKS


# A consumer that is told to stop.


async def test_what_a_stopped_consumer_did_not_receive_was_not_attempted(place: Place) -> None:
    broker = await place.open()
    for _ in range(place.delivery_limit + 2):
        consumer = await broker.consume(TASKS, prefetch=10)
        for name in ("one", "two", "three") if not await _ready(broker) else ():
            await broker.publish(TASKS, b"body", message_id=name, headers={"request-id": "r1"})
        # With RabbitMQ they are all here by now, and one of them is received.
        assert len(await take(consumer, 1)) == 1
        await consumer.stop()
        await consumer.stop()
        assert await consumer.receive(10) == []
        await consumer.close()
    assert (await broker.depth(dead_queue(TASKS))).ready == 0
    everything = await take(await broker.consume(TASKS, prefetch=10), 3)
    assert {delivery.message_id for delivery in everything} == {"one", "two", "three"}
    assert {delivery.attempts for delivery in everything} == {1}
    assert {delivery.body for delivery in everything} == {b"body"}
    assert all(delivery.headers == {"request-id": "r1"} for delivery in everything)


async def _ready(broker: Broker) -> int:
    return (await broker.depth(TASKS)).ready


async def test_what_is_in_hand_can_be_settled_after_a_stop(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=10)
    for name in ("done", "dead", "again", "left"):
        await broker.publish(TASKS, b"", message_id=name)
    done, dead, again, left = await take(consumer, 4)
    await consumer.stop()
    await broker.publish(TASKS, b"", message_id="late")
    await consumer.acknowledge([done])
    await consumer.reject([dead], requeue=False)
    await consumer.reject([again], requeue=True)
    await consumer.close()
    assert left.attempts == 1
    rest = await take(await broker.consume(TASKS, prefetch=10), 3)
    assert {delivery.message_id: delivery.attempts for delivery in rest} == {"again": 2, "left": 1, "late": 1}
    [buried] = await take(await broker.consume(dead_queue(TASKS), prefetch=10), 1)
    assert buried.message_id == "dead"


async def test_a_copy_counts_what_is_behind_it(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    for behind in range(place.delivery_limit + 1):
        headers = {EARLIER_ATTEMPTS: str(behind), "request-id": "r1"}
        await broker.publish(TASKS, b"", message_id=f"copy {behind}", headers=headers)
    consumer = await broker.consume(TASKS, prefetch=10)
    alive = await take(consumer, place.delivery_limit)
    assert [delivery.attempts for delivery in alive] == [1, 2, 3]
    assert {delivery.message_id for delivery in alive} == {"copy 0", "copy 1", "copy 2"}
    assert [delivery.headers for delivery in alive] == [{"request-id": "r1"}] * len(alive), (
        "ours are counted, not shown"
    )
    # Each has its own count from here on.
    await consumer.reject(alive, requeue=True)
    again = await take(consumer, place.delivery_limit - 1)
    assert {delivery.message_id: delivery.attempts for delivery in again} == {"copy 0": 2, "copy 1": 3}
    await consumer.acknowledge(again)
    assert await nothing_comes(consumer)
    dead = await take(await broker.consume(dead_queue(TASKS), prefetch=10), 2)
    assert {delivery.message_id for delivery in dead} == {"copy 2", "copy 3"}
    assert [delivery.headers for delivery in dead] == [{"request-id": "r1"}] * 2, "re-driven, they begin anew"


@pytest.mark.parametrize("number", ["", "-1", "two", "1.5", "99999"])
async def test_a_count_that_is_none_counts_nothing(place: Place, number: str) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    await broker.publish(TASKS, b"", message_id="one", headers={EARLIER_ATTEMPTS: number})
    [delivery] = await take(await broker.consume(TASKS, prefetch=1), 1)
    assert delivery.attempts == 1


async def test_attempts_before_a_stop_still_count(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    await broker.publish(TASKS, b"", message_id="poison")
    attempts = []
    for _ in range(place.delivery_limit):
        polite = await broker.consume(TASKS, prefetch=1)
        await take(polite, 1)
        await polite.stop()
        await polite.close()
        dying = await broker.consume(TASKS, prefetch=1)
        attempts += [delivery.attempts for delivery in await take(dying, 1)]
        await dying.close()
    assert attempts == [1, 2, 3]
    # RabbitMQ may find out only when somebody would get it a fourth time.
    assert await nothing_comes(await broker.consume(TASKS, prefetch=1))
    [buried] = await take(await broker.consume(dead_queue(TASKS), prefetch=1), 1)
    assert buried.message_id == "poison"


async def test_a_stop_wakes_who_waits(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    waiting = asyncio.create_task(consumer.receive(1))
    await asyncio.sleep(0.05)
    await consumer.stop()
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting == []
    assert broker.connected
    await consumer.close()
    with pytest.raises(BrokerUnavailable):
        await consumer.receive(1)


async def test_a_consumer_stopped_before_it_is_registered_takes_nothing(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    await broker.publish(TASKS, b"", message_id="one")
    for _ in range(place.delivery_limit + 1):
        consumer = await broker.consume(TASKS, prefetch=10)
        await consumer.stop()
        await consumer.close()
    [delivery] = await take(await broker.consume(TASKS, prefetch=10), 1)
    assert (delivery.message_id, delivery.attempts) == ("one", 1)


async def test_many_consumers_stop_at_once_under_load_and_nothing_is_attempted_twice(place: Place) -> None:
    broker = await place.open()
    await broker.ensure_queue(TASKS)
    done: list[str] = []

    async def work(consumer: Consumer) -> None:
        while deliveries := await consumer.receive(5):
            assert [delivery.attempts for delivery in deliveries] == [1] * len(deliveries)
            await asyncio.sleep(0.001)
            await consumer.acknowledge(deliveries)
            done.extend(delivery.message_id for delivery in deliveries)

    count = 0
    for _ in range(2 * place.delivery_limit):
        consumers = [await broker.consume(TASKS, prefetch=5) for _ in range(4)]
        working = [asyncio.create_task(work(consumer)) for consumer in consumers]
        publishes = [broker.publish(TASKS, b"", message_id=str(count + number)) for number in range(100)]
        count += len(publishes)
        publishing = asyncio.gather(*publishes)
        reached = len(done) + 10
        await until(lambda reached=reached: len(done) >= reached)  # type: ignore[misc]
        await asyncio.gather(*(consumer.stop() for consumer in consumers))
        await asyncio.gather(*working)
        await asyncio.gather(*(consumer.close() for consumer in consumers))
        await publishing
    last = await broker.consume(TASKS, prefetch=100)
    while len(set(done)) < count:
        deliveries = await take(last, 1)
        assert [delivery.attempts for delivery in deliveries] == [1]
        await last.acknowledge(deliveries)
        done.extend(delivery.message_id for delivery in deliveries)
    assert sorted(done, key=int) == [str(number) for number in range(count)]
    assert (await broker.depth(dead_queue(TASKS))).ready == 0


async def test_a_closed_consumer_says_so(place: Place) -> None:
    broker = await place.open()
    consumer = await broker.consume(TASKS, prefetch=1)
    waiting = asyncio.create_task(consumer.receive(1))
    await asyncio.sleep(0.05)
    await consumer.close()
    with pytest.raises(BrokerUnavailable):
        await waiting
    with pytest.raises(BrokerUnavailable):
        await consumer.receive(1)


async def test_a_closed_broker_takes_nothing_and_returns_what_it_held(place: Place) -> None:
    first, second = await place.open(), await place.open()
    consumer = await first.consume(TASKS, prefetch=1)
    await first.publish(TASKS, b"", message_id="one")
    await take(consumer, 1)
    await first.close()
    assert not first.connected
    with pytest.raises(BrokerUnavailable):
        await first.publish(TASKS, b"", message_id="two", timeout_s=0.2)
    [delivery] = await take(await second.consume(TASKS, prefetch=1), 1)
    assert (delivery.message_id, delivery.attempts) == ("one", 2)


async def until_empty(broker: Broker, queue: str) -> None:
    """Wait until nothing is ready in `queue`; what is unacknowledged RabbitMQ does not tell, so wait a little more."""
    async with asyncio.timeout(PATIENCE_S):
        while (depth := await broker.depth(queue)).ready or depth.unacknowledged:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
