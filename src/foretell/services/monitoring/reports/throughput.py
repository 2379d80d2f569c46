"""Throughput, in total and over time."""

from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.activity import Batches, ModelTasks, ServiceRequests, Throughput, ThroughputPoint
from foretell.services.monitoring.reports.counting import Counts, count
from foretell.services.monitoring.reports.period import Period

REQUESTS = "foretell_http_requests_total"
ACCEPTED = "foretell_predictions_accepted_total"
SETTLED = "foretell_predictions_settled_total"
WORKER_TASKS = "foretell_worker_tasks_total"
_BATCH_ITEMS = "foretell_batch_items"

DEFAULT_POINTS = 30
MOST_POINTS = 200


async def throughput(connection: AsyncConnection, period: Period, points: int = DEFAULT_POINTS) -> Throughput:
    """The throughput of the period, in up to `points` parts of it."""
    counts = await count(connection, period, points=points)
    span_s = counts.span_s
    requests = counts.increases(REQUESTS, "service")
    return Throughput(
        **period.fields,
        counted_s=span_s,
        requests_per_s=sum(requests.values()) / span_s,
        accepted_per_s=counts.increase(ACCEPTED) / span_s,
        settled_per_s=counts.increase(SETTLED) / span_s,
        tasks_per_s=counts.increase(WORKER_TASKS) / span_s,
        services=[
            ServiceRequests(service, round(grown), grown / span_s) for (service,), grown in sorted(requests.items())
        ],
        models=_models(counts),
        batches=[
            Batches(station, round(histogram.count), histogram.mean, histogram.quantile(0.95))
            for (station,), histogram in sorted(counts.histograms(_BATCH_ITEMS, "station").items(), key=lambda e: e[0])
        ],
        points=_points(counts),
    )


def _models(counts: Counts) -> list[ModelTasks]:
    accepted = counts.increases(ACCEPTED, "model", "version")
    tasks = counts.increases(WORKER_TASKS, "model", "version")
    span_s = counts.span_s
    return [
        ModelTasks(
            model=key[0],
            version=key[1],
            accepted=round(accepted.get(key, 0.0)),
            accepted_per_s=accepted.get(key, 0.0) / span_s,
            tasks=round(tasks.get(key, 0.0)),
            tasks_per_s=tasks.get(key, 0.0) / span_s,
        )
        for key in sorted(accepted.keys() | tasks.keys())
    ]


def _points(counts: Counts) -> list[ThroughputPoint]:
    lines = [counts.rates(name) for name in (REQUESTS, ACCEPTED, SETTLED, WORKER_TASKS)]
    return [ThroughputPoint(at, *values) for at, *values in zip(counts.moments[1:], *lines, strict=True)]
