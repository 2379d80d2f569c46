"""One trace from the request to the settlement, through real processes, as a collector and as the logs see it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.faults.callers import authorized
from tests.faults.promises import assert_promises_kept
from tests.ports import free_port
from tests.service_process import running_service
from tests.services_system import Backends
from tests.system import FLIGHT, System
from tests.tracers import CALLER_ID, TRACE_ID, TRACEPARENT, Collector, SentSpan

_ORDER = {"model": "flight-delay", "input": FLIGHT}
_WAIT = {"Prefer": "wait=30"}
#: Sent soon, so that a test need not wait for what the end of a process would send.
_SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
#: OpenTelemetry is as good as not there.
_NO_SPANS = {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ""}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().running() as collector:
        yield collector


def _traceparent(number: int) -> tuple[str, str]:
    """A trace of its own, and what a request says of it."""
    trace_id = f"{number:032x}"
    return trace_id, f"00-{trace_id}-{CALLER_ID}-01"


async def _submit(client: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    answer = await client.post("/predictions/predict", json=_ORDER, headers=_WAIT | headers)
    assert answer.status_code == 200, answer.text
    prediction: dict[str, Any] = answer.json()
    assert prediction["status"] == "succeeded"
    return prediction


def _lines(system: System, service: str, trace_id: str) -> list[dict[str, Any]]:
    """What the processes of a service logged of a trace."""
    texts = [system.log_of(running) for running in system.processes if running.service == service]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("trace.id") == trace_id]


def _assert_logs_tell(system: System, trace_id: str, prediction_id: str) -> None:
    finished = [line for line in _lines(system, "app", trace_id) if line["message"] == "request_finished"]
    assert [line["prediction_id"] for line in finished] == [prediction_id]
    runs = [line for line in _lines(system, "worker", trace_id) if line["message"] == "task_run"]
    assert [(line["prediction_id"], line["outcome"]) for line in runs] == [(prediction_id, "succeeded")]
    settled = [line for line in _lines(system, "dispatcher", trace_id) if line["message"] == "prediction_settled"]
    assert [(line["prediction_id"], line["status"]) for line in settled] == [(prediction_id, "succeeded")]


def _assert_whole(spans: list[SentSpan], prediction: dict[str, Any], *, parent_id: str) -> None:
    """The spans of one prediction are those of all four stations, each where it belongs."""
    assert [span.name for span in spans] == [
        "POST /predictions/predict",
        "intake",
        "publish ml_tasks",
        "worker run",
        "settle",
    ]
    server, intake, publish, run, settle = spans
    assert [span.parent_id for span in spans] == [
        parent_id,
        server.span_id,
        server.span_id,
        publish.span_id,
        run.span_id,
    ]
    assert [span.kind for span in spans] == [
        Span.SPAN_KIND_SERVER,
        Span.SPAN_KIND_INTERNAL,
        Span.SPAN_KIND_PRODUCER,
        Span.SPAN_KIND_CONSUMER,
        Span.SPAN_KIND_CONSUMER,
    ]
    assert [span.service for span in spans] == ["app", "app", "app", "ml_worker", "dispatcher"]
    assert not any(span.failed for span in spans)
    assert all(span.started_ns <= span.ended_ns for span in spans)
    # Accepted before it leaves, run after that, and settled last.
    assert intake.ended_ns <= publish.started_ns <= run.started_ns <= settle.started_ns
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["http.route"] == "/predictions/predict"
    assert run.instance == prediction["worker_id"] == run.attributes["foretell.worker.id"]
    assert settle.attributes["foretell.prediction.status"] == "succeeded"
    for span in spans[1:]:
        assert span.attributes["foretell.prediction.id"] == prediction["id"]
        assert span.attributes["foretell.model.name"] == "flight-delay"
        assert span.attributes["foretell.model.version"] == prediction["version"]


async def test_one_trace_from_request_to_settlement(backends: Backends, tmp_path: Path, collector: Collector) -> None:
    system = backends.system(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **_SOON)
    async with system.running(workers=2):
        _, client = await authorized(system)
        async with client:
            traced = await _submit(client, traceparent=TRACEPARENT, tracestate="vendor=1")
            alone = await _submit(client)
            # Many at once, which share envelopes and transactions.
            numbers = range(1, 41)
            many = await asyncio.gather(*(_submit(client, traceparent=_traceparent(each)[1]) for each in numbers))
            refused = await client.post("/predictions/predict", json=_ORDER | {"model": "nobody"})
            assert refused.status_code == 404
        await assert_promises_kept(system)
    # Their last spans went out when they stopped.
    assert {running.process.returncode for running in system.processes} == {0}
    messaging_system = "sqlite" if backends.embedded else "rabbitmq"
    spans = collector.of_trace(TRACE_ID)
    _assert_whole(spans, traced, parent_id=CALLER_ID)
    assert {span.tracestate for span in spans} == {"vendor=1"}
    assert {span.attributes["messaging.system"] for span in spans[2:]} == {messaging_system}
    assert "AA" not in str([span.attributes for span in collector.spans])
    _assert_logs_tell(system, TRACE_ID, traced["id"])

    for number, prediction in zip(numbers, many, strict=True):
        trace_id, _ = _traceparent(number)
        _assert_whole(collector.of_trace(trace_id), prediction, parent_id=CALLER_ID)
        _assert_logs_tell(system, trace_id, prediction["id"])
    # Who comes without a trace begins one.
    (of_alone,) = {
        span.trace_id for span in collector.spans if span.attributes.get("foretell.prediction.id") == alone["id"]
    }
    _assert_whole(collector.of_trace(of_alone), alone, parent_id="")
    _assert_logs_tell(system, of_alone, alone["id"])


async def test_a_collector_that_is_away_disturbs_nobody(backends: Backends, tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    system = backends.system(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=away, **_SOON)
    async with system.running(workers=1):
        _, client = await authorized(system)
        async with client:
            for _ in range(5):
                predictions = await asyncio.gather(*(_submit(client, traceparent=TRACEPARENT) for _ in range(5)))
        assert len(predictions) == 5
        await assert_promises_kept(system)
    assert {running.process.returncode for running in system.processes} == {0}
    for running in system.processes:
        complaints = system.log_of(running).count('"traces_not_exported"')
        assert complaints == 1, system.log_of(running)


async def test_without_spans_the_logs_tell_all_the_same(backends: Backends, tmp_path: Path) -> None:
    system = backends.system(tmp_path, **_NO_SPANS)
    async with system.running(workers=1):
        _, client = await authorized(system)
        async with client:
            traced = await _submit(client, traceparent=TRACEPARENT)
            untraced = await _submit(client)
            looked = await client.get(f"/predictions/{untraced['id']}")
            assert looked.status_code == 200
    _assert_logs_tell(system, TRACE_ID, traced["id"])
    lines = [json.loads(line) for line in system.log_of(system.processes[0]).splitlines() if line.startswith("{")]
    # Whoever looks for a prediction finds its requests; what came without a trace has none.
    named = [line for line in lines if line.get("prediction_id") == untraced["id"]]
    assert [line["route"] for line in named] == ["/predictions/predict", "/predictions/{prediction_id}"]
    assert not any("trace.id" in line for line in named)


@pytest.mark.parametrize(("service", "path"), [("model", "/predict"), ("preprocessing", "/preprocess")])
def test_services_that_answer_at_once_are_part_of_their_callers_trace(
    service: str, path: str, tmp_path: Path, collector: Collector
) -> None:
    features = {"carrier": "AA", "dep_hour": 9, "distance": 550, "weather_delay": 0}
    body = features if service == "model" else FLIGHT
    with running_service(service, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **_SOON) as process:
        answer = httpx.post(f"{process.url}{path}", json=body, headers={"traceparent": TRACEPARENT})
        assert answer.status_code == 200, answer.text
        httpx.get(f"{process.url}/health")
        assert process.stop() == 0
    (span,) = collector.spans
    assert (span.name, span.trace_id, span.parent_id) == (f"POST {path}", TRACE_ID, CALLER_ID)
    assert (span.kind, span.service) == (Span.SPAN_KIND_SERVER, f"{service}_service")
