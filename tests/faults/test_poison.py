"""Inputs that hang or crash a worker, messages that come five times, and garbage."""

import asyncio
import time
from collections import Counter
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from tests.faults import faulty_model
from tests.faults.callers import FAULT_SECONDS, authorized
from tests.faults.promises import assert_promises_kept
from tests.services_system import Backends
from tests.system import FLIGHT, System, wait_until

from foretell.broker.port import Broker, Delivery
from foretell.contracts import queues
from foretell.contracts.envelopes import pack
from foretell.domain.predictions.sweeps import Queued
from foretell.kit.clock import now, uuid7
from foretell.services.worker.work import EXIT_HANGING_MODEL

pytestmark = pytest.mark.faults

#: A wait of a test that ends it. Not an expectation of speed.
_PATIENCE_S = 60.0
_GARBAGE = [b"", b"\x00\xff\xfe", b"{", b"[]", b"null", b'{"tasks": 1}', b'{"model": "flight-delay"}', b"[" * 100_000]


def _order(weather_code: int) -> dict[str, Any]:
    return {"model": faulty_model.NAME, "input": faulty_model.flight(weather_code)}


async def _submit(client: httpx.AsyncClient, *codes: int) -> list[UUID]:
    """Ask for a prediction of every code, several requests at a time."""
    several = asyncio.Semaphore(32)

    async def ask(code: int) -> UUID:
        async with several:
            answer = await client.post("/predictions/predict", json=_order(code))
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])

    return await asyncio.gather(*(ask(code) for code in codes))


async def _publish_together(broker: Broker, ids: list[UUID], codes: list[int]) -> None:
    """Publish predictions in one envelope, as a busy app would."""
    tasks = [
        Queued(identifier, faulty_model.NAME, "1.0.0", None, "input", msgspec.json.encode(faulty_model.flight(code)))
        for identifier, code in zip(ids, codes, strict=True)
    ]
    (parcel,) = pack(tasks, now())
    await broker.publish(parcel.queue, parcel.body, message_id=uuid7().hex)


async def _take_all(broker: Broker, queue: str) -> list[Delivery]:
    """Take everything out of a queue."""
    taken: list[Delivery] = []
    consumer = await broker.consume(queue, prefetch=100)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while (await broker.depth(queue)).ready or not taken:
                taken += await consumer.receive(100)
                await consumer.acknowledge(taken)
    finally:
        await consumer.close()
    return taken


def _left_hanging(system: System) -> int:
    """How many workers have left a hanging model behind so far."""
    return sum(running.process.poll() == EXIT_HANGING_MODEL for running in system.processes)


async def test_a_model_that_hangs_times_out_alone(system: System) -> None:
    left_hanging = _left_hanging(system)
    user_id, client = await authorized(system, credits=100)
    async with client, system.supervised(), system.broker() as broker:
        # No worker runs while they are accepted, so that all of them wait when the first one comes.
        await system.scale("worker", 0)
        codes = [1] * 20 + [faulty_model.HANGS] + [1] * 20
        ids = await _submit(client, *codes)
        hanging = ids[20]
        await _take_all(broker, queues.TASKS)
        await _publish_together(broker, ids, codes)
        await system.scale("worker", 2)
        # The envelope runs into the limit as a whole, and then the guilty one does once more, alone.
        async with asyncio.timeout(_PATIENCE_S):
            while (await system.statuses([hanging]))[hanging][0] == "queued":
                await asyncio.sleep(0.1)
        # The second one answers before it exits.
        await wait_until(
            lambda: _left_hanging(system) >= left_hanging + 2, timeout_s=_PATIENCE_S, what="both workers to exit"
        )
        await wait_until(lambda: len(system.alive("worker")) == 2, timeout_s=_PATIENCE_S, what="the new worker")
        ended = await assert_promises_kept(system, ids=ids)
    # One worker with everything in hand, and one with the guilty input alone: no more than these had to go.
    assert _left_hanging(system) == left_hanging + 2
    assert ended == {("succeeded", None): 40, ("failed", "timeout"): 1}
    assert await system.statuses([hanging]) == {hanging: ("failed", "timeout")}
    assert (await system.balance(user_id)).available == 60


async def test_a_lone_hanging_input_fails_within_its_limit(system: System) -> None:
    left_hanging = _left_hanging(system)
    _, client = await authorized(system, credits=1)
    async with client, system.supervised():
        order = _order(faulty_model.HANGS)
        accepted = await client.post("/predictions/predict", json=order)
        answer = await client.get(accepted.headers["location"])
        async with asyncio.timeout(_PATIENCE_S):
            while answer.json()["status"] == "queued":
                await asyncio.sleep(0.1)
                answer = await client.get(accepted.headers["location"])
        assert (answer.json()["status"], answer.json()["error"]["code"]) == ("failed", "timeout")
        assert (await client.get("/balance")).json() == {"available": 1, "held": 0, "threshold": None}
        await wait_until(lambda: _left_hanging(system) > left_hanging, timeout_s=_PATIENCE_S, what="the worker to exit")
        await assert_promises_kept(system, ids=[UUID(answer.json()["id"])])
    assert _left_hanging(system) == left_hanging + 1


