"""Metrics in Prometheus' text format and as structures, and the few that every service has."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from math import inf, isfinite
from typing import Literal

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: Each bound is at most 1.5 times the one before, which limits the error of quantiles.
LATENCY_BUCKETS_S = (
    *(0.00025, 0.0005, 0.0007),
    *(round(digits * scale, 6) for scale in (0.001, 0.01, 0.1, 1.0) for digits in (1.0, 1.5, 2.0, 2.5, 3.5, 5.0, 7.0)),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)
#: For durations that only a model's `timeout_s` limits.
LONG_BUCKETS_S = (*LATENCY_BUCKETS_S, 90.0, 120.0, 180.0, 300.0, 450.0, 600.0, 900.0, 1800.0, 3600.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class _Durations:
    """One series of a histogram: the count of each bucket (not cumulative), and the sum."""

    __slots__ = ("buckets", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.total_s = 0.0


class HttpRequests(Collector):
    """Counts and times HTTP requests, only in the event loop's thread.

    The library's counter and histogram take locks and search all buckets, which is a tenth of the cost of a hot
    request. These are plain numbers, converted to the library's families when they are read.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._answered: dict[tuple[str, str, str], list[int]] = {}
        self._durations: dict[str, _Durations] = {}
        registry.register(self)

    def counting(self, route: str, method: str, status: str) -> Callable[[float], None]:
        """A function that counts a request with these labels; its argument is the duration in seconds."""
        answered = self._answered.setdefault((route, method, status), [0])
        durations = self._durations.setdefault(route, _Durations())

        def count(duration_s: float) -> None:
            answered[0] += 1
            durations.buckets[bisect_left(LATENCY_BUCKETS_S, duration_s)] += 1
            durations.total_s += duration_s

        return count

    def collect(self) -> Iterator[Metric]:
        """The current values of both metrics; from any thread."""
        requests = CounterMetricFamily(
            "foretell_http_requests",
            "HTTP requests answered, by route, method and status; those for health and metrics are not counted.",
            labels=["route", "method", "status"],
        )
        for labels, answered in list(self._answered.items()):
            requests.add_metric(labels, answered[0])
        durations = HistogramMetricFamily(
            "foretell_http_request_duration_seconds", "From request to last byte of the answer.", labels=["route"]
        )
        for route, of_route in list(self._durations.items()):
            at_most = accumulate(of_route.buckets)
            bounds = map(floatToGoString, (*LATENCY_BUCKETS_S, inf))
            durations.add_metric([route], list(zip(bounds, at_most, strict=True)), of_route.total_s)
        yield requests
        yield durations

    def describe(self) -> Iterator[Metric]:
        """Their names."""
        return self.collect()


HTTP_REQUESTS = HttpRequests()
BATCH_ITEMS = Histogram(
    "foretell_batch_items", "How many items one batch took, by station of the path.", ["station"], buckets=SIZE_BUCKETS
)
CRASHES = Counter(
    "foretell_process_crashes",
    "1 if this process replaces one that crashed, by what that one had in hand: a model and its version, or nothing.",
    ["in_hand"],
)
# Create the series at the start, so that it is 0 without a crash.
CRASHES.labels("nothing")
STANDSTILLS = Counter(
    "foretell_standstills",
    "Times that this instance was ended and replaced because its event loop stood still, since the start of the local "
    "engine.",
)
UP = Gauge("foretell_service_info", "1, with what this process is.", ["service", "instance", "version"])


MetricKind = Literal["counter", "gauge", "histogram"]


class Series(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One set of labels of a metric: a value, or, for a histogram, the number of observations in each bucket.

    `buckets` has one more entry than the family has `bounds`, for values above the last; they are not cumulative.
    `value` of a histogram is the sum of its observations.
    """

    labels: dict[str, str]
    value: float
    buckets: list[float] = []


class Family(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric with its Prometheus name (counters end in `_total`), and all its series."""

    name: str
    kind: MetricKind
    series: list[Series]
    #: Upper bounds of a histogram's buckets, ascending, without infinity.
    bounds: list[float] = []


def render() -> bytes:
    """All metrics of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)


def collect(registry: CollectorRegistry = REGISTRY) -> list[Family]:
    """All metrics of this process, without those that have no series yet, and without values that are not finite."""
    families = []
    for metric in registry.collect():
        if metric.type == "histogram":
            families.append(_histogram(metric))
        elif metric.type == "counter":
            families.append(_single(metric, "counter", metric.name + "_total"))
        elif metric.type == "gauge":
            families.append(_single(metric, "gauge", metric.name))
    return [family for family in families if family.series]


def _single(metric: Metric, kind: MetricKind, name: str) -> Family:
    series = [
        # Besides its value, a counter has a sample with its creation time, which is skipped.
        Series(sample.labels, sample.value)
        for sample in metric.samples
        if sample.name == name and isfinite(sample.value)
    ]
    return Family(name, kind, series)


def _histogram(metric: Metric) -> Family:
    """Convert the library's cumulative buckets to counts of single buckets."""
    series: list[Series] = []
    bounds: list[float] = []
    buckets: list[float] = []
    below = 0.0
    # The samples of one child follow one another: buckets, count, sum.
    for sample in metric.samples:
        if sample.name.endswith("_bucket"):
            buckets.append(sample.value - below)
            below = sample.value
            if len(buckets) > len(bounds) and sample.labels["le"] != "+Inf":
                bounds.append(float(sample.labels["le"]))
        elif sample.name.endswith("_count"):
            below = 0.0
        elif sample.name.endswith("_sum"):
            if isfinite(sample.value):
                series.append(Series(sample.labels, sample.value, buckets))
            buckets = []
    return Family(metric.name, "histogram", series, bounds)
