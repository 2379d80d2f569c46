"""Detects a blocked process, logs where it is blocked, and ends it so that it is replaced.

On SIGUSR1 a process writes the stacks of all its threads to standard error, whatever it is doing. A watch thread
notices when the event loop is blocked. It writes the stacks, too, and finally ends the process, so that the supervisor
starts another.
"""

import asyncio
import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Callable

import structlog

from foretell.kit.standstill_codes import EXIT_STOOD_STILL, STACKS_SIGNAL

log = structlog.get_logger()

_STANDARD_ERROR = 2
#: How many checks of the event loop fit into the limit.
_LOOKS = 12
_LONGEST_LOOK_S = 1.0
#: How long writing the stacks may take: the pipe to write to may itself be blocked.
_LAST_WORDS_S = 5.0


def show_stacks_when_told() -> None:
    """From now on `STACKS_SIGNAL` writes all stacks to standard error, and so does a crash in native code."""
    faulthandler.enable(_STANDARD_ERROR)
    faulthandler.register(STACKS_SIGNAL, _STANDARD_ERROR, all_threads=True)


def stacks() -> str:
    """The stacks of all threads of this process, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(identity, identity)}:\n{''.join(traceback.format_stack(frame)).rstrip()}"
        for identity, frame in sys._current_frames().items()
        if identity != threading.get_ident()
    )


class Watch:
    """Watches whether an event loop runs. `begin` and `close` must be called on that loop."""

    def __init__(self, limit_s: float, end: Callable[[int], None]) -> None:
        """After half of `limit_s` without an iteration it writes the stacks; after `limit_s` it calls `end(status)`.

        It counts consecutive failed checks, not time, so a machine that slept or a clock that was set has no effect.
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
        """Stop watching."""
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
        log.warning("event_loop_stands", for_s=round(self._looks // 2 * self._look_s, 1), stack_trace=stacks())

    def _say_last_words(self) -> None:
        # First without any Python lock, which a blocked thread may hold.
        faulthandler.dump_traceback(_STANDARD_ERROR, all_threads=True)
        log.error("event_loop_stood_still", for_s=round(self._looks * self._look_s, 1), stack_trace=stacks())

    @staticmethod
    def _within(seconds: float, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="standstill-words", daemon=True)
        thread.start()
        thread.join(seconds)


def end_now(status: int) -> None:
    """End the process without waiting for anything, since anything may be blocked."""
    os._exit(status)
