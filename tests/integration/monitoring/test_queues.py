"""Dead letters at both brokers: seen, sent back, discarded, and never lost."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.integration.broker.conftest import PATIENCE_S, take, until
from tests.integration.monitoring.watched import watching
from tests.services_rabbitmq import PrivateRabbitMQ

from foretell.broker import sqlite
from foretell.broker.connect import connect
from foretell.broker.port import Broker, Consumer, Delivery
from foretell.broker.rabbitmq_consumer import RabbitConsumer
from foretell.contracts import queues
from foretell.contracts.messages import Failure, Result, ResultEnvelope, Task, TaskEnvelope, encode
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions.opening import open_store
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.dispatcher.settling import Settler
from foretell.services.dispatcher.sweeping import Sweeper
from foretell.services.monitoring.reports import dead_letters

TASKS, RESULTS = queues.TASKS, queues.RESULTS
SECRET = "hunter2 hunter2"


@dataclass
class Post:
    """A monitoring service and the broker that it reaches."""

    client: httpx.AsyncClient
    broker: Broker
    url: str

    async def kill(self, *bodies: bytes, queue: str = TASKS, headers: dict[str, str] | None = None) -> None:
        """Let messages die in a queue, as workers do with what they can't read."""
        await self.broker.ensure_queue(queue)
        for body in bodies:
            await self.broker.publish(queue, body, message_id=uuid7().hex, headers=headers)
        await self.reject(len(bodies), queue)

    async def reject(self, count: int, queue: str = TASKS) -> list[bytes]:
        """Take so many messages of a queue and refuse them."""
        consumer = await self.broker.consume(queue, prefetch=count)
        deliveries = await take(consumer, count)
        already = (await self.broker.depth(queues.dead_queue(queue))).ready
        await consumer.reject(deliveries, requeue=False)
        # RabbitMQ puts the last ones back in the queue when their consumer leaves right behind its word.
        await self.wait_for(already + count, queues.dead_queue(queue))
        await consumer.close()
        return [delivery.body for delivery in deliveries]

    async def reject_all(self, count: int) -> Consumer:
        """The same, without a look at what becomes of them; the consumer is to be closed after that look."""
        consumer = await self.broker.consume(TASKS, prefetch=count)
        await consumer.reject(await take(consumer, count), requeue=False)
        return consumer

    async def wait_for(self, ready: int, queue: str) -> None:
        """Wait until so many messages are ready."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.broker.depth(queue)).ready != ready:
                await asyncio.sleep(0.02)

    async def dead(self, queue: str = TASKS, **parameters: Any) -> Any:
        """What the service shows."""
        answer = await self.client.get(f"/queues/{queue}/dead", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def redrive(self, limit: int = 1000, queue: str = TASKS) -> Any:
        """Send back."""
        answer = await self.client.post(f"/queues/{queue}/redrive", json={"limit": limit})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(params=["rabbitmq", "sqlite"])
async def post(request: pytest.FixtureRequest, monitoring_file_url: str, tmp_path: Path) -> AsyncIterator[Post]:
    url, prefix = f"sqlite:///{tmp_path / 'broker.db'}", ""
    if request.param == "rabbitmq":
        url, prefix = request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("broker_prefix")
    broker = await connect(url, name="test", prefix=prefix)
    try:
        await until(lambda: broker.connected)
        async with watching(monitoring_file_url, tmp_path, broker_url=url, broker_prefix=prefix) as watched:
            yield Post(watched.client, broker, url)
    finally:
        await broker.close()


only_sqlite = pytest.mark.parametrize("post", ["sqlite"], indirect=True)


def tasks(count: int = 1) -> TaskEnvelope:
    payload = msgspec.Raw(msgspec.json.encode({"text": SECRET}))
    return TaskEnvelope("sentiment", "1.0.0", now(), [Task(uuid7(), "input", payload) for _ in range(count)])


async def test_dead_letters_are_described_without_what_is_in_them(post: Post) -> None:
    envelope = tasks(30)
    await post.kill(encode(envelope), b"\x00garbage", SECRET.encode(), headers={"traceparent": "00-ab-cd-01"})
    shown = await post.dead()
    assert (shown["queue"], shown["count"]) == (TASKS, 3)
    known = next(item for item in shown["items"] if item["kind"] == "tasks")
    assert (known["model"], known["version"], known["tasks"]) == ("sentiment", "1.0.0", 30)
    assert known["prediction_ids"] == [str(task.id) for task in envelope.tasks[:20]]
    assert known["headers"] == {"traceparent": "00-ab-cd-01"}
    assert known["size_bytes"] == len(encode(envelope))
    assert known["reason"] is None
    unreadable = [item for item in shown["items"] if item["kind"] == "unreadable"]
    assert len(unreadable) == 2
    assert all(item["reason"] and item["message_id"] for item in unreadable)
    assert "hunter2" not in str(shown)
    # They were only looked at.
    await post.wait_for(3, queues.dead_queue(TASKS))
    assert len((await post.dead(limit=2))["items"]) == 2
    await post.wait_for(3, queues.dead_queue(TASKS))


async def test_what_is_quoted_in_a_reason_is_left_out(post: Post) -> None:
    wrong = msgspec.json.encode({"model": "m", "version": "1", "published_at": now(), "tasks": [
        {"id": str(uuid7()), "stage": SECRET, "payload": 1}]})  # fmt: skip
    await post.kill(wrong)
    (item,) = (await post.dead())["items"]
    assert "hunter2" not in item["reason"]
    assert "stage" in item["reason"]


async def test_results_can_die_too(post: Post) -> None:
    failed = Result(uuid7(), error=Failure("model_error", SECRET))
    envelope = ResultEnvelope("sentiment", "1.0.0", "worker-1", now(), now(), now(), [failed])
    await post.kill(encode(envelope), queue=RESULTS)
    (item,) = (await post.dead(RESULTS))["items"]
    assert (item["kind"], item["model"], item["prediction_ids"]) == ("results", "sentiment", [str(failed.id)])
    assert "hunter2" not in str(item)


async def test_what_is_sent_back_is_there_again_once(post: Post) -> None:
    bodies = [encode(tasks()) for _ in range(5)]
    await post.kill(*bodies, headers={"kept": "yes"})
    assert await post.redrive(2) == {"queue": TASKS, "moved": 2, "left": 3}
    await post.wait_for(2, TASKS)
    assert await post.redrive() == {"queue": TASKS, "moved": 3, "left": 0}
    consumer = await post.broker.consume(TASKS, prefetch=10)
    deliveries = await take(consumer, 5)
    assert sorted(each.body for each in deliveries) == sorted(bodies)
    assert {each.headers["kept"] + each.headers["redriven"] for each in deliveries} == {"yes1"}
    assert {each.attempts for each in deliveries} == {1}
    await consumer.acknowledge(deliveries)
    await consumer.close()
    assert (await post.broker.depth(TASKS)).ready == (await post.broker.depth(queues.dead_queue(TASKS))).ready == 0
    assert await post.redrive() == {"queue": TASKS, "moved": 0, "left": 0}


async def test_what_can_t_be_handled_this_time_either_is_dead_again_and_says_how_often(post: Post) -> None:
    await post.kill(b"garbage")
    for times in (1, 2):
        assert (await post.redrive())["moved"] == 1
        assert await post.reject(1) == [b"garbage"]
        (item,) = (await post.dead())["items"]
        assert item["redriven"] == times


async def test_a_redrive_ends_though_everything_dies_again_at_once(post: Post) -> None:
    await post.kill(*(b"garbage %d" % number for number in range(250)))
    stopping = asyncio.Event()

    async def refuse() -> None:
        consumer = await post.broker.consume(TASKS, prefetch=50)
        while not stopping.is_set():
            try:
                async with asyncio.timeout(0.2):
                    deliveries = await consumer.receive(50)
            except TimeoutError:
                continue
            # Outside the time-out: what was received and not refused would stay where it is.
            await consumer.reject(deliveries, requeue=False)
        await consumer.close()

    refusing = asyncio.create_task(refuse())
    assert (await post.redrive())["moved"] == 250
    await post.wait_for(250, queues.dead_queue(TASKS))
    stopping.set()
    await refusing
    shown = await post.dead(limit=500)
    assert {item["redriven"] for item in shown["items"]} == {1}
    assert len(shown["items"]) == 250


async def test_to_discard_one_must_know_how_many_there_are(post: Post) -> None:
    await post.kill(b"one", b"two")
    assert (await post.client.delete(f"/queues/{TASKS}/dead")).status_code == 422
    wrong = await post.client.delete(f"/queues/{TASKS}/dead", params={"confirm": 3})
    assert wrong.status_code == 409
    assert (wrong.json()["code"], wrong.json()["count"]) == ("not_confirmed", 2)
    await post.wait_for(2, queues.dead_queue(TASKS))
    right = await post.client.delete(f"/queues/{TASKS}/dead", params={"confirm": 2})
    assert right.json() == {"queue": TASKS, "moved": 2, "left": 0}
    await post.wait_for(0, queues.dead_queue(TASKS))
    assert (await post.broker.depth(TASKS)).ready == 0


@pytest.mark.parametrize("queue", ["ml_events", "ml_tasks.dead", "ml_tasks.nobody", "..", "ml_tasks.", "%2e%2e"])
async def test_other_queues_are_none(post: Post, queue: str) -> None:
    await post.broker.ensure_queue(TASKS)
    calls = [
        await post.client.get(f"/queues/{queue}/dead"),
        await post.client.delete(f"/queues/{queue}/dead", params={"confirm": 0}),
        await post.client.post(f"/queues/{queue}/redrive", json={"limit": 1}),
    ]
    assert [answer.status_code for answer in calls] == [404, 404, 404]


async def test_a_pool_has_a_queue_of_its_own(post: Post) -> None:
    pool = queues.tasks_queue("gpu")
    await post.kill(b"garbage", queue=pool)
    assert (await post.dead(pool))["count"] == 1
    assert (await post.redrive(queue=pool))["moved"] == 1
    await post.wait_for(1, pool)


@only_sqlite
@pytest.mark.parametrize("body", [b"", b"[]", b'{"limit": 0}', b'{"limit": "all"}', b'{"limit": 1, "x": 2}', b"\xff"])
async def test_an_order_that_is_none_is_refused(post: Post, body: bytes) -> None:
    await post.kill(b"garbage")
    answer = await post.client.post(f"/queues/{TASKS}/redrive", content=body)
    assert answer.status_code == 422
    pointers = {b'{"limit": 0}': "#/limit", b'{"limit": "all"}': "#/limit", b'{"limit": 1, "x": 2}': "#/x", b"[]": "#"}
    named = [error["pointer"] for error in answer.json().get("errors", [])]
    assert named == ([pointers[body]] if body in pointers else [])
    await post.wait_for(1, queues.dead_queue(TASKS))


@only_sqlite
async def test_nothing_is_lost_when_the_broker_stands_still_on_the_way(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(dead_letters, "_NEXT_WITHIN_S", 1.0)
    bodies = [b"garbage %d" % number for number in range(150)]
    await post.kill(*bodies)
    # Somebody else holds the file for longer than a publish waits.
    blocker = sqlite3.connect(post.url.removeprefix("sqlite:///"), isolation_level=None)
    redrive = asyncio.create_task(post.client.post(f"/queues/{TASKS}/redrive", json={"limit": 1000}))
    async with asyncio.timeout(PATIENCE_S):
        while (await post.broker.depth(TASKS)).ready == 0:
            await asyncio.sleep(0.001)
    blocker.execute("BEGIN IMMEDIATE")
    answer = await redrive
    blocker.execute("ROLLBACK")
    blocker.close()
    there = [await drained(post.broker, queue) for queue in (TASKS, queues.dead_queue(TASKS))]
    # One may be there twice, if it was stored and could not be acknowledged any more.
    assert {body for bodies in there for body in bodies} == set(bodies)
    assert answer.status_code in (200, 503)


async def test_nothing_is_lost_when_rabbitmq_is_killed_on_the_way(
    private_rabbitmq: PrivateRabbitMQ, tmp_path: Path
) -> None:
    bodies = {b"garbage %d" % number for number in range(2000)}
    url = private_rabbitmq.url
    broker = await connect(url, name="test")
    try:
        await until(lambda: broker.connected)
        async with watching(f"sqlite:///{tmp_path / 'monitoring.db'}", tmp_path, broker_url=url) as watched:
            post = Post(watched.client, broker, url)
            await post.broker.ensure_queue(TASKS)
            dead = queues.dead_queue(TASKS)
            # Killed sooner, RabbitMQ would have lost the queues themselves.
            async with asyncio.timeout(PATIENCE_S):
                while not (private_rabbitmq.remembers(TASKS) and private_rabbitmq.remembers(dead)):
                    await asyncio.sleep(0.05)
            await asyncio.gather(*(broker.publish(dead, body, message_id=uuid7().hex, timeout_s=60) for body in bodies))
            redrive = asyncio.create_task(post.client.post(f"/queues/{TASKS}/redrive", json={"limit": 5000}))
            async with asyncio.timeout(PATIENCE_S):
                while (await broker.depth(TASKS)).ready < 100:
                    await asyncio.sleep(0.001)
            await asyncio.to_thread(private_rabbitmq.kill)
            answer = await redrive
            assert answer.status_code == 503, answer.text
            await asyncio.to_thread(private_rabbitmq.start)
            await until(lambda: broker.connected)
            there: set[bytes] = set()
            # Right after its start it may not have found all its queues yet.
            async with asyncio.timeout(PATIENCE_S):
                while there != bodies:
                    there |= {*await drained(broker, TASKS), *await drained(broker, dead)}
    finally:
        await broker.close()


@pytest.mark.parametrize("call", ["show", "discard", "redrive"])
async def test_a_broker_that_dies_between_two_messages_is_not_taken_for_the_end(
    private_rabbitmq: PrivateRabbitMQ, broker_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Its consumers wait in silence then, as they do when somebody else has taken all the others."""
    monkeypatch.setattr(dead_letters, "_IN_HAND", 10)
    receive, received = RabbitConsumer.receive, 0

    async def receive_one(consumer: RabbitConsumer, most: int) -> list[Delivery]:
        nonlocal received
        received += 1
        if received == 2:
            await asyncio.to_thread(private_rabbitmq.kill)
            await until(lambda: not consumer.registered)
        return await receive(consumer, 1)

    url, database = private_rabbitmq.url, f"sqlite:///{tmp_path / 'monitoring.db'}"
    broker = await connect(url, name="test", prefix=broker_prefix)
    try:
        await until(lambda: broker.connected)
        async with watching(database, tmp_path, broker_url=url, broker_prefix=broker_prefix) as watched:
            await broker.ensure_queue(TASKS)
            dead = queues.dead_queue(TASKS)
            await asyncio.gather(*(broker.publish(dead, b"garbage", message_id=uuid7().hex) for _ in range(20)))
            await Post(watched.client, broker, url).wait_for(20, dead)
            monkeypatch.setattr(RabbitConsumer, "receive", receive_one)
            answer = await {
                "show": lambda: watched.client.get(f"/queues/{TASKS}/dead"),
                "discard": lambda: watched.client.delete(f"/queues/{TASKS}/dead", params={"confirm": 20}),
                "redrive": lambda: watched.client.post(f"/queues/{TASKS}/redrive", json={"limit": 1000}),
            }[call]()
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] == ("broker_unavailable" if call == "show" else "cut_short")
    finally:
        await broker.close()


