"""Three RabbitMQ nodes: the leader's dies; then there is no quorum, and there is one again. Nothing is lost."""

import asyncio
import signal
from pathlib import Path
from uuid import UUID

import pytest
from tests.faults.callers import FAULT_SECONDS, REQUEST_TIMEOUT_S, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_rabbitmq import PrivateRabbitMQ
from tests.services_system import Backends
from tests.system import FLIGHT, System

from foretell.contracts import queues

pytestmark = pytest.mark.faults

#: So long after the nodes' return, results come again.
_SERVING_AGAIN_S = 90.0
#: Long enough for every consumer to try to register several times.
_OUTAGE_S = max(20.0, FAULT_SECONDS)


async def _results_come_again(system: System) -> None:
    """Wait until predictions succeed again, all that had been accepted before the call among them."""
    accepted = await system.count()
    async with asyncio.timeout(_SERVING_AGAIN_S):
        while await system.count("succeeded") < accepted:
            await asyncio.sleep(0.1)


async def test_every_node_dies_in_turn_whoever_is_connected_to_it(
    fresh_postgresql: str, rabbitmq_cluster: list[PrivateRabbitMQ], private_prefix: str, tmp_path: Path
) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in rabbitmq_cluster)
    system = Backends("servers", fresh_postgresql, f"amqp://guest:guest@{hosts}/", private_prefix).system(tmp_path)
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            for node in rabbitmq_cluster:
                await callers.progress(20)
                await asyncio.to_thread(node.kill)
                await callers.progress(20)
                await _results_come_again(system)
                await asyncio.to_thread(node.start)
                await _results_come_again(system)
        ended = await assert_promises_kept(system, callers)
        assert not any("queue_rebuilt" in system.log_of(running) for running in system.processes)
    assert set(callers.answers) == {202}
    assert set(ended) == {("succeeded", None)}


async def test_a_cluster_loses_its_leader_and_then_its_quorum(
    fresh_postgresql: str, rabbitmq_cluster: list[PrivateRabbitMQ], private_prefix: str, tmp_path: Path
) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in rabbitmq_cluster)
    # Nothing is taken for lost in the time of a test: what lay in the queues must still lie there.
    system = Backends("servers", fresh_postgresql, f"amqp://guest:guest@{hosts}/", private_prefix).system(tmp_path)
    async with system.running(workers=4):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(50)
            leader = await asyncio.to_thread(rabbitmq_cluster[0].leader_of, private_prefix + queues.TASKS)
            first = next(node for node in rabbitmq_cluster if node.node == leader)
            second, _ = [node for node in rabbitmq_cluster if node is not first]
            await asyncio.to_thread(first.kill)
            await callers.progress(50)
            await _results_come_again(system)

        waiting = await _leave_tasks_waiting(system)
        # One of three is no quorum.
        await asyncio.to_thread(second.kill)
        for worker in system.alive("worker"):
            system.kill(worker, signal.SIGCONT)
        # Without callers: what they send would share the deliveries that reach nobody.
        await asyncio.sleep(_OUTAGE_S)
        others = await new_callers(system)
        async with others.calling():
            await others.progress(50)
            for node in (first, second):
                await asyncio.to_thread(node.start)
            await _results_come_again(system)
            await others.progress(50)
        ended = await assert_promises_kept(system, callers, ids=waiting)
        ended += await assert_promises_kept(system, others)
        assert not any("queue_rebuilt" in system.log_of(running) for running in system.processes)
    # Without the broker they are accepted all the same: they wait in the database.
    assert set(callers.answers) == set(others.answers) == {202}
    assert max(callers.slowest_s, others.slowest_s) < REQUEST_TIMEOUT_S
    assert set(ended) == {("succeeded", None)}


async def _leave_tasks_waiting(system: System) -> list[UUID]:
    """Stop the workers with a few tasks in their hands; which they are.

    When there is a leader again, RabbitMQ delivers waiting messages to every consumer that has meanwhile given up its
    registration, one after the other, and counts. A few messages get several of these deliveries each, many get one.
    """
    for worker in system.alive("worker"):
        system.kill(worker, signal.SIGSTOP)
    _, client = await authorized(system)
    waiting = []
    async with client:
        for _ in range(2):
            answer = await client.post("/predictions/predict", json={"model": "flight-delay", "input": FLIGHT})
            assert answer.status_code == 202, answer.text
            waiting.append(UUID(answer.json()["id"]))
    while await system.count_where("status = 'queued' AND published_at IS NULL"):
        await asyncio.sleep(0.05)
    return waiting
