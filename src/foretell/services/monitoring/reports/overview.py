"""The few numbers that show whether all is well."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.activity import Durations
from foretell.contracts.reports.condition import FiringAlert, InstallationStatus, Overview, ServiceSummary
from foretell.kit import structs
from foretell.services.monitoring.alerts.alert import FIRING
from foretell.services.monitoring.alerts.store import open_alerts
from foretell.services.monitoring.reports.counting import count
from foretell.services.monitoring.reports.errors import failures, logged, requests
from foretell.services.monitoring.reports.health import health
from foretell.services.monitoring.reports.latency import (
    PREDICTION_DURATION_S,
    REQUEST_DURATION_S,
    durations,
    numbers,
)
from foretell.services.monitoring.reports.period import Period
from foretell.services.monitoring.reports.queues import queue_lines
from foretell.services.monitoring.reports.revenue import revenue
from foretell.services.monitoring.reports.throughput import ACCEPTED, REQUESTS, SETTLED
from foretell.services.monitoring.reports.workers import SERVICE as WORKERS
from foretell.services.monitoring.storage.instances import list_instances
from foretell.services.monitoring.storage.tables import drift_findings

_APP = "app"
_SEVERITIES = ("critical", "warning", "info")
#: Firing alerts that are named; all are counted.
_MOST_FIRING = 10


async def overview(connection: AsyncConnection, period: Period) -> Overview:
    """The current state and the main numbers of the period."""
    counts = await count(connection, period)
    now = await health(connection, period.until)
    workers = await list_instances(connection, service=WORKERS, live_only=True)
    today = await revenue(connection, period.until.date(), 1)
    lines = await logged(connection, period)
    queues = queue_lines(counts)
    firing = await _firing(connection)
    in_app = counts.histograms(REQUEST_DURATION_S, "service").get((_APP,))
    return Overview(
        **period.fields,
        status=_status(now.status, firing),
        services=[
            ServiceSummary(each.service, each.state, each.since, each.live, each.expected, each.healthy)
            for each in now.services
        ],
        requests_per_s=counts.increases(REQUESTS, "service").get((_APP,), 0.0) / counts.span_s,
        accepted_per_s=counts.increase(ACCEPTED) / counts.span_s,
        settled_per_s=counts.increase(SETTLED) / counts.span_s,
        request_durations=Durations(**numbers(in_app)) if in_app is not None else Durations(),
        prediction_durations=durations(counts, PREDICTION_DURATION_S),
        requests=requests(counts, service=_APP),
        predictions=failures(counts),
        warnings_per_minute=sum(each.warnings_per_minute for each in lines),
        errors_per_minute=sum(each.errors_per_minute for each in lines),
        workers=len(workers),
        workers_busy=sum(bool(each.health.get("busy")) for each in workers),
        queues=queues,
        dead_letters=sum(each.dead_letters for each in queues),
        revenue_credits=today.credits,
        revenue_predictions=today.predictions,
        alerts_firing=len(firing),
        firing=firing[:_MOST_FIRING],
        drifting=await _drifting(connection),
    )


def _status(services: InstallationStatus, firing: Sequence[FiringAlert]) -> InstallationStatus:
    alarming = any(each.severity != "info" for each in firing)
    return "degraded" if services == "healthy" and alarming else services


async def _firing(connection: AsyncConnection) -> list[FiringAlert]:
    found = [
        FiringAlert(each.alert.rule, each.alert.severity, each.texts.summary)
        for each in (await open_alerts(connection)).values()
        if each.alert.state == FIRING
    ]
    return sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), each.rule, each.summary["en"]))


class _Finding(msgspec.Struct):
    drifted: bool = False


class _Findings(msgspec.Struct):
    findings: list[_Finding] = []


async def _drifting(connection: AsyncConnection) -> list[str]:
    rows = await connection.execute(select(drift_findings).order_by(drift_findings.c.model, drift_findings.c.version))
    return [
        f"{row.model} {row.version}"
        for row in rows
        if any(finding.drifted for finding in structs.decode(row.body, _Findings).findings)
    ]