async def drained(broker: Broker, queue: str) -> list[bytes]:
    """Everything that comes from a queue until nothing more does."""
    consumer = await broker.consume(queue, prefetch=1000)
    bodies: list[bytes] = []
    try:
        while True:
            async with asyncio.timeout(1):
                deliveries = await consumer.receive(1000)
            bodies += [delivery.body for delivery in deliveries]
            await consumer.acknowledge(deliveries)
    except TimeoutError:
        return bodies
    finally:
        await consumer.close()


async def test_the_dispatcher_and_the_operator_do_not_disturb_one_another(post: Post, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'foretell.db'}")
    try:
        await migrate(database)
        store = open_store(database)
        settings = DispatcherSettings(sweep_interval_s=0.05)
        in_hand = InHand(5.0, listening_since=lambda: None)
        sweeper = Sweeper(database, store, post.broker, Settler(store, post.broker), in_hand, settings)
        stopping = asyncio.Event()
        sweeping = asyncio.create_task(sweeper.run(stopping))
        await post.kill(*(b"garbage %d" % number for number in range(20)))
        for times in range(1, 4):
            await settled(post, 20)
            shown = await post.dead()
            # The dispatcher may have had some of them in its hands.
            assert shown["items"]
            await settled(post, 20)
            moved = (await post.redrive())["moved"]
            assert 0 < moved <= 20
            # Back at the workers, who can't read them this time either.
            consumer = await post.reject_all(moved)
            await settled(post, 20)
            await consumer.close()
            assert max(item["redriven"] for item in (await post.dead())["items"]) <= times
        stopping.set()
        await sweeping
        await settled(post, 20)
        assert {item["size_bytes"] for item in (await post.dead())["items"]} == {9, 10}
    finally:
        await database.close()


async def settled(post: Post, count: int) -> None:
    """Wait until all dead letters lie still: the dispatcher has looked at them and put them back."""
    calm = 0
    async with asyncio.timeout(PATIENCE_S):
        while calm < 10:
            calm = calm + 1 if (await post.broker.depth(queues.dead_queue(TASKS))).ready == count else 0
            await asyncio.sleep(0.05)
