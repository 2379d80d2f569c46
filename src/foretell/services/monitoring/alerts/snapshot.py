"""The data of one evaluation, read once, so that all rules see the same state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.monitoring import SILENT_AFTER_S
from foretell.services.monitoring.reports.counting import Counted, count
from foretell.services.monitoring.reports.period import Period
from foretell.services.monitoring.storage.instances import Instance, list_instances
from foretell.services.monitoring.storage.tables import drift_findings

#: An instance or service that was not seen for this long is no longer expected.
REMEMBERED_S = 86_400.0


@dataclass(frozen=True, slots=True)
class DriftFound:
    """The last drift finding of one model version; `body` is JSON (`drift/findings.py`)."""

    model: str
    version: str
    computed_at: datetime
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The data that signals measure."""

    now: datetime
    #: All instances seen within the last day.
    instances: list[Instance]
    #: The metrics of instances, by the length of the window in seconds.
    windows: dict[float, Sequence[Counted]]
    drift: list[DriftFound]

    def is_live(self, instance: Instance) -> bool:
        """Whether the instance is running and was seen recently, so that its metrics are current."""
        return instance.live and instance.last_seen_at >= self.now - timedelta(seconds=SILENT_AFTER_S)


async def take_snapshot(connection: AsyncConnection, now: datetime, metrics: Iterable[tuple[str, float]]) -> Snapshot:
    """Read the snapshot at `now`. `metrics` are names with the lengths of their windows in seconds."""
    instances = await list_instances(connection, seen_since=now - timedelta(seconds=REMEMBERED_S))
    names: dict[float, set[str]] = {}
    for name, window_s in metrics:
        names.setdefault(window_s, set()).add(name)
    windows = {}
    for window_s, wanted in names.items():
        counts = await count(connection, Period(now - timedelta(seconds=window_s), now), names=wanted)
        windows[window_s] = counts.counted
    rows = await connection.execute(select(drift_findings).order_by(drift_findings.c.model, drift_findings.c.version))
    return Snapshot(now=now, instances=instances, windows=windows, drift=[DriftFound(**row._mapping) for row in rows])
