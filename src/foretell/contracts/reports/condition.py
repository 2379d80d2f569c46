"""The current state: services and their processes, alerts, and a summary."""

from datetime import datetime
from typing import Literal

import msgspec

from foretell.contracts.reports.activity import (
    AnswerCounts,
    Durations,
    Failures,
    QueueLine,
    Queues,
    Reported,
    Revenue,
    Workers,
)

InstallationStatus = Literal["healthy", "degraded", "unhealthy"]
ServiceState = Literal["healthy", "degraded", "unhealthy", "down", "stopped"]
InstanceState = Literal["healthy", "unhealthy", "missing", "stopped"]


class InstanceHealth(msgspec.Struct, frozen=True):
    """One process. `failing` are the failed checks with reasons, as of its last heartbeat at `last_seen_at`.

    `missing`: no heartbeat for some seconds. `stopped`: it sent a final heartbeat.
    """

    instance: str
    state: InstanceState
    since: datetime
    failing: dict[str, str]
    version: str
    started_at: datetime
    #: How long it has run.
    uptime_s: float
    address: str
    hostname: str
    pid: int
    last_seen_at: datetime
    memory_bytes: int
    #: Log lines that never arrived here.
    logs_dropped: int


class ServiceHealth(msgspec.Struct, frozen=True):
    """One service, by its instances.

    `healthy`: all running instances are. `degraded`: some are, others are unhealthy or have just become silent.
    `unhealthy`: no running instance is healthy. `down`: none runs. `stopped`: all were stopped normally. `live`:
    running instances; `expected`: these and silent ones that were not replaced.
    """

    service: str
    state: ServiceState
    since: datetime
    live: int
    expected: int
    healthy: int
    instances: list[InstanceHealth]


class Health(msgspec.Struct, frozen=True):
    """The whole installation: `healthy` when every service is healthy or was stopped."""

    status: InstallationStatus
    as_of: datetime
    services: list[ServiceHealth]


class ServiceSummary(msgspec.Struct, frozen=True):
    """One service in a line."""

    service: str
    state: ServiceState
    since: datetime
    live: int
    expected: int
    healthy: int


class FiringAlert(msgspec.Struct, frozen=True):
    """An alert that fires."""

    rule: str
    severity: str
    #: What is wrong, by language.
    summary: dict[str, str]


class Overview(Reported, frozen=True, kw_only=True):
    """A summary of the current state and the period.

    `requests` and their `request_durations` are the app's; `prediction_durations` are from acceptance to settlement.
    `status` is that of the services, and `degraded` where they are healthy and an alert that is more than information
    fires. `drifting` are the model versions whose inputs or outputs have changed; revenue is today's, UTC.
    """

    status: InstallationStatus
    services: list[ServiceSummary]
    requests_per_s: float
    accepted_per_s: float
    settled_per_s: float
    request_durations: Durations
    prediction_durations: Durations
    requests: AnswerCounts
    predictions: Failures
    warnings_per_minute: float
    errors_per_minute: float
    workers: int
    workers_busy: int
    queues: list[QueueLine]
    dead_letters: int
    revenue_credits: int
    revenue_predictions: int
    alerts_firing: int
    #: Some of them, the most severe first.
    firing: list[FiringAlert]
    drifting: list[str]


class ShownAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert, as `GET /alerts` shows it."""

    id: str
    rule: str
    #: The labels of its subject.
    subject: dict[str, str]
    severity: str
    #: pending (not long enough to fire), firing, no_data (it fired, and there is no data since) or resolved.
    state: str
    #: The last value.
    value: float | None
    #: What is wrong, and what to do, by language.
    summary: dict[str, str]
    action: dict[str, str]
    pending_since: datetime
    fired_at: datetime | None
    resolved_at: datetime | None
    #: Why it was resolved: cleared, no_data or rule_off.
    reason: str | None
    silenced_until: datetime | None


class AlertList(msgspec.Struct, frozen=True):
    """Open alerts, the oldest first, and recently resolved ones, the newest first."""

    #: The last evaluation; null: not yet.
    evaluated_at: datetime | None
    open: list[ShownAlert]
    resolved: list[ShownAlert]


class Silenced(msgspec.Struct, frozen=True):
    """A silence and its end."""

    rule: str
    subject: dict[str, str]
    until: datetime


class Glance(msgspec.Struct, frozen=True):
    """The answer of `GET /admin/overview`: several reports in one. Null: unavailable; `problems` says why."""

    at: datetime
    overview: Overview | None
    health: Health | None
    queues: Queues | None
    workers: Workers | None
    revenue: Revenue | None
    alerts: AlertList | None
    #: By the name of the part, in English.
    problems: dict[str, str]
