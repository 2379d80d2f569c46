"""Sights made by hand: instances and what they measured."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from foretell.contracts.monitoring import Family, Series
from foretell.services.monitoring.alerts.snapshot import DriftFound, Snapshot
from foretell.services.monitoring.reports.counting import Counted, Taken
from foretell.services.monitoring.storage.instances import Instance

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)

#: Series as (labels, value) or, of a histogram, (labels, buckets).
Values = Sequence[tuple[Mapping[str, str], Any]]


def instance(
    service: str = "app",
    name: str = "app-1",
    *,
    state: str = "healthy",
    started_s: float = 3600,
    seen_s: float = 1,
    failing: Mapping[str, str] | None = None,
) -> Instance:
    """One that started and was seen so many seconds ago."""
    seen = NOW - timedelta(seconds=seen_s)
    return Instance(
        id=0,
        service=service,
        instance=name,
        version="1",
        started_at=NOW - timedelta(seconds=started_s),
        hostname="h",
        pid=1,
        address="",
        state=state,
        state_since=seen,
        last_seen_at=seen,
        health={"failing": failing} if failing else {},
        memory_bytes=0,
        cpu_s=0,
        logs_dropped=0,
    )


def counted(
    of: Instance, name: str, kind: Any, last: Values, first: Values | None = None, *, elapsed_s: float = 300
) -> Counted:
    """What one instance measured of one metric; without `first` it has just started."""
    at = NOW - timedelta(seconds=1)
    before = {} if first is None else {name: _family(name, kind, first)}
    began = Taken(at - timedelta(seconds=elapsed_s), before)
    return Counted(of, [began, Taken(at, {name: _family(name, kind, last)})])


def _family(name: str, kind: Any, values: Values) -> Family:
    if kind == "histogram":
        return Family(name, kind, [Series(dict(labels), 0.0, list(held)) for labels, held in values], [1.0, 2.0, 4.0])
    return Family(name, kind, [Series(dict(labels), float(value)) for labels, value in values])


def snapshot(
    *measured: Counted, instances: Sequence[Instance] = (), window_s: float = 300, drift: Sequence[DriftFound] = ()
) -> Snapshot:
    """A snapshot at `NOW`."""
    return Snapshot(now=NOW, instances=list(instances), windows={window_s: measured}, drift=list(drift))
