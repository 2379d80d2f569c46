"""The table of metrics in docs/monitoring.md is what is measured: all of it, and nothing else."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Metric

import foretell.broker.measures
import foretell.inference.measures
import foretell.kit
import foretell.services

_DOCS = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
_ROW = re.compile(r"^\| `(foretell_\w+)(?:\{([\w, ]*)\})?` \| (counter|gauge|histogram) \|", re.MULTILINE)
#: Base units of Prometheus, and what is counted in things.
_UNITS = (
    "_seconds",
    "_bytes",
    "_credits",
    "_messages",
    "_items",
    "_connections",
    "_predictions",
    "_findings",
    "_letters",
)
#: What is neither: a state, an index, an identity.
_UNITLESS = {
    "foretell_worker_busy",
    "foretell_service_info",
    "foretell_model_info",
    "foretell_shadow_difference",
    "foretell_drift_psi",
    "foretell_drift_status",
    "foretell_alerts",
    "foretell_broker_trouble",
}
#: Labels whose values are few, and set by the operator or by us: never by a user, and no identifiers.
_BOUNDED = {
    *("route", "method", "status", "station", "service", "instance", "version", "model", "outcome", "code", "reason"),
    *("queue", "day", "state", "shadow", "field", "feature", "window", "rule", "severity", "channel", "table"),
    "in_hand",
}


def _measured() -> dict[str, Metric]:
    """Every metric of ours, by the name that Prometheus shows."""
    for package in (foretell.kit, foretell.services):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            # OpenTelemetry and uvloop need not be there; programs that begin at once are none that measure.
            if module.name.split(".")[-1] not in ("__main__", "telemetry", "env") and ".versions" not in module.name:
                importlib.import_module(module.name)
    found = {}
    for collector in list(REGISTRY._collector_to_names):
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            if metric.name.startswith("foretell_"):
                name = metric.name + ("_total" if metric.type == "counter" else "")
                # A collector of our own has several metrics, each of which knows its labels.
                labels = getattr(metric, "_labelnames", None) or getattr(collector, "_labelnames", ())
                metric.labels = tuple(labels)  # type: ignore[attr-defined]
                found[name] = metric
    return found


@pytest.fixture(scope="module")
def measured() -> dict[str, Metric]:
    # Tests make metrics of their own.
    return {name: each for name, each in _measured().items() if not name.startswith("foretell_test")}


def _documented() -> Iterator[tuple[str, tuple[str, ...], str]]:
    for name, labels, kind in _ROW.findall(_DOCS.read_text(encoding="utf-8")):
        yield name, tuple(label.strip() for label in labels.split(",") if label.strip()), kind


def test_the_table_is_what_is_measured(measured: dict[str, Metric]) -> None:
    documented = list(_documented())
    assert len({name for name, _, _ in documented}) == len(documented)
    assert {name: (labels, kind) for name, labels, kind in documented} == {
        name: (each.labels, each.type)  # type: ignore[attr-defined]
        for name, each in measured.items()
    }


def test_names_say_their_units(measured: dict[str, Metric]) -> None:
    for name, each in measured.items():
        if each.type != "counter":
            assert name.endswith(_UNITS) or name in _UNITLESS, name


def test_everything_is_explained(measured: dict[str, Metric]) -> None:
    for name, each in measured.items():
        assert each.documentation.endswith((".", ").")), name


def test_labels_are_bounded(measured: dict[str, Metric]) -> None:
    for name, each in measured.items():
        assert set(each.labels) <= _BOUNDED, name  # type: ignore[attr-defined]
