"""Metrics of the models in this process."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge

from foretell.inference.package import ModelPackage
from foretell.kit.gauge_table import GaugeTable

_INFO = GaugeTable(Gauge("foretell_model_info", "1 for each model version that is loaded here.", ["model", "version"]))


_FAILURES = Counter(
    "foretell_model_failures",
    "Rows that a model failed on, by the type of the exception; or away, not_finite, not_fitting, not_json.",
    ["model", "version", "reason"],
)
#: Limit of series per model version: types of exceptions are names from the model's code.
_MOST_REASONS = 20
_reasons: dict[tuple[str, str], set[str]] = {}


def count_failure(package: ModelPackage, reason: str, rows: int = 1) -> None:
    """Count rows that the model failed on; `reason`: the type of the exception, or a word for an invalid answer."""
    known = _reasons.setdefault((package.name, package.version), set())
    if reason not in known:
        if len(known) >= _MOST_REASONS:
            reason = "other"
        known.add(reason)
    _FAILURES.labels(package.name, package.version, reason[:100]).inc(rows)


def show_loaded(packages: Iterable[ModelPackage]) -> None:
    """Show exactly these as loaded."""
    _INFO.show({(package.name, package.version): 1.0 for package in packages})
