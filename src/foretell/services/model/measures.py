"""Metrics of the model service."""

from prometheus_client import Histogram

from foretell.kit.metrics import LONG_BUCKETS_S

RUN_DURATION_S = Histogram(
    "foretell_model_run_duration_seconds",
    "One call of a model, preprocessing and the way to its thread included.",
    ["model", "version"],
    buckets=LONG_BUCKETS_S,
)
