"""Metrics of this process's connections to all its databases."""

from collections.abc import Iterator
from time import perf_counter
from typing import Protocol
from weakref import WeakSet

from prometheus_client import Gauge, Histogram

from foretell.kit.metrics import LATENCY_BUCKETS_S


class Connected(Protocol):
    """Something with connections to a database."""

    def in_use_and_idle(self) -> tuple[int, int]:
        """The numbers of used and of idle connections."""


_open: WeakSet[Connected] = WeakSet()

CONNECTIONS = Gauge("foretell_database_connections", "Connections of this process to databases.", ["state"])
_WAIT_S = Histogram(
    "foretell_database_wait_seconds",
    "Waiting for a database connection, and making one where none is free.",
    buckets=LATENCY_BUCKETS_S,
)


def count(database: Connected) -> None:
    """Count its connections from now on, until `forget` or until the object is deleted."""
    _open.add(database)


def forget(database: Connected) -> None:
    """Stop counting its connections."""
    _open.discard(database)


def waited_since(asked_at: float) -> None:
    """Record the wait for a connection that was requested at `asked_at` (of `perf_counter`)."""
    _WAIT_S.observe(perf_counter() - asked_at)


def _counted() -> Iterator[tuple[int, int]]:
    # A copy, because a scrape may run in another thread than the one that opens a database.
    return (database.in_use_and_idle() for database in list(_open))


CONNECTIONS.labels("in_use").set_function(lambda: sum(in_use for in_use, _ in _counted()))
CONNECTIONS.labels("idle").set_function(lambda: sum(idle for _, idle in _counted()))
