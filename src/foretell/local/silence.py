"""Finds processes whose event loop no longer answers, whatever holds it up; nobody inside such a process may notice."""

import http.client
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue

from foretell.local.health import reachable_host

#: A process is silent when it did not answer so many times in a row.
_LOOKS = 6


class Answer(Enum):
    """What became of a question."""

    LIVES = "lives"
    #: Nobody listens there.
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
    """Ask for `/health/live`. Whatever the answer is, an event loop has given it."""
    connection = http.client.HTTPConnection(reachable_host(target.host), target.port, timeout=timeout_s)
    try:
        connection.request("GET", "/health/live")
        connection.getresponse().read(1024)
    except ConnectionRefusedError:
        return Answer.REFUSED
    except OSError:
        return Answer.SILENT
    except http.client.HTTPException:
        # No HTTP, or none that ends; but somebody is there.
        return Answer.LIVES
    finally:
        connection.close()
    return Answer.LIVES


class Listener:
    """Asks, in a thread of its own, the processes that it is told of.

    One that has never listened may be on its way to do so: it is no matter of ours. What counts is questions in a row,
    not the clock: a machine that was asleep, or a clock that was set, is no reason.
    """

    def __init__(self, limit_s: float, *, ask: Callable[[Target, float], Answer] = ask) -> None:
        """Within `limit_s` or so it finds out that somebody is silent."""
        self.limit_s = limit_s
        self.look_s = limit_s / _LOOKS
        self._ask = ask
        self._targets: frozenset[Target] = frozenset()
        self._listened: set[Target] = set()
        self._missed: Mapping[Target, int] = {}
        self._silent: SimpleQueue[Target] = SimpleQueue()
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name="silence", daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._over.set()

    def listen_to(self, targets: Iterable[Target]) -> None:
        """From now on, ask these."""
        self._targets = frozenset(targets)

    def silent(self) -> list[Target]:
        """Who has been found silent since this was last asked."""
        found = []
        while True:
            try:
                found.append(self._silent.get_nowait())
            except Empty:
                return found

    def look(self, targets: Iterable[Target], answers: Iterable[Answer]) -> None:
        """Take note of one round of answers."""
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
