"""Work on the event loop or in a thread, by how long it takes, and bounded in time."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from foretell.kit.offloading import LONGEST_ON_LOOP_S, Offloading, StillBusy, in_thread


def _where() -> str:
    return threading.current_thread().name


class Clock:
    """A clock that each piece of work moves on by `step_s`."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += self.step_s
        return self._now_s


async def test_work_whose_duration_is_not_known_goes_to_a_thread() -> None:
    offloading = Offloading(timeout_s=10, clock=Clock())
    assert await offloading.run(4, _where) == "offloaded"
    # Of the same power of two: now it is known.
    assert await offloading.run(7, _where) == "MainThread"
    assert await offloading.run(8, _where) == "offloaded"
    assert await offloading.run(3, _where) == "offloaded"


async def test_work_that_takes_long_stays_in_a_thread() -> None:
    offloading = Offloading(timeout_s=10, clock=Clock(LONGEST_ON_LOOP_S * 2))
    assert [await offloading.run(1, _where) for _ in range(3)] == ["offloaded"] * 3


async def test_estimates_follow_what_is_observed() -> None:
    clock = Clock()
    offloading = Offloading(timeout_s=10, clock=clock)
    offloading.timed(1, _where)
    assert offloading.fits_loop(1)
    clock.step_s = LONGEST_ON_LOOP_S * 2
    for _ in range(10):
        offloading.timed(1, _where)
    assert not offloading.fits_loop(1)
    clock.step_s = 0.0
    for _ in range(10):
        await offloading.run(1, _where)
    assert offloading.fits_loop(1)


async def test_what_may_not_run_on_the_loop_never_does() -> None:
    offloading = Offloading(timeout_s=10, may_run_on_loop=False, clock=Clock())
    assert [await offloading.run(1, _where) for _ in range(3)] == ["offloaded"] * 3


async def test_nothing_is_begun_while_earlier_work_is_over_its_time() -> None:
    offloading = Offloading(timeout_s=0.01)
    gate = threading.Event()
    with pytest.raises(TimeoutError):
        await offloading.run(1, gate.wait)
    assert offloading.overdue
    with pytest.raises(StillBusy):
        await offloading.run(1, _where)
    gate.set()
    while offloading.overdue:
        await asyncio.sleep(0.001)
    assert await offloading.run(8, _where) == "offloaded"


async def test_what_fails_after_its_time_disturbs_nobody() -> None:
    offloading = Offloading(timeout_s=0.01)
    gate = threading.Event()

    def fail() -> None:
        gate.wait()
        raise ValueError("too late")

    with pytest.raises(TimeoutError):
        await offloading.run(1, fail)
    gate.set()
    while offloading.overdue:
        await asyncio.sleep(0.001)


def _raise_key_error() -> None:
    raise KeyError("x")


@pytest.mark.parametrize("on_loop", [True, False])
async def test_what_work_raises_reaches_its_caller(on_loop: bool) -> None:
    offloading = Offloading(timeout_s=10, may_run_on_loop=on_loop, clock=Clock())
    await offloading.run(1, _where)
    with pytest.raises(KeyError):
        await offloading.run(1, _raise_key_error)


async def test_a_caller_that_gave_up_disturbs_nobody() -> None:
    gate = threading.Event()
    call = in_thread(gate.wait)
    call.cancel()
    gate.set()
    work: Callable[[], None] = lambda: None  # noqa: E731
    await in_thread(work)
    assert call.cancelled()


def test_what_does_not_fit_the_loop_is_done_in_parts_that_do() -> None:
    clock = Clock(LONGEST_ON_LOOP_S * 2)
    offloading = Offloading(timeout_s=10, clock=clock)
    assert offloading.part_for_loop(256) == 256, "nothing is known, so all of it goes to a thread"
    offloading.timed(256, _where)
    offloading.timed(128, _where)
    clock.step_s = LONGEST_ON_LOOP_S / 2
    offloading.timed(16, _where)
    assert offloading.part_for_loop(256) == 256, "a sixteenth is too little: several calls would take longer"
    offloading.timed(64, _where)
    assert offloading.part_for_loop(256) == 64
    offloading.timed(1, _where)
    assert offloading.part_for_loop(1) == 1
    assert Offloading(timeout_s=10, may_run_on_loop=False).part_for_loop(256) == 256