@pytest.mark.timeout(480)
async def test_ten_inputs_crash_the_process_among_a_thousand(system: System, backends: Backends) -> None:
    # Every crash costs the start of a worker, so only one of the pairs gets all ten of them on a short run.
    crashes = 10 if FAULT_SECONDS > 5 or not backends.embedded else 3
    user_id, client = await authorized(system, credits=1000)
    codes = [faulty_model.CRASHES if number % 100 == 50 else 1 for number in range(100 * crashes)]
    async with client, system.supervised():
        ids = await _submit(client, *codes)
        await system.drain(timeout_s=300)
        ended = await assert_promises_kept(system, ids=ids)
    assert ended == {("succeeded", None): 99 * crashes, ("failed", "undeliverable"): crashes}
    statuses = await system.statuses(ids)
    guilty = [identifier for identifier, code in zip(ids, codes, strict=True) if code == faulty_model.CRASHES]
    assert {statuses[identifier] for identifier in guilty} == {("failed", "undeliverable")}
    assert (await system.balance(user_id)).available == 1000 - 99 * crashes


async def test_every_message_comes_five_times(system: System) -> None:
    user_id, client = await authorized(system, credits=300)
    async with client, system.broker() as broker:
        await system.scale("worker", 0)
        ids = await _submit(client, *[1] * 200)
        tasks = await _take_all(broker, queues.TASKS)
        await _publish_each(broker, queues.TASKS, tasks, times=5)
        # The results of all five pile up, five times each, before anybody settles the first.
        await system.scale("dispatcher", 0)
        await system.scale("worker", 2)
        await _wait_until_run(broker)
        results = await _take_all(broker, queues.RESULTS)
        await _publish_each(broker, queues.RESULTS, results, times=5)
        await system.scale("dispatcher", 2)
        ended = await assert_promises_kept(system, ids=ids)
    assert len(results) >= 5
    assert ended == {("succeeded", None): 200}
    assert (await system.balance(user_id)).available == 100


async def _publish_each(broker: Broker, queue: str, deliveries: list[Delivery], *, times: int) -> None:
    for _ in range(times):
        for delivery in deliveries:
            await broker.publish(queue, delivery.body, message_id=uuid7().hex)


async def _wait_until_run(broker: Broker) -> None:
    """Wait until no task waits and the results have stopped to come."""
    before = -1
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            results = (await broker.depth(queues.RESULTS)).ready
            if results == before and results and not (await broker.depth(queues.TASKS)).ready:
                return
            before = results
            await asyncio.sleep(1)


async def test_garbage_ends_in_the_dead_queue_and_nobody_exits(system: System) -> None:
    _, client = await authorized(system)
    before = {running.instance for running in system.alive()}
    async with client, system.broker() as broker:
        dead = [queues.dead_queue(queue) for queue in (queues.TASKS, queues.RESULTS)]
        lay_there = {queue: (await broker.depth(queue)).ready for queue in dead}
        for body in _GARBAGE:
            for queue in (queues.TASKS, queues.RESULTS, *dead):
                await broker.publish(queue, body, message_id=uuid7().hex)
            await broker.publish_event(queues.PREDICTION_FINISHED, body)
        # Good ones in between arrive as ever.
        ids = await _submit(client, *[1] * 20)
        ended = await assert_promises_kept(system, ids=ids)
        assert ended == {("succeeded", None): 20}
        for queue in dead:
            await _wait_for_depth(broker, queue, lay_there[queue] + 2 * len(_GARBAGE))
    assert {running.instance for running in system.alive()} == before


async def _wait_for_depth(broker: Broker, queue: str, count: int) -> None:
    """Wait until that many messages lie in `queue`: the dispatcher takes them into its hands now and then."""
    seen: Counter[int] = Counter()
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        ready = (await broker.depth(queue)).ready
        if ready == count:
            return
        seen[ready] += 1
        await asyncio.sleep(0.1)
    pytest.fail(f"{queue} never held the {count} messages that nobody can read, but {seen}")


async def test_results_that_fit_no_prediction_change_nothing(system: System) -> None:
    user_id, client = await authorized(system, credits=10)
    async with client, system.broker() as broker:
        (identifier,) = await _submit(client, 1)
        ended = await assert_promises_kept(system, ids=[identifier])
        assert ended == {("succeeded", None): 1}
        moment = now().isoformat()
        envelope = {
            "model": faulty_model.NAME,
            "version": "1.0.0",
            "worker_id": "worker-0",
            "published_at": moment,
            "started_at": moment,
            "finished_at": moment,
        }
        failure = {"error": {"code": "model_error", "message": "too late"}}
        for result in ({"id": str(uuid7()), "output": FLIGHT}, {"id": str(identifier), **failure}):
            body = msgspec.json.encode({**envelope, "results": [result]})
            await broker.publish(queues.RESULTS, body, message_id=uuid7().hex)
        ended = await assert_promises_kept(system, ids=[identifier])
    assert ended == {("succeeded", None): 1}
    assert (await system.balance(user_id)).available == 9
