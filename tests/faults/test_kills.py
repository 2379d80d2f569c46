"""Processes that end without a word, again and again, under load."""

import asyncio
import random
import time

import pytest
from tests.faults import faulty_model
from tests.faults.callers import FAULT_SECONDS, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.system import FLIGHT, System

from foretell.contracts import queues

pytestmark = pytest.mark.faults


async def _kill_again_and_again(system: System, *services: str, seconds: float, pause_s: float) -> int:
    """kill -9 a random process of these services, every `pause_s` or so; returns how many died."""
    killed = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        candidates = [running for service in services for running in system.alive(service)]
        if candidates:
            system.kill(random.choice(candidates))
            killed += 1
        await asyncio.sleep(random.uniform(0.3, 1.7) * pause_s)
    return killed


async def test_workers_die_under_load(system: System) -> None:
    # Every row takes a few milliseconds, so that most workers die with something in hand.
    order = {"model": faulty_model.NAME, "input": faulty_model.flight(faulty_model.SLEEPS_MS + 3)}
    callers = await new_callers(system, body=lambda: order)
    async with system.supervised(), callers.calling():
        await callers.progress(50)
        assert await _kill_again_and_again(system, "worker", seconds=FAULT_SECONDS, pause_s=0.6)
        await callers.progress(50)
    ended = await assert_promises_kept(system, callers)
    # Nobody but the workers died, so nobody saw anything of it.
    assert set(callers.answers) == {202}
    # An envelope whose every worker died fails; most are luckier.
    assert set(ended) <= {("succeeded", None), ("failed", "undeliverable")}
    assert ended["succeeded", None] > ended["failed", "undeliverable"]


async def test_the_app_dies_around_the_commit(system: System) -> None:
    callers = await new_callers(system)
    async with system.supervised(), callers.calling():
        for _ in range(max(3, round(FAULT_SECONDS))):
            await callers.progress(20)
            # The clients always have requests under way: some before the commit, some after it.
            await asyncio.sleep(random.uniform(0, 0.1))
            system.kill(system.alive("app")[0])
        await callers.progress(20)
    ended = await assert_promises_kept(system, callers)
    assert set(ended) == {("succeeded", None)}


async def test_the_dispatcher_dies_while_it_settles(system: System) -> None:
    callers = await new_callers(system)
    async with system.supervised(), callers.calling():
        await callers.progress(50)
        assert await _kill_again_and_again(system, "dispatcher", seconds=FAULT_SECONDS, pause_s=0.6)
        await callers.progress(50)
    ended = await assert_promises_kept(system, callers)
    assert set(callers.answers) == {202}
    assert set(ended) == {("succeeded", None)}


async def test_several_dispatchers_settle_at_once(system: System) -> None:
    await system.scale("dispatcher", 3)
    callers = await new_callers(system)
    async with system.supervised(), callers.calling():
        await callers.progress(50)
        assert await _kill_again_and_again(system, "dispatcher", seconds=FAULT_SECONDS / 2, pause_s=0.6)
        await callers.progress(50)
    ended = await assert_promises_kept(system, callers)
    assert set(callers.answers) == {202}
    assert set(ended) == {("succeeded", None)}


async def test_the_app_dies_between_publish_and_mark(system: System) -> None:
    await system.scale("worker", 0)
    user_id, client = await authorized(system)
    ids = []
    async with client, system.broker() as broker:
        for _ in range(20):
            before = (await broker.depth(queues.TASKS)).ready
            accepted = await client.post("/predictions/predict", json={"model": "flight-delay", "input": FLIGHT})
            assert accepted.status_code == 202
            ids.append(accepted.json()["id"])
            async with asyncio.timeout(60):
                while (await broker.depth(queues.TASKS)).ready == before:
                    await asyncio.sleep(0.005)
            app = system.alive("app")[0]
            system.kill(app)
            app.process.wait()
            if await _unmarked(system):
                break
            await system.heal()
        else:
            pytest.fail("the mark came before the kill every time")
        # The sweep takes it for one that was never published, so now there are two messages of it.
        async with asyncio.timeout(60):
            while (await broker.depth(queues.TASKS)).ready < before + 2:
                await asyncio.sleep(0.05)
    await system.scale("worker", 2)
    ended = await assert_promises_kept(system)
    assert set(ended) == set()
    assert (await system.balance(user_id)).available == 1_000_000 - len(ids)


async def _unmarked(system: System) -> bool:
    """Whether there is a prediction that was not marked as published."""
    return bool(await system.count_where("published_at IS NULL AND status = 'queued'"))


async def test_everything_dies_at_random(system: System) -> None:
    callers = await new_callers(system)
    async with system.supervised(), callers.calling():
        await callers.progress(50)
        services = ("app", "dispatcher", "worker")
        assert await _kill_again_and_again(system, *services, seconds=2 * FAULT_SECONDS, pause_s=0.8)
        await callers.progress(50)
    ended = await assert_promises_kept(system, callers)
    assert set(ended) <= {("succeeded", None), ("failed", "undeliverable")}
