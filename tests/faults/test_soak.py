"""Everything at once for a while: processes are killed and stopped at random; the others' memory stays as it is."""

import asyncio
import random
import signal
import time

import psutil
import pytest
from tests.faults.callers import FAULT_SECONDS, new_callers
from tests.faults.promises import assert_promises_kept
from tests.system import Running, System

#: The quick form: long enough for some of each.
_SECONDS = max(20.0, FAULT_SECONDS)
_MIB = 1024 * 1024

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 + 5 * _SECONDS)]

#: What a process may grow by after the first third, in which its caches fill. A leak of a few bytes per prediction is
#: larger than this after an hour of load, and one per connection or fault after minutes.
_GROWTH_BYTES = 32 * _MIB
_GROWTH = 1.2


def _memory(running: Running) -> int:
    return int(psutil.Process(running.process.pid).memory_info().rss)


async def _break_things(system: System, spared: set[str], until: float) -> int:
    """Kill or stop one at random, again and again, but for those that are spared; how often."""
    broken = 0
    while time.monotonic() < until:
        candidates = [running for running in system.alive() if running.instance not in spared]
        if candidates:
            number = random.choice([signal.SIGKILL, signal.SIGTERM])
            system.kill(random.choice(candidates), number)
            broken += 1
        await asyncio.sleep(random.uniform(0.5, 2.5))
    return broken


async def test_a_long_time_of_faults_under_load(system: System) -> None:
    system.wanted = {"app": 1, "dispatcher": 2, "worker": 3}
    await system.heal()
    spared = [system.alive(service)[0] for service in ("dispatcher", "worker")]
    callers = await new_callers(system)
    began = time.monotonic()
    async with system.supervised(), callers.calling(clients=4):
        await callers.progress(50)
        names = {running.instance for running in spared}
        broken = await _break_things(system, names, began + _SECONDS / 3)
        before = {running.instance: _memory(running) for running in spared}
        # An app is replaced with the others: what it takes is seen in one that lives as long as the rest.
        broken += await _break_things(system, names, began + _SECONDS * 2 / 3)
        (app,) = await _steady_app(system)
        await callers.progress(50)
        before[app.instance] = _memory(app)
        broken += await _break_things(system, names | {app.instance}, began + _SECONDS)
        await callers.progress(50)
        after = {running.instance: _memory(running) for running in (*spared, app)}
    ended = await assert_promises_kept(system, callers)
    print(f"\n{_SECONDS:.0f} s, {broken} processes ended, {len(callers.accepted)} predictions: {dict(ended)}")
    for name, bytes_before in before.items():
        print(f"{name}: {bytes_before / _MIB:.0f} MiB after its warm-up, {after[name] / _MIB:.0f} MiB at the end")
    assert broken
    # An envelope whose every worker was killed fails, and its credits come back.
    assert set(ended) <= {("succeeded", None), ("failed", "undeliverable")}
    assert ended["succeeded", None] > ended["failed", "undeliverable"]
    grown = {name: (was, after[name]) for name, was in before.items() if after[name] > was * _GROWTH + _GROWTH_BYTES}
    assert grown == {}


async def _steady_app(system: System) -> list[Running]:
    while not system.alive("app"):
        await asyncio.sleep(0.05)
    return system.alive("app")
