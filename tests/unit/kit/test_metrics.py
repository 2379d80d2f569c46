"""Metrics as structures say what Prometheus' text says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from foretell.kit import metrics
from foretell.kit.metrics import LATENCY_BUCKETS_S, Family, Series, collect


def test_counters_and_gauges_have_the_names_that_prometheus_shows() -> None:
    registry = CollectorRegistry()
    Counter("things", "x", ["kind"], registry=registry).labels("a").inc(3)
    Gauge("level", "x", registry=registry).set(1.5)
    assert collect(registry) == [
        Family("things_total", "counter", [Series({"kind": "a"}, 3.0)]),
        Family("level", "gauge", [Series({}, 1.5)]),
    ]


def test_a_bucket_counts_what_is_in_it_alone() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("size", "x", ["place"], buckets=(1, 2, 4), registry=registry)
    for place, values in {"a": (0.5, 2, 2, 9), "b": (3,)}.items():
        for value in values:
            histogram.labels(place).observe(value)
    assert collect(registry) == [
        Family(
            "size",
            "histogram",
            [Series({"place": "a"}, 13.5, [1.0, 2.0, 0.0, 1.0]), Series({"place": "b"}, 3.0, [0.0, 0.0, 1.0, 0.0])],
            [1.0, 2.0, 4.0],
        )
    ]


@given(st.lists(st.floats(0, 100)))
def test_buckets_and_sum_add_up(values: list[float]) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("size", "x", buckets=metrics.SIZE_BUCKETS, registry=registry)
    for value in values:
        histogram.observe(value)
    ((series,),) = [family.series for family in collect(registry)]
    assert sum(series.buckets) == len(values)
    assert math.isclose(series.value, sum(values))
    assert len(series.buckets) == len(metrics.SIZE_BUCKETS) + 1


def test_what_has_no_series_or_no_number_is_left_out() -> None:
    registry = CollectorRegistry()
    Counter("never", "x", ["kind"], registry=registry)
    Histogram("nothing", "x", ["kind"], registry=registry)
    Gauge("unknown", "x", registry=registry).set(math.nan)
    Gauge("endless", "x", registry=registry).set(math.inf)
    Histogram("odd", "x", registry=registry).observe(math.inf)
    Info("about", "x", registry=registry).info({"a": "b"})
    Summary("summary", "x", registry=registry).observe(1)
    assert collect(registry) == []


def test_the_process_itself_is_among_them() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    names = {family.name for family in collect(registry)}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"} <= names


def test_everything_in_the_text_is_in_the_structures() -> None:
    metrics.HTTP_REQUESTS.counting("/x", "GET", "200")(0.1)
    text = metrics.render().decode()
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    shown = {name for name in shown if not name.endswith("_created")}
    # What is not known yet is NaN, which JSON does not have.
    lines = [line for line in text.splitlines() if not line.endswith(" NaN")]
    used = {
        name for name in shown if any(line.startswith((f"{name}{{", f"{name} ", f"{name}_bucket")) for line in lines)
    }
    assert used <= {family.name for family in collect()}


def test_requests_are_counted_and_timed_as_the_library_would() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    requests = metrics.HttpRequests(ours)
    counter = Counter("foretell_http_requests", "x", ["route", "method", "status"], registry=theirs)
    histogram = Histogram(
        "foretell_http_request_duration_seconds", "x", ["route"], buckets=LATENCY_BUCKETS_S, registry=theirs
    )
    durations_s = [0.0, 0.0001, *LATENCY_BUCKETS_S, 0.7, 61.0]
    for number, duration_s in enumerate(durations_s):
        labels = ("/x", "POST", "200") if number % 3 else ("/y", "GET", "404")
        requests.counting(*labels)(duration_s)
        counter.labels(*labels).inc()
        histogram.labels(labels[0]).observe(duration_s)

    def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
        return {
            (sample.name, str(sorted(sample.labels.items()))): sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if not sample.name.endswith("_created")
        }

    assert samples(ours) == samples(theirs)
    assert collect(ours) == collect(theirs)
    with pytest.raises(ValueError, match="foretell_http_requests"):
        metrics.HttpRequests(ours)
