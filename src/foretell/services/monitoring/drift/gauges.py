"""Drift metrics for Prometheus. Series of removed versions and features are removed."""

from collections.abc import Sequence

from prometheus_client import Gauge

from foretell.contracts.reports.drift import DriftStatus, FieldFinding, VersionFinding, WindowFinding

_LABELS = ["model", "version", "feature", "window"]

PSI = Gauge(
    "foretell_drift_psi",
    "How far a feature (or output.NAME) of the last window, in seconds, is from the reference: population stability "
    "index.",
    _LABELS,
)
STATUS = Gauge(
    "foretell_drift_status",
    "0 stable, 1 shifting, 2 drifted, by feature (or output.NAME) and window in seconds; absent where there is too "
    "little to say.",
    _LABELS,
)

_NUMBERS: dict[DriftStatus, int] = {"stable": 0, "shifting": 1, "drifted": 2}

Labels = tuple[str, str, str, str]


#: The current series, to remove those that are gone. Global, because a process has each gauge once.
_shown: dict[Gauge, set[Labels]] = {PSI: set(), STATUS: set()}


def show(found: Sequence[VersionFinding]) -> None:
    """Set the gauges to these findings and remove other series."""
    psi: dict[Labels, float] = {}
    status: dict[Labels, float] = {}
    for version in found:
        for window in version.windows:
            for field in window.fields:
                labels = _labels(version, window, field)
                if field.psi is not None:
                    psi[labels] = field.psi
                if field.status in _NUMBERS:
                    status[labels] = _NUMBERS[field.status]
    for gauge, values in ((PSI, psi), (STATUS, status)):
        for gone in _shown[gauge] - values.keys():
            gauge.remove(*gone)
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        _shown[gauge] = set(values)


def _labels(version: VersionFinding, window: WindowFinding, field: FieldFinding) -> Labels:
    name = field.name if field.part == "feature" else f"output.{field.name}"
    return version.model, version.version, name, f"{window.window_s:g}"
