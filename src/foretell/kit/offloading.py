"""Decides whether work that takes microseconds or seconds runs on the event loop or in a thread.

Starting a thread takes longer than a small model; but long work must not block the event loop. So the duration of
earlier work decides.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Returned = TypeVar("Returned")

#: Work that is expected to take longer runs in a thread. A smaller limit would gain little: a thread that
#: computes in Python releases the lock only every 5 ms, and starting and ending one takes 0.3 ms.
LONGEST_ON_LOOP_S = 0.002
_THREAD_NAME = "offloaded"


class StillBusy(Exception):
    """Earlier work has exceeded its time limit and is still running."""


class Offloading:
    """Runs work of one kind, whose duration depends on its size."""

    def __init__(
        self,
        *,
        timeout_s: float,
        may_run_on_loop: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Work in a thread may take `timeout_s`. `clock` may count processor time if the work only computes."""
        self._timeout_s = timeout_s
        self._may_run_on_loop = may_run_on_loop
        self._clock = clock
        self._estimates_s: dict[int, float] = {}
        self._overdue: set[asyncio.Future[Any]] = set()

    @property
    def overdue(self) -> bool:
        """Whether some work has exceeded its time limit and is still running."""
        return bool(self._overdue)

    def fits_loop(self, size: int) -> bool:
        """Whether work of this size runs on the event loop; never before its duration is known."""
        expected_s = self._estimates_s.get(size.bit_length(), float("inf"))
        return self._may_run_on_loop and expected_s <= LONGEST_ON_LOOP_S

    def part_for_loop(self, size: int) -> int:
        """How much of `size` to do in one call: a half, a quarter or an eighth, if that fits the event loop.

        If none of these fits, or all of it does, `size`: several calls in threads would take longer than one.
        """
        for part in (size, size // 2, size // 4, size // 8):
            if part and self.fits_loop(part):
                return part
        return size

    def timed(self, size: int, work: Callable[[], Returned]) -> Returned:
        """Run it now on this thread, and measure it."""
        started = self._clock()
        returned = work()
        self.observe(size, self._clock() - started)
        return returned

    async def run(self, size: int, work: Callable[[], Returned]) -> Returned:
        """Run it on the event loop or in a thread. Raises `TimeoutError` after the time limit, and `StillBusy`."""
        if self.fits_loop(size):
            return self.timed(size, work)
        if self._overdue:
            raise StillBusy
        call = in_thread(lambda: self.timed(size, work))
        done, _ = await asyncio.wait({call}, timeout=self._timeout_s)
        if not done:
            self._overdue.add(call)
            call.add_done_callback(self._overdue.discard)
            # Read a later exception, so that asyncio does not warn about it.
            call.add_done_callback(lambda call: call.cancelled() or call.exception())
            raise TimeoutError
        return call.result()

    def observe(self, size: int, duration_s: float) -> None:
        """Record a duration for this size: a moving average for each power of two."""
        bits = size.bit_length()
        estimate_s = self._estimates_s.get(bits, duration_s)
        self._estimates_s[bits] = estimate_s + 0.1 * (duration_s - estimate_s)


def in_thread(work: Callable[[], Returned]) -> "asyncio.Future[Returned]":
    """Run `work` in a new daemon thread, so that work that hangs can't keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Returned] = loop.create_future()

    def settle(outcome: Returned | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(outcome)  # type: ignore[arg-type]  # without an error it is what `work` returned

    def run() -> None:
        outcome, failed = None, None
        try:
            outcome = work()
        except BaseException as error:
            failed = error
        # The loop may be closed by now; then no caller waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome, failed)

    start_thread(run)
    return future


def start_thread(run: Callable[[], None]) -> threading.Thread:
    """Start `run` in a daemon thread, for code of models; see `exit_beside_threads`."""
    thread = threading.Thread(target=run, name=_THREAD_NAME, daemon=True)
    thread.start()
    return thread


def exit_beside_threads(status: int) -> None:
    """Exit at once if a thread of `start_thread` is running; otherwise return.

    Python ends daemon threads by force when it shuts down. A thread inside a C++ library, such as one that loads a
    model, then aborts the process, which would count as a crash. The caller has flushed what it wrote.
    """
    if any(thread.name == _THREAD_NAME for thread in threading.enumerate()):
        os._exit(status)
