"""Metrics of alerting itself."""

from prometheus_client import Counter, Gauge, Histogram

from foretell.kit.metrics import LATENCY_BUCKETS_S

ALERTS = Gauge("foretell_alerts", "Alerts that are open, by rule, severity and state.", ["rule", "severity", "state"])
NOTICES = Counter(
    "foretell_notices",
    "Attempts to tell of alerts: sent, failed (once more, then), given_up.",
    ["channel", "outcome"],
)
RULE_FAILURES = Counter("foretell_alert_rule_failures", "Evaluations in which a rule could not be read off.", ["rule"])
EVALUATION_S = Histogram("foretell_alert_evaluation_seconds", "One evaluation of all rules.", buckets=LATENCY_BUCKETS_S)
