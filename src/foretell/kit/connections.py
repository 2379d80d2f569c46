"""What is measured of this process's connections to databases, all its databases together."""

from collections.abc import Iterator
from time import perf_counter
from typing import Protocol
from weakref import WeakSet

from prometheus_client import Gauge, Histogram

from foretell.kit.metrics import LATENCY_BUCKETS_S


class Connected(Protocol):
    """Something with connections to a database."""

    def in_use_and_idle(self) -> tuple[int, int]:
        """How many are in use and how many idle."""


_open: WeakSet[Connected] = WeakSet()

CONNECTIONS = Gauge("foretell_database_connections", "Connections of this process to databases.", ["state"])
_WAIT_S = Histogram(
    "foretell_database_wait_seconds",
    "Waiting for a database connection, and making one where none is free.",
    buckets=LATENCY_BUCKETS_S,
)


def count(database: Connected) -> None:
    """Count its connections from now on, until `forget` or until it is no more."""
    _open.add(database)


def forget(database: Connected) -> None:
    """Count its connections no longer."""
    _open.discard(database)


def waited_since(asked_at: float) -> None:
    """A connection that was asked for at `asked_at` (of `perf_counter`) is there."""
    _WAIT_S.observe(perf_counter() - asked_at)


def _counted() -> Iterator[tuple[int, int]]:
    # A list, because a scrape may be in another thread than the one that opens a database.
    return (database.in_use_and_idle() for database in list(_open))


CONNECTIONS.labels("in_use").set_function(lambda: sum(in_use for in_use, _ in _counted()))
CONNECTIONS.labels("idle").set_function(lambda: sum(idle for _, idle in _counted()))
