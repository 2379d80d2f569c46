"""Reports about a period: throughput, latency, errors, workers, queues, revenue and logs."""

from datetime import datetime
from typing import Any, Literal

import msgspec


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """The period of a report."""

    #: The beginning and the end, UTC.
    since: datetime
    until: datetime
    #: Its length.
    window_s: float


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds. Quantiles are estimated within the buckets of a histogram; null without data."""

    count: int = 0
    mean_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None


class RouteDurations(Durations, frozen=True, kw_only=True):
    """Requests for one route of one service, from the request to the last byte of the answer."""

    service: str
    route: str


class ModelDurations(Durations, frozen=True, kw_only=True):
    """Runs of one model version."""

    model: str
    version: str


class StationDurations(ModelDurations, frozen=True, kw_only=True):
    """Runs of one model version by workers (`worker`: an envelope each) or the model service (`model`: a call each)."""

    station: str


class ServiceDurations(Durations, frozen=True, kw_only=True):
    """Waiting times of one service."""

    service: str


class DurationPoint(Durations, frozen=True, kw_only=True):
    """Durations of predictions that were settled in one part of the period, up to `at`."""

    at: datetime


class Latency(Reported, frozen=True, kw_only=True):
    """Durations in the period.

    `predictions`: from acceptance to settlement, of those that a worker answered. `settle_lag`: from a worker's result
    to its settlement. `publishes`: until the broker confirmed a message. `database`: waiting for a connection.
    """

    routes: list[RouteDurations]
    models: list[StationDurations]
    predictions: list[ModelDurations]
    all_predictions: Durations
    settle_lag: Durations
    publishes: list[ServiceDurations]
    database: list[ServiceDurations]
    #: Of predictions, over time; as many as were asked for.
    points: list[DurationPoint]


class ServiceRequests(msgspec.Struct, frozen=True):
    """Requests that one service answered."""

    service: str
    count: int
    per_s: float


class ModelTasks(msgspec.Struct, frozen=True):
    """Work for one model version."""

    model: str
    version: str
    #: Predictions taken in, and tasks that workers did.
    accepted: int
    accepted_per_s: float
    tasks: int
    tasks_per_s: float


class Batches(msgspec.Struct, frozen=True):
    """Sizes of the batches at one stage: large batches share the fixed costs."""

    station: str
    count: int
    mean_items: float | None
    p95_items: float | None


class ThroughputPoint(msgspec.Struct, frozen=True):
    """One part of the period, up to `at`."""

    at: datetime
    requests_per_s: float
    accepted_per_s: float
    settled_per_s: float
    tasks_per_s: float


class Throughput(Reported, frozen=True, kw_only=True):
    """Throughput in the period. Rates are relative to `counted_s`, the part of the period with data."""

    counted_s: float
    requests_per_s: float
    accepted_per_s: float
    settled_per_s: float
    tasks_per_s: float
    services: list[ServiceRequests]
    models: list[ModelTasks]
    batches: list[Batches]
    points: list[ThroughputPoint]


class AnswerCounts(msgspec.Struct, frozen=True):
    """How many requests there were, and how many of them were refused (4xx) or failed on our side (5xx)."""

    count: int
    count_4xx: int
    count_5xx: int
    share_4xx: float | None
    share_5xx: float | None


class RouteAnswers(AnswerCounts, frozen=True):
    """The same for one route of one service."""

    service: str
    route: str


class FailureCount(msgspec.Struct, frozen=True):
    """How many predictions failed in one way."""

    code: str
    count: int


class ModelFailures(msgspec.Struct, frozen=True):
    """Failed rows of one model version by reason: the exception's type, or the problem of its answer.

    A row counts each time it was tried, in workers and in the model service.
    """

    model: str
    version: str
    reason: str
    count: int


class Failures(msgspec.Struct, frozen=True):
    """Failed predictions, among all that ended."""

    ended: int
    failed: int
    share: float | None
    codes: list[FailureCount]


class LoggedLines(msgspec.Struct, frozen=True):
    """Warnings and errors that one service logged; whole minutes, so that it may begin before the period."""

    service: str
    warnings: int
    errors: int
    warnings_per_minute: float
    errors_per_minute: float


class Errors(Reported, frozen=True, kw_only=True):
    """What went wrong in the period."""

    requests: AnswerCounts
    routes: list[RouteAnswers]
    predictions: Failures
    models: list[ModelFailures]
    logs: list[LoggedLines]


class ShadowDifference(msgspec.Struct, frozen=True):
    """Absolute differences between one number in a shadow's answers and in the returned answers."""

    field: str
    count: int
    mean: float | None
    p50: float | None
    p95: float | None


