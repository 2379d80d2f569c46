"""Finds processes whose event loop no longer answers, which the process itself may be unable to detect."""

import http.client
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue

from foretell.local.health import reachable_host

#: A process is silent after so many unanswered checks in a row.
_LOOKS = 6


class Answer(Enum):
    """The outcome of a check."""

    LIVES = "lives"
    #: No process listens there.
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Target:
    """One process, and where it answers once it listens."""

    name: str
    pid: int
    host: str
    port: int


def ask(target: Target, timeout_s: float) -> Answer:
    """Request `/health/live`. Any answer comes from a running event loop."""
    connection = http.client.HTTPConnection(reachable_host(target.host), target.port, timeout=timeout_s)
    try:
        connection.request("GET", "/health/live")
        connection.getresponse().read(1024)
    except ConnectionRefusedError:
        return Answer.REFUSED
    except OSError:
        return Answer.SILENT
    except http.client.HTTPException:
        # Not HTTP, or an incomplete answer; but the process answers.
        return Answer.LIVES
    finally:
        connection.close()
    return Answer.LIVES


class Listener:
    """Checks the given processes in a separate thread.

    A process that has never listened may still be starting, so it is ignored. Consecutive unanswered checks are
    counted, not time, so a machine that slept or a clock that was set has no effect.
    """

    def __init__(self, limit_s: float, *, ask: Callable[[Target, float], Answer] = ask) -> None:
        """A silent process is detected within about `limit_s`."""
        self.limit_s = limit_s
        self.look_s = limit_s / _LOOKS
        self._ask = ask
        self._targets: frozenset[Target] = frozenset()
        self._listened: set[Target] = set()
        self._missed: Mapping[Target, int] = {}
        self._silent: SimpleQueue[Target] = SimpleQueue()
        self._over = threading.Event()

    def start(self) -> None:
        """Start checking."""
        threading.Thread(target=self._run, name="silence", daemon=True).start()

    def close(self) -> None:
        """Stop checking."""
        self._over.set()

    def listen_to(self, targets: Iterable[Target]) -> None:
        """Check these from now on."""
        self._targets = frozenset(targets)

    def silent(self) -> list[Target]:
        """The processes that were found silent since the last call."""
        found = []
        while True:
            try:
                found.append(self._silent.get_nowait())
            except Empty:
                return found

    def look(self, targets: Iterable[Target], answers: Iterable[Answer]) -> None:
        """Record one round of answers."""
        missed: dict[Target, int] = {}
        listened: set[Target] = set()
        for target, answer in zip(targets, answers, strict=True):
            if target in self._listened or answer is not Answer.REFUSED:
                listened.add(target)
            if answer is Answer.LIVES or target not in listened:
                continue
            missed[target] = self._missed.get(target, 0) + 1
            if missed[target] == _LOOKS:
                self._silent.put(target)
        self._missed, self._listened = missed, listened

    def _run(self) -> None:
        with ThreadPoolExecutor(max_workers=16, thread_name_prefix="silence") as threads:
            while not self._over.wait(self.look_s):
                targets = list(self._targets)
                self.look(targets, threads.map(lambda target: self._ask(target, self.look_s), targets))
