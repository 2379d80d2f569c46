"""A monitoring service in this process, and processes that tell it of themselves."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec

from foretell.contracts.monitoring import Family, Heartbeat, Series
from foretell.kit.clock import now
from foretell.kit.metrics import LATENCY_BUCKETS_S, SIZE_BUCKETS
from foretell.services.monitoring.app import build, parts_of
from foretell.services.monitoring.migrations.run import migrate
from foretell.services.monitoring.parts import Surroundings
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage import instances
from foretell.services.monitoring.storage.database import MonitoringDatabase

Labels = tuple[str, ...]


@dataclass
class Watching:
    """The service, as others see it, and its database."""

    client: httpx.AsyncClient
    database: MonitoringDatabase

    async def get(self, path: str, **parameters: Any) -> Any:
        """What a report says."""
        answer = await self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def silence(self, seconds: float = 60.0) -> None:
        """Let the service believe that it has heard of nobody for so long."""
        async with self.database.transaction() as connection:
            await instances.mark_missing(connection, now() + timedelta(seconds=seconds))


@asynccontextmanager
async def watching(
    database_url: str, folder: Path, *, broker_url: str = "", broker_prefix: str = ""
) -> AsyncIterator[Watching]:
    """A monitoring service with an empty database."""
    settings = MonitoringSettings(
        monitoring_database_url=database_url, data_dir=folder, broker_url=broker_url, broker_prefix=broker_prefix
    )
    database = MonitoringDatabase(settings)
    try:
        await migrate(database)
        surroundings = Surroundings(settings, database, "monitoring-1")
        app = build(parts_of(surroundings), surroundings)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8003") as client:
            yield Watching(client, database)
    finally:
        await database.close()


@dataclass
class Process:
    """A process as heartbeats show it. Its counters only grow, as in a real one."""

    watching: Watching
    service: str
    instance: str
    started_at: datetime
    address: str = "127.0.0.1:8000"
    memory_bytes: int = 64_000_000
    counters: dict[str, dict[tuple[tuple[str, str], ...], float]] = field(default_factory=dict)
    gauges: dict[str, dict[tuple[tuple[str, str], ...], float]] = field(default_factory=dict)
    observed: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Every process has some metric at once.
        self.set("foretell_service_info", 1, service=self.service, instance=self.instance, version="1.2.3")

    def count(self, name: str, increase: float, **labels: str) -> None:
        """Count something."""
        series = self.counters.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        series[key] = series.get(key, 0.0) + increase

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.gauges.setdefault(name, {})[tuple(sorted(labels.items()))] = value

    def observe(self, name: str, values: Sequence[float], **labels: str) -> None:
        """Observe values of a histogram."""
        self.observed.setdefault(name, {}).setdefault(tuple(sorted(labels.items())), []).extend(values)

    async def say(
        self,
        at: datetime,
        *,
        health: Mapping[str, Any] | None = None,
        goodbye: bool = False,
    ) -> None:
        """Send a heartbeat with everything as it is, taken at `at`."""
        heartbeat = Heartbeat(
            service=self.service,
            instance=self.instance,
            version="1.2.3",
            started_at=self.started_at,
            at=at,
            health={"status": "healthy", "service": self.service, "instance": self.instance, **(health or {})},
            pid=4711,
            hostname="testing",
            address=self.address,
            memory_bytes=self.memory_bytes,
            cpu_s=1.5,
            metrics=[*self._families()],
            goodbye=goodbye,
        )
        answer = await self.watching.client.post("/heartbeats", content=msgspec.json.encode(heartbeat))
        assert answer.status_code == 200, answer.text

    def _families(self) -> list[Family]:
        singles = [
            Family(name, kind, [Series(dict(key), value) for key, value in series.items()])  # type: ignore[arg-type]
            for kind, metrics in (("counter", self.counters), ("gauge", self.gauges))
            for name, series in metrics.items()
        ]
        return singles + [
            Family(
                name,
                "histogram",
                [Series(dict(key), sum(values), _buckets(values, _bounds(name))) for key, values in series.items()],
                list(_bounds(name)),
            )
            for name, series in self.observed.items()
        ]


def _bounds(name: str) -> Sequence[float]:
    return LATENCY_BUCKETS_S if name.endswith("_seconds") else SIZE_BUCKETS


def _buckets(values: Sequence[float], bounds: Sequence[float]) -> list[float]:
    buckets = [0.0] * (len(bounds) + 1)
    for value in values:
        buckets[sum(value > bound for bound in bounds)] += 1
    return buckets
