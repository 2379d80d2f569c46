"""Spans by OpenTelemetry, as a collector gets them; and collectors that are not there."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from structlog.testing import capture_logs
from tests.ports import free_port
from tests.tracers import CALLER_ID, TRACE_ID, TRACEPARENT, Collector

from foretell.kit import trace_export, tracing
from foretell.kit.tracing import TraceContext

_CALLER = TraceContext(TRACEPARENT, "vendor=1")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector().running() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured
    # What the library has to say is said in our words or not at all.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@contextmanager
def _recording() -> Iterator[None]:
    trace_export.start("app", "app-1", "rabbitmq")
    assert tracing.recording()
    try:
        yield
    finally:
        tracing.stop(10)
        assert not tracing.recording()


def test_a_span_arrives_as_it_was_made(collector: Collector) -> None:
    with _recording():
        outer = tracing.begin("POST", "server", _CALLER, {"http.request.method": "POST"})
        inner = tracing.begin("publish ml_tasks", "producer", outer.context, {"foretell.model.name": "m"})
        inner.end(attributes={"messaging.batch.message_count": 3})
        outer.end(name="POST /predict", attributes={"http.response.status_code": 503}, error="503")
    assert [request["path"] for request in collector.requests] == ["/v1/traces"]
    server, producer = collector.of_trace(TRACE_ID)
    assert (server.name, server.kind, server.service, server.instance) == (
        "POST /predict",
        Span.SPAN_KIND_SERVER,
        "app",
        "app-1",
    )
    assert (server.parent_id, server.tracestate, server.failed) == (CALLER_ID, "vendor=1", True)
    assert server.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert (producer.kind, producer.parent_id, producer.failed) == (Span.SPAN_KIND_PRODUCER, server.span_id, False)
    assert producer.attributes == {
        "messaging.system": "rabbitmq",
        "foretell.model.name": "m",
        "messaging.batch.message_count": 3,
    }
    # What goes on is what arrived.
    assert inner.context == TraceContext(f"00-{TRACE_ID}-{producer.span_id}-01", "vendor=1")


def test_who_comes_without_a_trace_gets_one(collector: Collector) -> None:
    with _recording():
        first, second = tracing.begin_trace("GET", "server", {}), tracing.begin_trace("GET", "server", {})
        assert first is not None
        assert second is not None
        assert first.context.trace_id != second.context.trace_id
        assert tracing.parse([first.context.traceparent]) == first.context
        first.end()
        second.end()
    assert {span.parent_id for span in collector.spans} == {""}
    assert len(collector.spans) == 2


def test_what_the_caller_does_not_sample_is_passed_on_as_it_came(collector: Collector) -> None:
    unsampled = TraceContext(TRACEPARENT[:-1] + "0", "vendor=1")
    with _recording():
        span = tracing.begin("POST", "server", unsampled, {})
        assert span.context == unsampled
        span.end()
    assert collector.requests == []


def test_the_sampler_is_the_standards(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with _recording():
        # Nobody pays for a trace of which nothing is kept ...
        assert tracing.begin_trace("GET", "server", {}) is None
        # ... but the caller's word counts.
        tracing.begin("GET", "server", _CALLER, {}).end()
    assert [span.trace_id for span in collector.spans] == [TRACE_ID]


def test_keys_and_names_are_the_standards(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    with _recording():
        tracing.begin("GET", "server", _CALLER, {}).end()
    assert collector.requests[0]["x-key"] == "s3cret"
    assert [span.service for span in collector.spans] == ["mine"]


def test_a_collector_that_is_away_is_spoken_of_once_and_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:s3cret@127.0.0.1:{port}/?key=s3cret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1000")
    with _recording():
        for _ in range(2):
            tracing.begin("GET", "server", _CALLER, {}).end()
    assert [line["event"] for line in lines] == ["traces_not_exported"]
    assert lines[0]["log_level"] == "warning"
    assert "ConnectionError" in lines[0]["reason"]
    assert "s3cret" not in str(lines)


def test_a_collector_that_refuses_is_spoken_of_once_and_so_is_that_it_takes_them_again(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    collector.status = 401
    with _recording():
        for number in range(3):
            tracing.begin("GET", "server", _CALLER, {}).end()
            while len(collector.requests) <= number:
                time.sleep(0.01)
        collector.status = 200
        tracing.begin("GET", "server", _CALLER, {}).end()
    assert [line["event"] for line in lines] == ["traces_not_exported", "traces_exported_again"]
    assert "401" in lines[0]["reason"]
    assert lines[1]["spans_lost"] == 3
    assert len(collector.spans) == 1


def test_who_wants_another_protocol_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with _recording():
        pass
    assert [(line["event"], line["wanted"]) for line in lines] == [("traces_sent_by_http", "grpc")]


def test_a_process_that_leaves_at_once_sends_its_last_spans(collector: Collector) -> None:
    program = (
        "from foretell.kit import trace_export, tracing\n"
        "from foretell.kit.lifecycle import exit_at_once\n"
        "trace_export.start('ml_worker', 'worker-1', 'sqlite')\n"
        f"tracing.begin('worker run', 'consumer', tracing.TraceContext({TRACEPARENT!r}), {{}}).end(error='timeout')\n"
        "exit_at_once(70)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 70
    (span,) = collector.of_trace(TRACE_ID)
    assert (span.name, span.service, span.failed) == ("worker run", "ml_worker", True)


def test_an_end_waits_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch, lines: list[Any]) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        trace_export.start("app", "app-1", "sqlite")
        tracing.begin("GET", "server", _CALLER, {}).end()
        tracing.stop(0.01)
        assert lines[-1]["event"] == "traces_left_behind"
    # A process would end now, and its threads with it. Here they would try on beside the next tests.
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
