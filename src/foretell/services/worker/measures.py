"""Metrics of a worker."""

from prometheus_client import Counter, Gauge, Histogram

from foretell.kit.metrics import LONG_BUCKETS_S

BUSY = Gauge("foretell_worker_busy", "1 while an envelope is in hand.")
TASKS = Counter("foretell_worker_tasks", "Tasks done, by model, version and outcome.", ["model", "version", "outcome"])
RUN_DURATION_S = Histogram(
    "foretell_worker_run_duration_seconds",
    "Preprocessing and model call of one envelope.",
    ["model", "version"],
    buckets=LONG_BUCKETS_S,
)
SHADOW_TASKS = Counter(
    "foretell_shadow_tasks",
    "Answers of shadow versions beside those that were given: same, different or failed.",
    ["model", "version", "shadow", "outcome"],
)
SHADOW_DIFFERENCE = Histogram(
    "foretell_shadow_difference",
    "How far a number of a shadow's answer is from the one that was given.",
    ["model", "version", "shadow", "field"],
    buckets=[0.0, 0.0001, 0.001, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0, 100.0],
)
