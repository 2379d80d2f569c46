"""Durations: requests, runs of models, whole predictions."""

from typing import TypedDict

from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.activity import (
    DurationPoint,
    Durations,
    Latency,
    ModelDurations,
    RouteDurations,
    ServiceDurations,
    StationDurations,
)
from foretell.services.monitoring.reports.counting import Counts, Labels, count
from foretell.services.monitoring.reports.histograms import Histogram
from foretell.services.monitoring.reports.period import Period

REQUEST_DURATION_S = "foretell_http_request_duration_seconds"
PREDICTION_DURATION_S = "foretell_prediction_duration_seconds"
_SETTLE_LAG_S = "foretell_settle_lag_seconds"
_PUBLISH_DURATION_S = "foretell_broker_publish_duration_seconds"
_DATABASE_WAIT_S = "foretell_database_wait_seconds"
#: By the service that runs models.
_RUN_DURATION_S = {
    "worker": "foretell_worker_run_duration_seconds",
    "model": "foretell_model_run_duration_seconds",
}


class Numbers(TypedDict):
    """The fields of `Durations`."""

    count: int
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


async def latency(connection: AsyncConnection, period: Period, points: int = 0) -> Latency:
    """All durations of the period, and those of whole predictions in up to `points` parts of it."""
    counts = await count(connection, period, points=points) if points else await count(connection, period)
    return Latency(
        **period.fields,
        routes=[
            RouteDurations(service=service, route=route, **numbers(histogram))
            for (service, route), histogram in _sorted(counts, REQUEST_DURATION_S, "service", "route")
        ],
        models=[
            StationDurations(station=station, model=model, version=version, **numbers(histogram))
            for station, name in _RUN_DURATION_S.items()
            for (model, version), histogram in _sorted(counts, name, "model", "version")
        ],
        predictions=[
            ModelDurations(model=model, version=version, **numbers(histogram))
            for (model, version), histogram in _sorted(counts, PREDICTION_DURATION_S, "model", "version")
        ],
        all_predictions=durations(counts, PREDICTION_DURATION_S),
        settle_lag=durations(counts, _SETTLE_LAG_S),
        publishes=_by_service(counts, _PUBLISH_DURATION_S),
        database=_by_service(counts, _DATABASE_WAIT_S),
        points=_points(counts) if points else [],
    )


def _points(counts: Counts) -> list[DurationPoint]:
    parts = counts.histogram_parts(PREDICTION_DURATION_S)
    return [DurationPoint(at=at, **numbers(part)) for at, part in zip(counts.moments[1:], parts, strict=True)]


def durations(counts: Counts, name: str) -> Durations:
    """The durations in a histogram, over all its series."""
    found = counts.histograms(name)
    return Durations(**numbers(found[()])) if found else Durations()


def numbers(histogram: Histogram) -> Numbers:
    """Count, mean and quantiles of a histogram."""
    return {
        "count": round(histogram.count),
        "mean_s": histogram.mean,
        "p50_s": histogram.quantile(0.5),
        "p95_s": histogram.quantile(0.95),
        "p99_s": histogram.quantile(0.99),
    }


def _by_service(counts: Counts, name: str) -> list[ServiceDurations]:
    return [
        ServiceDurations(service=service, **numbers(histogram))
        for (service,), histogram in _sorted(counts, name, "service")
    ]


def _sorted(counts: Counts, name: str, *by: str) -> list[tuple[Labels, Histogram]]:
    return sorted(counts.histograms(name, *by).items(), key=lambda each: each[0])
