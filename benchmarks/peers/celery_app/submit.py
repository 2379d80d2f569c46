"""Submits tasks to Celery from many threads, as a threaded web application does. Told what to do on standard input.

| line | does | answers |
| --- | --- | --- |
| `one ID` | submits one task with that id | `one` and the monotonic time just before |
| `start CLIENTS BACKLOG` | submits without pause, at most BACKLOG tasks ahead of the results | nothing |
| `stored N` | N more results are stored: N more tasks may go | `accepted` and how many were confirmed so far |
| `stop` | waits for the submissions under way and ends | `accepted` and how many were confirmed in all |
"""

import itertools
import sys
import threading
import time

from benchmarks.peers import flight
from benchmarks.peers.celery_app.app import predict


def say(*words: object) -> None:
    """Answer the driver."""
    print(*words, flush=True)


class Clients:
    """Threads that submit one task after another, each waiting for nothing but the broker's confirmation."""

    def __init__(self, clients: int, backlog: int) -> None:
        self._permits = threading.Semaphore(backlog)
        self._numbers = itertools.count()
        self._accepted = [0] * clients
        self._stopping = False
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def accepted(self) -> int:
        """How many tasks the broker confirmed."""
        return sum(self._accepted)

    def stored(self, count: int) -> None:
        """Let `count` more tasks go."""
        if count:
            self._permits.release(count)

    def stop(self) -> None:
        """Wait for the submissions under way."""
        self._stopping = True
        self._permits.release(len(self._threads))
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        while True:
            self._permits.acquire()
            if self._stopping:
                return
            predict.delay(flight.sample(next(self._numbers)))
            self._accepted[client] += 1


def main() -> None:
    """Do what the driver says until it says stop."""
    clients: Clients | None = None
    say("ready")
    for line in sys.stdin:
        command, *words = line.split()
        if command == "one":
            started = time.monotonic()
            predict.apply_async((flight.sample(0),), task_id=words[0])
            say("one", started)
        elif command == "start":
            clients = Clients(int(words[0]), int(words[1]))
        elif command == "stored" and clients is not None:
            clients.stored(int(words[0]))
            say("accepted", clients.accepted)
        elif command == "stop":
            break
    if clients is not None:
        clients.stop()
        say("accepted", clients.accepted)


if __name__ == "__main__":
    main()
