"""Metrics of the dispatcher.

Gauges that are read from the broker or the database have the same value in every dispatcher. Take one
(`max by (queue)`).
"""

from collections.abc import Callable, Sequence
from math import nan
from uuid import UUID

from prometheus_client import Counter, Gauge, Histogram

from foretell.contracts.messages import Finished, ResultEnvelope
from foretell.kit.gauge_table import GaugeTable
from foretell.kit.metrics import LATENCY_BUCKETS_S, LONG_BUCKETS_S

SETTLED = Counter("foretell_predictions_settled", "Predictions ended, by status and failure code.", ["status", "code"])
SETTLE_LAG_S = Histogram(
    "foretell_settle_lag_seconds", "From a worker's result to its settlement.", buckets=LATENCY_BUCKETS_S
)
SETTLE_DURATION_S = Histogram(
    "foretell_settle_duration_seconds", "One settlement transaction.", buckets=LATENCY_BUCKETS_S
)
_PREDICTION_DURATION_S = Histogram(
    "foretell_prediction_duration_seconds",
    "From the acceptance of a prediction to its settlement, of those that a worker answered.",
    ["model", "version"],
    buckets=LONG_BUCKETS_S,
)
SWEPT = Counter("foretell_predictions_swept", "Predictions that a sweep picked up, by reason.", ["reason"])
for _reason in ("forgotten", "lost", "abandoned", "interrupted", "expired"):
    # Created at the start, so that the first event is an increase.
    SWEPT.labels(_reason)
EVENTS_LOST = Counter(
    "foretell_events_lost", "Events that could not be published (hints only; nothing depends on them)."
)

NOTIFICATIONS = Counter(
    "foretell_notifications_sent",
    "Attempts to tell somebody of an event, by kind of endpoint (webhook, once, telegram) and outcome; "
    "what is given up failed before.",
    ["channel", "outcome"],
)
for _channel in ("webhook", "once", "telegram"):
    for _outcome in ("delivered", "failed", "given_up"):
        NOTIFICATIONS.labels(_channel, _outcome)
NOTIFICATION_LAG_S = Histogram(
    "foretell_notification_lag_seconds",
    "From an event to the receiver's answer that it has it.",
    buckets=(*LATENCY_BUCKETS_S, 120.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0),
)
NOTIFICATIONS_PENDING = Gauge(
    "foretell_notifications_pending_messages", "Events that wait to be sent, by endpoint; with those that failed."
)
NOTIFICATIONS_OLDEST_AGE_S = Gauge(
    "foretell_notifications_oldest_age_seconds", "How long the oldest event waits to be sent; 0 when none does."
)
NOTIFICATIONS_OVERDUE_S = Gauge(
    "foretell_notifications_overdue_seconds",
    "How long nobody has sent to the endpoint that is due for longest; one that failed is due at its next attempt.",
)

QUEUE_READY = Gauge("foretell_queue_ready_messages", "Messages that wait in a queue.", ["queue"])
DEAD_LETTERS = Gauge(
    "foretell_dead_letters",
    "Messages that wait in the dead-letter queue of a queue: nobody could handle them.",
    ["queue"],
)
OLDEST_TASK_AGE_S = GaugeTable(
    Gauge(
        "foretell_queue_oldest_task_age_seconds",
        "How long the oldest prediction waits that has not ended, by the queue of its task; 0 when none waits.",
        ["queue"],
    )
)
QUEUE_PREDICTIONS = GaugeTable(
    Gauge(
        "foretell_queue_predictions",
        "Predictions that have not ended, by the queue of their task: what a pool of workers is scaled on.",
        ["queue"],
    )
)
QUEUED_PREDICTIONS = Gauge("foretell_queued_predictions", "Predictions that have not ended.")
HELD_CREDITS = Gauge("foretell_held_credits", "Credits held by predictions that have not ended.")

REVENUE_CREDITS = GaugeTable(
    Gauge(
        "foretell_revenue_credits",
        "Credits captured, by model and day (UTC) of the capture; today and yesterday.",
        ["model", "day"],
    )
)
REVENUE_PREDICTIONS = GaugeTable(
    Gauge(
        "foretell_revenue_predictions",
        "Predictions charged, by model and day (UTC) of the charge; today and yesterday.",
        ["model", "day"],
    )
)
REVENUE_AT = Gauge("foretell_revenue_timestamp_seconds", "When revenue was last added up, in Unix time; NaN: not yet.")

LEDGER_FINDINGS = Gauge(
    "foretell_ledger_findings",
    "What the last audit of the books found wrong; 0 when all is right, NaN before the first.",
)
LEDGER_AUDITED_AT = Gauge(
    "foretell_ledger_audited_timestamp_seconds",
    "When the last audit of the books was done, in Unix time; NaN: not yet.",
)
# Unknown before the first audit.
LEDGER_FINDINGS.set(nan)
LEDGER_AUDITED_AT.set(nan)
REVENUE_AT.set(nan)


class Durations:
    """Observes the durations of the predictions in a batch of results; only those that this batch settles count."""

    def __init__(self) -> None:
        self._observers: dict[UUID, Callable[[float], None]] = {}

    def expect(self, envelope: ResultEnvelope) -> None:
        """Remember the model and version of these results."""
        observe = _PREDICTION_DURATION_S.labels(envelope.model, envelope.version).observe
        for result in envelope.results:
            self._observers[result.id] = observe

    def observe(self, finished: Sequence[Finished]) -> None:
        """Observe the durations of predictions that were just settled."""
        for prediction in finished:
            ended_ms = prediction.finished_at.timestamp() * 1000
            # An id begins with the millisecond of the acceptance. Never negative, because the app's clock may be ahead.
            self._observers[prediction.id](max(0.0, ended_ms - (prediction.id.int >> 80)) / 1000)
