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

#: Bounds that are at most half as large again as the one before: what is read off within a bucket is off by no more.
LATENCY_BUCKETS_S = (
    *(0.00025, 0.0005, 0.0007),
    *(round(digits * scale, 6) for scale in (0.001, 0.01, 0.1, 1.0) for digits in (1.0, 1.5, 2.0, 2.5, 3.5, 5.0, 7.0)),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)
#: For what may take as long as a model's `timeout_s` allows.
LONG_BUCKETS_S = (*LATENCY_BUCKETS_S, 90.0, 120.0, 180.0, 300.0, 450.0, 600.0, 900.0, 1800.0, 3600.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class _Durations:
    """A histogram's child: what each bucket alone holds, and the sum."""

    __slots__ = ("buckets", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.total_s = 0.0


class HttpRequests(Collector):
    """Counts and times HTTP requests, for the event loop's thread alone.

    The library's counter and histogram take locks and look through all buckets, which is a tenth of what a hot request
    costs. These are plain numbers, made into the library's families when somebody asks.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._answered: dict[tuple[str, str, str], list[int]] = {}
        self._durations: dict[str, _Durations] = {}
        registry.register(self)

    def counting(self, route: str, method: str, status: str) -> Callable[[float], None]:
        """What counts a request with these labels, given the seconds from the request to its answer's last byte."""
        answered = self._answered.setdefault((route, method, status), [0])
        durations = self._durations.setdefault(route, _Durations())

        def count(duration_s: float) -> None:
            answered[0] += 1
            durations.buckets[bisect_left(LATENCY_BUCKETS_S, duration_s)] += 1
            durations.total_s += duration_s

        return count

    def collect(self) -> Iterator[Metric]:
        """Both metrics as they are now; from any thread."""
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
# There from the start: no crash is 0, and not nothing.
CRASHES.labels("nothing")
STANDSTILLS = Counter(
    "foretell_standstills",
    "Times that this instance was ended and replaced because its event loop stood still, since the start of the local "
    "engine.",
)
UP = Gauge("foretell_service_info", "1, with what this process is.", ["service", "instance", "version"])


MetricKind = Literal["counter", "gauge", "histogram"]


class Series(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One set of labels of a metric: a value, or, of a histogram, how many observations each bucket holds.

    `buckets` has one more entry than the family has `bounds`, for what is above the last; they are not cumulative.
    `value` of a histogram is the sum of what was observed.
    """

    labels: dict[str, str]
    value: float
    buckets: list[float] = []


class Family(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric, with the name that Prometheus shows (counters end in `_total`), and all its series."""

    name: str
    kind: MetricKind
    series: list[Series]
    #: Upper bounds of a histogram's buckets, ascending, without infinity.
    bounds: list[float] = []


def render() -> bytes:
    """Everything measured by this process, in Prometheus' text format."""
    return generate_latest(REGISTRY)


def collect(registry: CollectorRegistry = REGISTRY) -> list[Family]:
    """Everything measured by this process. What has no series yet is left out, and what is no finite number."""
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
        # Beside its value, a counter has a sample that says since when it counts.
        Series(sample.labels, sample.value)
        for sample in metric.samples
        if sample.name == name and isfinite(sample.value)
    ]
    return Family(name, kind, series)


def _histogram(metric: Metric) -> Family:
    """The client counts what is at most as large as each bound; here each bucket has what is in it alone."""
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
