"""What stands still is seen, says where it stands, and is replaced.

SIGUSR1 has a process write the stacks of all its threads to standard error, whatever else it is doing. A thread of its
own sees when its event loop no longer turns: it writes them, too, and in the end ends the process, so that whoever
looks after it starts another.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

import structlog

log = structlog.get_logger()

#: Has a process write its stacks. Stops are SIGTERM and SIGINT, and supervisord keeps SIGUSR2 for itself.
STACKS_SIGNAL = signal.SIGUSR1
#: The exit status of a process whose event loop stood still (EX_OSERR).
EXIT_STOOD_STILL = 71

_STANDARD_ERROR = 2
#: How often the event loop shows that it turns, at most: as often as this in the time after which it stands still.
_LOOKS = 12
_LONGEST_LOOK_S = 1.0
#: How long the last words may take: the pipe that they go to may be what everything waits for.
_LAST_WORDS_S = 5.0


def show_stacks_when_told() -> None:
    """From now on `STACKS_SIGNAL` writes all stacks to standard error, and so does a crash in native code."""
    faulthandler.enable(_STANDARD_ERROR)
    faulthandler.register(STACKS_SIGNAL, _STANDARD_ERROR, all_threads=True)


def stacks() -> str:
    """Where each thread of this process is, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(identity, identity)}:\n{''.join(traceback.format_stack(frame)).rstrip()}"
        for identity, frame in sys._current_frames().items()
        if identity != threading.get_ident()
    )


class Watch:
    """Sees whether an event loop turns. To be begun on it, and ended there."""

    def __init__(self, limit_s: float, end: Callable[[int], None]) -> None:
        """After half of `limit_s` without a turn it writes the stacks; after all of it, it calls `end(status)`.

        What counts is looks in a row, not the clock: a machine that was asleep, or a clock that was set, is no reason.
        """
        self._look_s = min(_LONGEST_LOOK_S, limit_s / _LOOKS)
        self._looks = max(2, round(limit_s / self._look_s))
        self._end = end
        self._turned = True
        self._over = threading.Event()

    def begin(self) -> None:
        """Watch the running event loop."""
        loop = asyncio.get_running_loop()

        def turn() -> None:
            self._turned = True
            if not self._over.is_set():
                loop.call_later(self._look_s, turn)

        turn()
        threading.Thread(target=self._watch, name="standstill", daemon=True).start()

    def close(self) -> None:
        """Watch no more."""
        self._over.set()

    def _watch(self) -> None:
        missed = 0
        while not self._over.wait(self._look_s):
            missed = 0 if self._turned else missed + 1
            self._turned = False
            if missed == self._looks // 2:
                self._within(_LAST_WORDS_S, self._warn)
            elif missed >= self._looks:
                self._within(_LAST_WORDS_S, self._say_last_words)
                self._end(EXIT_STOOD_STILL)

    def _warn(self) -> None:
        log.warning("event_loop_stands", for_s=round(self._looks // 2 * self._look_s, 1), stacks=stacks())

    def _say_last_words(self) -> None:
        # First past everything of Python's that somebody may hold.
        faulthandler.dump_traceback(_STANDARD_ERROR, all_threads=True)
        log.error("event_loop_stood_still", for_s=round(self._looks * self._look_s, 1), stacks=stacks())

    @staticmethod
    def _within(seconds: float, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="standstill-words", daemon=True)
        thread.start()
        thread.join(seconds)


def end_now(status: int) -> None:
    """End the process without waiting for anything: whatever is waited for may be what stands still."""
    os._exit(status)
