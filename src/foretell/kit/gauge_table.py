"""Gauges whose rows come and go: queues, days, models."""

from collections.abc import Mapping

from prometheus_client import Gauge


class GaugeTable:
    """A gauge whose series are exactly the rows of the last `show`: older series are removed.

    No other code may set it.
    """

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: set[tuple[str, ...]] = set()

    def show(self, rows: Mapping[tuple[str, ...], float]) -> None:
        """Set these values, by the values of the labels in their order."""
        for labels, value in rows.items():
            self._gauge.labels(*labels).set(value)
        for labels in self._shown - rows.keys():
            self._gauge.remove(*labels)
        self._shown = set(rows)
