"""Workers that are told to stop, politely, all at once and one after the other, under load: nobody loses anything."""

import signal

import pytest
from tests.faults.callers import FAULT_SECONDS, Callers, new_callers
from tests.faults.promises import assert_promises_kept
from tests.system import System

pytestmark = pytest.mark.faults

_WORKERS = 3
_CLIENTS = 32
_ROUNDS = max(2, round(FAULT_SECONDS))


async def test_all_workers_are_told_to_stop_at_once_again_and_again(system: System) -> None:
    system.wanted["worker"] = _WORKERS
    await system.heal()
    callers = await new_callers(system)
    async with callers.calling(_CLIENTS):
        for turn in range(_ROUNDS):
            await callers.progress(100)
            polite = signal.SIGINT if turn % 2 else signal.SIGTERM
            statuses = await system.end(system.alive("worker"), polite)
            # Their last words tell why.
            said = "\n".join(system.log_of(each)[-6000:] for each in system.processes if each.process.returncode)
            assert statuses == [0] * _WORKERS, said
            await system.heal()
    await _assert_nothing_was_lost(system, callers)


async def test_scaling_in_and_rolling_restarts_lose_nothing(system: System) -> None:
    await system.scale("worker", _WORKERS)
    callers = await new_callers(system)
    async with callers.calling(_CLIENTS):
        for _ in range(max(1, _ROUNDS // 3)):
            await system.scale("worker", 1)
            await callers.progress(50)
            await system.scale("worker", _WORKERS)
            await system.end(system.alive("dispatcher"))
            await system.heal()
    await _assert_nothing_was_lost(system, callers)


async def test_a_second_ctrl_c_loses_nothing_either(system: System) -> None:
    callers = await new_callers(system)
    async with callers.calling(_CLIENTS):
        await callers.progress(50)
        workers = system.alive("worker")
        for running in workers:
            system.kill(running, signal.SIGINT)
        # Forced, it is the end of a process like any other: what was in hand is attempted once more.
        assert set(await system.end(workers, signal.SIGINT)) <= {0, 1}
        await system.heal()
    ended = await assert_promises_kept(system, callers)
    assert set(ended) == {("succeeded", None)}


async def _assert_nothing_was_lost(system: System, callers: Callers) -> None:
    ended = await assert_promises_kept(system, callers)
    assert set(callers.answers) == {202}
    assert set(ended) == {("succeeded", None)}
    # Nobody died, so no worker got anything twice: after three times innocent predictions are undeliverable. But by
    # chance RabbitMQ sends an envelope in the very moment in which its consumer leaves, and counts that.
    workers = [running for running in system.processes if running.service == "worker"]
    redelivered = [
        line for each in workers for line in system.log_of(each).splitlines() if "message_redelivered" in line
    ]
    assert len(redelivered) <= 1, "\n".join(redelivered)
