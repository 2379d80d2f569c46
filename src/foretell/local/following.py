"""Waits until the services of an engine have applied a change of the models, and collects what they can't load."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretell.kit.errors import ForetellError
from foretell.local import health
from foretell.local.installation import Program
from foretell.local.starting import HOPELESS_AFTER_STARTS, STILL_LOADING_S

#: A time limit for a user who waits at a terminal; loads may take longer.
_NO_PROGRESS_S = 60.0
_LOOK_EVERY_S = 0.2

#: Returns the answer of a process's `/health`; None if it does not answer.
Ask = Callable[[Program], Mapping[str, Any] | None]


class NotFollowed(ForetellError):
    """{who} did not say within {seconds} s whether the models of now can be loaded: see foretell logs."""

    code = "models_not_followed"


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Something that one process can't load."""

    program: str
    #: Its name in the process: `NAME VERSION`, or the folder of a package that can't be read.
    what: str
    reason: str


class Following:
    """Polls `programs` until each has applied the change with `stamp()`.

    `pids()` returns the current process of each program, to notice one that ends while it loads. `on_slow` is
    called once, with the names of the programs, when only slow loads are left.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        stamp: Callable[[], str],
        pids: Callable[[], Mapping[str, int]],
        *,
        ask: Ask = health.details,
        on_slow: Callable[[Sequence[str]], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._behind = list(programs)
        self._stamp = stamp
        self._pids = pids
        self._ask = ask
        self._on_slow = on_slow
        self._clock = clock
        self._pause = pause
        self._seen: dict[str, set[int]] = {}
        self._unloadable: list[Unloadable] = []

    def until_done(self, concerns: Callable[[str], bool]) -> list[Unloadable]:
        """Wait until all have applied the change; returns what can't be loaded, if it `concerns` the caller.

        Waits as long as there is progress. Raises `NotFollowed`.
        """
        before, progress_at, said_slow = None, self._clock(), False
        while True:
            loading = self._look(concerns)
            if not self._behind:
                return self._unloadable
            names = tuple(program.name for program in self._behind)
            idle_s = self._clock() - progress_at
            if (now := (names, loading)) != before:
                before, progress_at = now, self._clock()
            elif len(loading) < len(names) and idle_s > _NO_PROGRESS_S:
                raise NotFollowed(who=", ".join(names), seconds=int(_NO_PROGRESS_S))
            elif idle_s > STILL_LOADING_S:
                raise NotFollowed(who=", ".join(names), seconds=int(STILL_LOADING_S))
            elif len(loading) == len(names) and idle_s > health.TIMEOUT_S and not said_slow:
                said_slow = True
                self._on_slow(names)
            self._pause(_LOOK_EVERY_S)

    def _look(self, concerns: Callable[[str], bool]) -> frozenset[str]:
        """Poll the remaining programs once; returns those that are loading something that `concerns` the caller."""
        pids, stamp = self._pids(), self._stamp()
        loading: set[str] = set()
        behind = []
        for program in self._behind:
            seen = self._seen.setdefault(program.name, set())
            seen.update({pids.get(program.name, 0)} - {0})
            said = self._ask(program)
            if len(seen) >= HOPELESS_AFTER_STARTS:
                reason = "The process ends again and again while it loads."
                self._unloadable.append(Unloadable(program.name, "the models", reason))
            elif said is None or said.get("models_stamp") != stamp:
                behind.append(program)
            elif any(concerns(model) for model in said.get("loading", ())):
                # A process that has just started reports the stamp before it has loaded anything.
                loading.add(program.name)
                behind.append(program)
            else:
                found = said.get("unavailable", {}).items()
                self._unloadable += [Unloadable(program.name, what, why) for what, why in found if concerns(what)]
        self._behind = behind
        return frozenset(loading)


def sentences(found: Sequence[Unloadable]) -> str:
    """One sentence for each reason, with programs and models: `worker-1, model can't load wine 2.0.0: REASON`."""
    programs: dict[tuple[str, str], list[str]] = {}
    for each in found:
        programs.setdefault((each.what, each.reason), []).append(each.program)
    return " ".join(f"{', '.join(names)} can't load {what}: {reason}" for (what, reason), names in programs.items())
