"""The OpenAPI page says what is true."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from foretell.contracts import http
from foretell.contracts.messages import Failure
from foretell.contracts.openapi import problem_answers
from foretell.kit.clock import now, uuid7
from foretell.services.app.openapi import Api
from foretell.services.app.routes import (
    about,
    accounts,
    admin,
    api_keys,
    credits,
    events,
    models,
    my_account,
    predictions,
    sessions,
    webhooks,
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    api = Api(title="Foretell", version="1", generate_unique_id_function=lambda route: route.name)
    for module in (
        *(about, accounts, api_keys, credits, events, models),
        *(my_account, predictions, sessions, webhooks),
        *admin.MODULES,
    ):
        api.include_router(module.router)
    # As it goes over the wire.
    page: dict[str, Any] = json.loads(json.dumps(api.openapi()))
    return page


def _validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema | {"components": document["components"]})


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def test_every_promised_call_is_there(document: dict[str, Any]) -> None:
    assert {name for name, _ in _operations(document)} >= {
        "POST /users",
        "POST /token",
        "POST /predictions/predict",
        "GET /predictions/{prediction_id}",
        "GET /predictions",
        "DELETE /predictions/{prediction_id}",
        "GET /predictions/{prediction_id}/events",
        "GET /balance",
        "GET /events",
        "PATCH /balance",
        "POST /webhooks",
        "GET /webhooks",
        "PATCH /webhooks/{webhook_id}",
        "DELETE /webhooks/{webhook_id}",
        "POST /webhooks/{webhook_id}/test",
        "POST /webhooks/{webhook_id}/rotate",
        "GET /webhooks/{webhook_id}/deliveries",
        "POST /webhooks/{webhook_id}/redeliver",
        "GET /transactions",
        "GET /models",
        "GET /models/{name}",
        "POST /api-keys",
        "GET /api-keys",
        "DELETE /api-keys/{key_id}",
        "POST /session",
        "GET /session",
        "DELETE /session",
        "GET /sessions",
        "DELETE /sessions",
        "DELETE /sessions/{session_id}",
        "GET /about",
        "PATCH /users/me",
        "DELETE /users/me",
        "POST /users/me/password",
        "GET /users/me/export",
        "GET /predictions.csv",
        "GET /usage",
        "GET /admin/users",
        "GET /admin/users/{user_id}",
        "POST /admin/users/{user_id}/grant",
        "POST /admin/users/{user_id}/refund",
        "POST /admin/users/{user_id}/block",
        "POST /admin/users/{user_id}/unblock",
        "POST /admin/users/{user_id}/role",
        "GET /admin/predictions",
        "GET /admin/journal",
        "GET /admin/overview",
        "GET /admin/workers",
        *(
            f"GET /admin/reports/{name}"
            for name in ("overview", "health", "throughput", "latency", "errors", "workers")
        ),
        *(f"GET /admin/reports/{name}" for name in ("queues", "shadows", "revenue", "drift", "metrics")),
        "GET /admin/alerts",
        "GET /admin/alerts/rules",
        "POST /admin/alerts/{alert_id}/silence",
        "GET /admin/logs",
        "GET /admin/queues",
        "GET /admin/queues/{queue}/dead",
        "POST /admin/queues/{queue}/redrive",
        "POST /admin/queues/{queue}/discard",
        "GET /admin/models",
        "POST /admin/models",
        "POST /admin/models/reload",
        "PUT /admin/models/{name}/traffic",
        "PUT /admin/models/{name}/price",
        "GET /admin/models/{name}/comparison",
    }


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in _operations(document)]
    assert len(ids) == len(set(ids))


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(_references(document))
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references == schemas


def test_every_schema_is_one(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_answer_has_a_type_and_only_its_own(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        for status, answer in operation["responses"].items():
            for content_type, content in answer.get("content", {}).items():
                assert content["schema"].keys() & {"$ref", "type", "anyOf"}, (name, status, content_type)
    rules = document["components"]["schemas"]["Rule"]["properties"]
    assert rules["severity"]["enum"] == ["critical", "info", "warning"]
    for name in ("/predictions.csv", "/predictions/{prediction_id}/events", "/users/me/export"):
        assert "application/json" not in document["paths"][name]["get"]["responses"]["200"]["content"], name


def test_whatever_is_listed_has_a_type(document: dict[str, Any]) -> None:
    """Of a list, and of a table by name, every member has one."""

    def members(part: Any) -> Iterator[dict[str, Any]]:
        if isinstance(part, dict):
            for name, value in part.items():
                if name in ("items", "additionalProperties") and isinstance(value, dict) and value:
                    yield value
                yield from members(value)
        elif isinstance(part, list):
            for value in part:
                yield from members(value)

    for member in members(document["paths"]):
        assert member != {"type": "object"}


def test_problems_are_documented_as_what_they_are(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert set(answer["content"]) == {"application/problem+json"}, (name, status)


def test_whatever_a_cookie_may_change_says_that_it_may_be_refused(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        by_cookie = {"Session": []} in operation.get("security", [])
        if by_cookie and not name.startswith("GET "):
            assert "403" in operation["responses"], name


def test_examples_fit_the_schemas_beside_them(document: dict[str, Any]) -> None:
    checked = 0
    for _, operation in _operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for body in bodies for content in body.get("content", {}).values()):
            examples = [example["value"] for example in content.get("examples", {}).values()]
            for example in [*examples, *([content["example"]] if "example" in content else [])]:
                _validator(document, content["schema"]).validate(example)
                checked += 1
    assert checked >= 4
    for schema in document["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            for example in field.get("examples", []):
                _validator(document, field).validate(example)
                checked += 1
    assert checked >= 20


@pytest.mark.parametrize("status", ["queued", "succeeded", "failed"])
def test_what_predictions_are_encoded_to_fits_their_schema(document: dict[str, Any], status: Any) -> None:
    ended = None if status == "queued" else now()
    fields: dict[str, Any] = {
        "id": uuid7(),
        "status": status,
        "model": "flight-delay",
        "version": "1.0.0",
        "price": 1,
        "output": msgspec.Raw(b'{"prediction":1}') if status == "succeeded" else None,
        "error": Failure("timeout", "It took too long.") if status == "failed" else None,
        "created_at": now(),
        "expires_at": now(),
        "finished_at": ended,
        "timings": http.Timings(total_s=0.5) if ended else http.Timings(),
    }
    prediction = http.Prediction(**fields)
    answers = {
        "Prediction": prediction,
        "PredictionDetails": http.PredictionDetails(**fields, input=msgspec.Raw(b"{}")),
        "PredictionPage": http.PredictionPage([prediction], "cursor"),
    }
    for name, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}"}
        _validator(document, schema).validate(json.loads(msgspec.json.encode(answer)))


def test_a_problem_is_shown_as_it_comes_with_that_status(document: dict[str, Any]) -> None:
    """Every one showed a 404 once, as Swagger makes an example of a schema."""
    codes: dict[str, set[str]] = {}
    for name, operation in _operations(document):
        for status, answer in operation["responses"].items():
            if content := answer.get("content", {}).get("application/problem+json"):
                assert content["example"]["status"] == int(status), name
                assert _validator(document, content["schema"]).is_valid(content["example"]), name
                codes.setdefault(status, set()).add(content["example"]["code"])
    assert {"401", "402", "404", "409", "413", "422", "429", "503"} <= codes.keys()
    # What a conflict is depends on what was asked for.
    assert {"username_taken", "already_finished", "too_many_keys", "idempotency_key_in_flight"} <= codes["409"]
    assert sum(len(found) for found in codes.values()) == len(set().union(*codes.values()))


def test_nobody_is_led_into_the_trace_of_another(document: dict[str, Any]) -> None:
    """Swagger sends the example of a parameter."""
    for _, operation in _operations(document):
        for parameter in operation.get("parameters", []):
            if parameter["name"].lower() == "traceparent":
                assert "example" not in parameter
                assert "example" not in parameter["schema"]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 415, 422, 500, 503, 504])
def test_problems_of_the_other_services_are_shown_as_they_come(status: int) -> None:
    (answer,) = problem_answers(status).values()
    example = answer["content"]["application/problem+json"]["example"]
    assert example["status"] == status
    assert http.Problem.model_validate(example).code == example["type"].rpartition(":")[2]
