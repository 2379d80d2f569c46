"""`POST /metrics`, and `GET /reports/metrics`."""

from foretell.contracts.reports.activity import MetricValue
from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.monitoring.intake.intake import Intake
from foretell.services.monitoring.intake.samples import read_samples
from foretell.services.monitoring.routes.filters import known_only, whole_number
from foretell.services.monitoring.storage import samples, snapshots
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.snapshots import Snapshot

_MOST = 10_000


class Metrics:
    """The routes."""

    def __init__(self, database: MonitoringDatabase, intake: Intake) -> None:
        self._database = database
        self._intake = intake

    @property
    def routes(self) -> list[Route]:
        return [Route("POST", "/metrics", self.take), Route("GET", "/reports/metrics", self.report)]

    async def take(self, request: Request) -> Answer:
        """Store one value, or a list of them."""
        await self._intake.take(request, read_samples)
        return json_answer({"status": "recorded"})

    async def report(self, request: Request) -> Answer:
        """By service: the newest values that were sent, oldest first, and the current metrics of its instances."""
        given = known_only(request.query(), ("service", "limit"))
        wanted = given.get("service")
        limit = whole_number(given, "limit", 100, least=1, most=_MOST)
        async with self._database.snapshot() as connection:
            services = [wanted] if wanted else await samples.services(connection)
            found: dict[str, list[MetricValue]] = {
                service: [
                    MetricValue(sample.name, sample.value, sample.at)
                    for sample in await samples.newest(connection, service, limit)
                ]
                for service in services
            }
            taken = await snapshots.latest(connection)
        for snapshot in taken:
            service = snapshot.instance.service
            if wanted in (None, service):
                found.setdefault(service, []).extend(_values(snapshot))
        return json_answer(found)


def _values(snapshot: Snapshot) -> list[MetricValue]:
    """Every value of a snapshot; for histograms count and sum."""
    records: list[MetricValue] = []
    for family in snapshot.families:
        for series in family.series:
            values = {family.name: series.value}
            if family.kind == "histogram":
                values = {f"{family.name}_count": sum(series.buckets), f"{family.name}_sum": series.value}
            records.extend(
                MetricValue(name, value, snapshot.at, snapshot.instance.instance, series.labels)
                for name, value in values.items()
            )
    return records
