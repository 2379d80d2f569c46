"""Waits for a start: until every process has loaded its models, for as long as there is progress."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from foretell.kit.errors import ForetellError
from foretell.local.log_files import LogLine, words_since
from foretell.local.services import Service
from foretell.local.status import PATIENCE_S, ProcessStatus

#: Where all that is left is models that load, and none was ready for this long, a start is over: they go on alone.
STILL_LOADING_S = 600.0
#: A process that has ended this often before it was ever healthy will not be healthy the next time.
HOPELESS_AFTER_STARTS = 3
#: For what no start depends on, it waits so long, in case that it is there at once.
_NOT_AWAITED_S = 5.0
_LOOK_EVERY_S = 0.1
_WRONG = ("error", "critical")


_LAST_WORDS = 10
#: What the supervisor, and the process that comes next, log of one that ended.
_OF_ITS_END = frozenset({"process_ended", "process_crashed"})


class StartFailed(ForetellError):
    """{what}"""

    code = "start_failed"

    def __init__(self, reasons: Mapping[str, str], last_words: Sequence[LogLine]) -> None:
        """`reasons` says of each process that did not start why."""
        super().__init__(what=" ".join(f"{name} did not start: {reason}" for name, reason in reasons.items()))
        #: The last lines that they wrote to their logs.
        self.last_words = list(last_words)


class Start:
    """One start of some processes, whose logs may tell of earlier ones."""

    def __init__(self, table: Iterable[Service], logs_dir: Path, clock: Callable[[], float]) -> None:
        """By `clock`, in seconds, it finds that there is no progress."""
        self._awaited = {service.name for service in table if service.awaited}
        self._logs_dir = logs_dir
        self._clock = clock
        #: How long each log was when we last started something: what stands behind is of now.
        self._log_sizes: dict[str, int] = {}

    def begin(self) -> None:
        """To be called before something is started."""
        self._log_sizes = {file.stem: file.stat().st_size for file in self._logs_dir.glob("*.log")}

    def until_healthy(
        self, status_without: Callable[[Iterable[str]], list[ProcessStatus]], names: Iterable[str] | None
    ) -> Iterator[list[ProcessStatus]]:
        """Watch a start: yields the status of the processes (`names`, or all) until every one has loaded its models.

        Waits as long as there is progress. Models that load on and on are left to themselves: their processes are up,
        and answer for the others. So is a service that no start waits for. Raises `StartFailed` when a process ends
        again and again, or is not healthy and nothing has happened for two minutes. `status_without` need not ask those
        that it is given for their health.
        """
        wanted = None if names is None else set(names)
        seen: dict[str, set[int]] = {}
        done: dict[str, ProcessStatus] = {}
        before, progress_at = None, self._clock()
        while True:
            statuses = [
                done.get(status.name, status)
                for status in status_without(done)
                if wanted is None or status.name in wanted
            ]
            done |= {status.name: status for status in statuses if status.healthy and not status.loading}
            yield statuses
            if len(done) == len(statuses):
                return
            now = [
                (status.name, status.healthy, status.pid, set(status.loading))
                for status in statuses
                if status.service in self._awaited
            ]
            if now != before:
                before, progress_at = now, self._clock()
            waiting = [status for status in statuses if not status.healthy and status.service in self._awaited]
            for status in waiting:
                seen.setdefault(status.name, set()).update({status.pid} - {0})
            hopeless = [status for status in waiting if len(seen[status.name]) >= HOPELESS_AFTER_STARTS]
            idle_s = self._clock() - progress_at
            if hopeless or (waiting and idle_s > PATIENCE_S):
                raise self._failed(hopeless or waiting, ended=bool(hopeless))
            loading = any(status.loading for status in statuses)
            if not waiting and idle_s > (STILL_LOADING_S if loading else _NOT_AWAITED_S):
                return
            time.sleep(_LOOK_EVERY_S)

    def _failed(self, failed: list[ProcessStatus], *, ended: bool) -> StartFailed:
        reasons: dict[str, str] = {}
        last_words: list[LogLine] = []
        for status in failed:
            file = self._logs_dir / f"{status.name}.log"
            words = words_since(file, self._log_sizes.get(status.name, 0), lines=2 * _LAST_WORDS)
            # That it ended is known; why, it says itself.
            words = [line for line in words if line.message not in _OF_ITS_END][-_LAST_WORDS:]
            wrong = [str(line.fields.get("reason") or line.message) for line in words if line.level in _WRONG]
            said = wrong or ([words[-1].message] if words else ["it ended without a word"])
            reasons[status.name] = said[-1] if ended else status.reason or f"it is {status.state}"
            last_words += words
        return StartFailed(reasons, last_words)
