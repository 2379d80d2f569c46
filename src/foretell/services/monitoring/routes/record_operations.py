"""The OpenAPI operations of logs and metric values."""

from typing import Any

from foretell.contracts.monitoring import NDJSON
from foretell.contracts.openapi import json_answer, json_body, problem_answers, reference, struct_schemas
from foretell.contracts.reports.activity import MetricValue, ShownRecord
from foretell.services.monitoring.intake.logs import Record
from foretell.services.monitoring.intake.samples import Sample
from foretell.services.monitoring.routes.filters import MAX_LIMIT
from foretell.services.monitoring.storage.logs import LEVELS

_MOMENT = "2026-01-05T09:30:00Z"
_RECORD = {"service": "my-service", "level": "WARNING", "message": "the disk is nearly full", "timestamp": _MOMENT}
_SAMPLE = {"service": "my-service", "metric_name": "queue_length", "value": 12, "timestamp": _MOMENT}
_METRICS = {"my-service": [{"metric": "queue_length", "value": 12, "timestamp": _MOMENT}]}
_LINE = (
    '{"@timestamp":"2026-01-05T09:30:00Z","log.level":"info","message":"prediction_settled",'
    '"service.name":"dispatcher","service.node.name":"dispatcher-1"}\n'
)
_REFUSED = (408, 413, 415, 422, 503)
_FILTERS = {
    "service": "Of this service",
    "instance": "Of this instance",
    "level": f"Exactly this level: {', '.join(LEVELS)}",
    "min_level": "This level or worse",
    "since": "From this time on (ISO 8601; without a zone UTC)",
    "until": "Up to this time",
    "text": "With this in the message, in upper or lower case",
    "prediction_id": "About this prediction, the first that were written first",
    "trace_id": "Of this trace",
    "before": "Older than this place; from the Link header of an earlier answer",
    "after": "Newer than this place; from the Link header of an earlier answer",
}
_SEARCHING = """\
The newest records that fit, the newest last. However many records there are, the answer comes at once: a search that
has not looked at all of them says by `Link: <…>; rel="next"` where to look on, even if it has found nothing yet. All
has been seen when there is no such header."""


def schemas() -> dict[str, Any]:
    """The schemas of records."""
    return struct_schemas([Record, Sample, ShownRecord, MetricValue])


def paths() -> dict[str, Any]:
    """The operations on records."""
    return {
        "/logs": {"post": _take_logs()},
        "/metrics": {"post": _take_samples(), "get": _SHOW_METRICS},
        "/reports/logs": {"get": _report_logs()},
        "/reports/logs.jsonl": {"get": _export_logs()},
        "/reports/metrics": {"get": _report_metrics()},
    }


def _one_or_many(name: str) -> dict[str, Any]:
    return {"anyOf": [reference(name), {"type": "array", "items": reference(name)}]}


def _status(word: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"status": {"const": word}}, "required": ["status"]}


def _take_logs() -> dict[str, Any]:
    body = json_body(_one_or_many("Record"), {"One record": _RECORD, "Several records": [_RECORD, _RECORD]})
    body["content"][NDJSON] = {"schema": {"type": "string"}, "example": _LINE}
    return {
        "tags": ["logs"],
        "operationId": "take_logs",
        "summary": "Store log records",
        "description": "One record or a list, all of it or, if something is wrong, nothing; or JSON Lines as our "
        "services write them (Elastic Common Schema), of which those that can't be read are counted and told.",
        "requestBody": body,
        "responses": {
            "200": json_answer("Stored", _status("logged"), {"status": "logged"}),
            **problem_answers(*_REFUSED),
        },
    }


def _take_samples() -> dict[str, Any]:
    return {
        "tags": ["metrics"],
        "operationId": "take_samples",
        "summary": "Store values of metrics",
        "requestBody": json_body(_one_or_many("Sample"), {"One value": _SAMPLE, "Several values": [_SAMPLE, _SAMPLE]}),
        "responses": {
            "200": json_answer("Stored", _status("recorded"), {"status": "recorded"}),
            **problem_answers(*_REFUSED),
        },
    }


_SHOW_METRICS = {
    "tags": ["operations"],
    "operationId": "show_metrics",
    "summary": "What this service measures of itself, for Prometheus",
    "responses": {"200": {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
}


def _filters() -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
        for name, description in _FILTERS.items()
    ]


def _limit(default: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": default}
    return {"name": "limit", "in": "query", "description": "How many at most", "schema": schema}


def _report_logs() -> dict[str, Any]:
    answer = json_answer("Records, the newest last", {"type": "array", "items": reference("ShownRecord")}, [_RECORD])
    answer["headers"] = {"Link": {"description": "Where to look on", "schema": {"type": "string"}}}
    return {
        "tags": ["logs"],
        "operationId": "report_logs",
        "summary": "Find log records",
        "description": _SEARCHING,
        "parameters": [*_filters(), _limit(100)],
        "responses": {"200": answer, **problem_answers(422, 503)},
    }


def _export_logs() -> dict[str, Any]:
    return {
        "tags": ["logs"],
        "operationId": "export_logs",
        "summary": "All log records that fit, as JSON Lines, the oldest first",
        "parameters": [*_filters(), {**_limit(100), "description": "How many at most; all without it"}],
        "responses": {
            "200": {"description": "One record a line", "content": {NDJSON: {"schema": {"type": "string"}}}},
            **problem_answers(422, 503),
        },
    }


def _report_metrics() -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": {"type": "array", "items": reference("MetricValue")}}
    service = {"name": "service", "in": "query", "description": "Of this service", "schema": {"type": "string"}}
    return {
        "tags": ["metrics"],
        "operationId": "report_metrics",
        "summary": "Values of metrics, by service",
        "description": "The newest values that were sent to `POST /metrics`, oldest first; and what the running "
        "instances measure now, of histograms how many observations there were and their sum.",
        "parameters": [service, _limit(100)],
        "responses": {
            "200": json_answer("By service", schema, _METRICS),
            **problem_answers(422, 503),
        },
    }