class ShadowAnswers(msgspec.Struct, frozen=True):
    """Answers of the version `shadow` compared with `version`: the same, different, or failed."""

    model: str
    version: str
    shadow: str
    same: int
    different: int
    failed: int
    differences: list[ShadowDifference]


class Shadows(Reported, frozen=True, kw_only=True):
    """Every shadow version that was compared in the period."""

    items: list[ShadowAnswers]


class CurrentTask(msgspec.Struct, frozen=True):
    """The tasks that a worker was running at its last heartbeat: their number, model version, and the first of them."""

    model: str
    version: str
    tasks: int
    since: datetime
    prediction_id: str


class WorkerLine(msgspec.Struct, frozen=True):
    """One worker. `tasks_done` since its start; the rates are of the period.

    `crashed`: it ended without a final heartbeat, and a process of the same name replaced it.
    """

    id: str
    state: Literal["healthy", "unhealthy", "missing", "stopped", "crashed"]
    since: datetime
    busy: bool
    current_task: CurrentTask | None
    tasks_done: int
    tasks_per_s: float
    failed: int
    memory_bytes: int
    #: Of one processor.
    cpu_share: float | None
    models: list[str]
    version: str
    started_at: datetime
    uptime_s: float
    last_seen_at: datetime


class Workers(Reported, frozen=True, kw_only=True):
    """All running workers, and those that ended in the period."""

    live: int
    busy: int
    tasks_per_s: float
    items: list[WorkerLine]


class QueueLine(msgspec.Struct, frozen=True):
    """One queue, as of a dispatcher's last poll, at `as_of`."""

    queue: str
    #: Waiting messages, dead letters, and the age of the oldest prediction for this queue (null for a queue without
    #: tasks).
    ready: int
    dead_letters: int
    oldest_task_age_s: float | None
    as_of: datetime
    #: Redelivered messages in the period: their consumer had died or returned them.
    redeliveries: int


class Publishes(Durations, frozen=True, kw_only=True):
    """Messages that one service published, and how long the broker's confirms took."""

    service: str
    confirmed: int
    failed: int
    per_s: float


class Queues(Reported, frozen=True, kw_only=True):
    """Waiting messages, and deliveries in the period."""

    items: list[QueueLine]
    publishes: list[Publishes]
    #: Predictions that have not ended, and their held credits; null if no dispatcher reported in the period.
    queued_predictions: int | None
    held_credits: int | None


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter, without values of inputs or outputs.

    `attempts`: how often it was delivered in the dead-letter queue (RabbitMQ includes earlier ones), to operators and
    to dispatchers. `redriven`: how often it was sent back. `reason`: why it can't be parsed, null if it can.
    """

    message_id: str
    attempts: int
    redriven: int
    size_bytes: int
    headers: dict[str, str]
    kind: Literal["tasks", "results", "unreadable"]
    reason: str | None
    model: str | None
    version: str | None
    #: How many tasks or results, and the predictions of the first of them.
    tasks: int
    prediction_ids: list[str]


class DeadLetters(msgspec.Struct, frozen=True):
    """The oldest dead letters of a queue, and how many there are in all."""

    queue: str
    count: int
    items: list[DeadLetter]


class MovedLetters(msgspec.Struct, frozen=True):
    """How many dead letters of a queue were sent back or discarded, and how many were left then."""

    queue: str
    moved: int
    left: int


class Earned(msgspec.Struct, frozen=True):
    """Revenue of one model on one day (UTC): captured credits and the number of predictions, as of `as_of`."""

    day: str
    model: str
    credits: int
    predictions: int
    as_of: datetime


class DayTotal(msgspec.Struct, frozen=True):
    """Revenue of all models on one day."""

    day: str
    credits: int
    predictions: int


class Revenue(msgspec.Struct, frozen=True):
    """Revenue of each of the last days, oldest first; `as_of`: the last report of a dispatcher."""

    days: int
    since: str
    until: str
    as_of: datetime | None
    credits: int
    predictions: int
    totals: list[DayTotal]
    items: list[Earned]


class ShownRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One log record, as reports show it."""

    service: str
    level: str
    message: str
    timestamp: datetime
    instance: str = ""
    trace_id: str | None = None
    prediction_id: str | None = None
    request_id: str | None = None
    fields: dict[str, Any] = {}


class MetricValue(msgspec.Struct, frozen=True):
    """One value of a metric; of a histogram, the number of its observations or their sum."""

    metric: str
    value: float
    timestamp: datetime
    #: Which instance measures it, and its labels; not for values that were sent.
    instance: str | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
