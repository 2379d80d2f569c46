"""Waits for a start, until every process has loaded its models, as long as there is progress."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from foretell.kit.errors import ForetellError
from foretell.local.log_files import LogLine, words_since
from foretell.local.services import Service
from foretell.local.status import PATIENCE_S, ProcessStatus

#: If only loading models are left, and none became ready for so long, a start is over; loading continues.
STILL_LOADING_S = 600.0
#: A process that has ended this often before it was ever healthy is considered failed.
HOPELESS_AFTER_STARTS = 3
#: How long a start waits for services that it does not need, in case they are ready quickly.
_NOT_AWAITED_S = 5.0
_LOOK_EVERY_S = 0.1
_WRONG = ("error", "critical")


_LAST_WORDS = 10
#: Log messages about an ended process, by the supervisor and by the next process.
_OF_ITS_END = frozenset({"process_ended", "process_crashed"})


class StartFailed(ForetellError):
    """{what}"""

    code = "start_failed"

    def __init__(self, reasons: Mapping[str, str], last_words: Sequence[LogLine]) -> None:
        """`reasons`: why each failed process did not start."""
        super().__init__(what=" ".join(f"{name} did not start: {reason}" for name, reason in reasons.items()))
        #: The last lines of their logs.
        self.last_words = list(last_words)


class Start:
    """One start of some processes; their logs may contain lines of earlier starts."""

    def __init__(self, table: Iterable[Service], logs_dir: Path, clock: Callable[[], float]) -> None:
        """`clock`, in seconds, is used to detect that there is no progress."""
        self._awaited = {service.name for service in table if service.awaited}
        self._logs_dir = logs_dir
        self._clock = clock
        #: The size of each log at the start: later lines belong to this start.
        self._log_sizes: dict[str, int] = {}

    def begin(self) -> None:
        """Must be called before processes are started."""
        self._log_sizes = {file.stem: file.stat().st_size for file in self._logs_dir.glob("*.log")}

    def until_healthy(
        self, status_without: Callable[[Iterable[str]], list[ProcessStatus]], names: Iterable[str] | None
    ) -> Iterator[list[ProcessStatus]]:
        """Watch a start: yields the status of the processes (`names`, or all) until each has loaded its models.

        Waits as long as there is progress, but not for models that load very long, whose processes already serve other
        models, nor for services that a start does not wait for. Raises `StartFailed` if a process ends
        again and again, or is not healthy without progress for two minutes. `status_without` need not check the health
        of the given processes.
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
            # Leave out the messages about its end; the process's own lines give the reason.
            words = [line for line in words if line.message not in _OF_ITS_END][-_LAST_WORDS:]
            wrong = [str(line.fields.get("reason") or line.message) for line in words if line.level in _WRONG]
            said = wrong or ([words[-1].message] if words else ["it ended without a word"])
            reasons[status.name] = said[-1] if ended else status.reason or f"it is {status.state}"
            last_words += words
        return StartFailed(reasons, last_words)
