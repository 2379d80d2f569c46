"""What is said about models and about the service."""

import asyncio
import json
import threading
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from structlog.testing import capture_logs
from tests.model_packages import Doubler, live_registry, write_package

from foretell.inference.package import ModelPackage
from foretell.services.model.app import build
from foretell.services.model.models import Models
from foretell.services.model.settings import ModelSettings


async def test_models_are_listed_with_their_schemas(client: httpx.AsyncClient) -> None:
    items = (await client.get("/models")).json()["items"]
    flight = next(item for item in items if item["name"] == "flight-delay")
    assert flight["ready"] is True
    assert flight["versions"] == ["1.0.0"]
    assert flight["features_schema"]["properties"]["dep_hour"]["maximum"] == 23
    assert flight["title"] == {"en": "Flight delay", "ru": "Задержка рейса"}
    assert (await client.get("/models/flight-delay")).json() == flight
    assert (await client.get("/models/flight-delay?version=1.0.0")).json() == flight
    assert (await client.get("/models/nobody")).status_code == 404
    assert (await client.get("/models/flight-delay?version=7")).status_code == 404


def _app(folder: Path, load: Any, **options: Any) -> tuple[Models, httpx.AsyncClient]:
    models = Models(live_registry(folder), load=load, **options)
    transport = httpx.ASGITransport(build(models, ModelSettings(), "model-1"))
    return models, httpx.AsyncClient(transport=transport, base_url="http://model")


async def test_a_broken_package_is_listed_and_the_others_are_served(tmp_path: Path) -> None:
    write_package(tmp_path / "models")
    (write_package(tmp_path / "models", name="bent") / "model.toml").write_text("name = ")
    models, client = _app(tmp_path, lambda _: Doubler())
    await models.follow()
    async with client:
        answer = (await client.get("/models")).json()
        assert [item["name"] for item in answer["items"]] == ["doubler"]
        (unavailable,) = answer["unavailable"]
        assert "bent" in unavailable["name"]
        assert "not TOML" in unavailable["reason"]
        response = await client.post("/models/doubler/predict", json={"x": 4})
        assert response.json()["y"] == 8
        assert (await client.get("/health/ready")).status_code == 200
        # There is no flight-delay model here, and /predict says so.
        assert (await client.post("/predict", json={})).status_code == 404


async def test_a_model_that_cannot_be_loaded_is_listed_with_its_reason(tmp_path: Path) -> None:
    write_package(tmp_path / "models", sha256="0" * 64)
    # The shipped runtime: it finds the hash wrong before it loads anything.
    models = Models(live_registry(tmp_path))
    await models.follow()
    transport = httpx.ASGITransport(build(models, ModelSettings(), "model-1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        described = (await client.get("/models/doubler")).json()
        assert described["ready"] is False
        assert "sha256" in described["reason"]
        assert (await client.post("/models/doubler/predict", json={"x": 4})).status_code == 503


async def test_the_failure_of_a_model_is_told_without_its_secrets(tmp_path: Path) -> None:
    def fail(row: dict[str, Any]) -> dict[str, Any]:
        if row["x"] == 3:
            raise ValueError("the secret of row 3")
        return {"y": 1}

    write_package(tmp_path / "models")
    models, client = _app(tmp_path, lambda _: Doubler(fail))
    await models.follow()
    async with client:
        response = await client.post("/models/doubler/predict", json=[{"x": 1}, {"x": 3}])
    assert (response.status_code, response.json()["code"]) == (500, "model_error")
    assert response.json()["errors"] == [{"detail": "The model failed on this input.", "pointer": "#/1"}]


async def test_health_names_the_service(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/health")).json()
    assert (answer["status"], answer["service"]) == ("healthy", "model_service")
    assert answer["models"] == ["flight-delay 1.0.0"]
    for path in ("/health/live", "/health/ready", "/metrics", "/docs"):
        assert (await client.get(path)).status_code == 200


async def test_it_is_not_ready_before_the_models_are(tmp_path: Path) -> None:
    write_package(tmp_path / "models")
    models, client = _app(tmp_path, lambda _: Doubler())
    async with client:
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/v2/health/ready")).status_code == 400
        assert (await client.get("/health/live")).status_code == 200
        await models.follow()
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_fast_models_answer_while_a_slow_one_loads(tmp_path: Path) -> None:
    for name in ("a-slow", "doubler"):
        write_package(tmp_path / "models", name=name)
    gate = threading.Event()

    def load(package: ModelPackage) -> Doubler:
        if package.name == "a-slow":
            gate.wait()
        return Doubler()

    models, client = _app(tmp_path, load, slow_after_s=0.01)
    following = asyncio.create_task(models.follow())
    inputs = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [4]}]}
    async with client:
        while (await client.post("/models/doubler/predict", json={"x": 4})).status_code == 503:
            await asyncio.sleep(0.01)
        assert (await client.post("/v2/models/doubler/infer", json=inputs)).status_code == 200
        health = (await client.get("/health")).json()
        assert (health["status"], health["models"], list(health["loading"])) == (
            "healthy", ["doubler 1.0.0"], ["a-slow 1.0.0"],
        )  # fmt: skip
        for path in ("/models/a-slow/predict", "/v2/models/a-slow/infer"):
            response = await client.post(path, json=inputs if "infer" in path else {"x": 4})
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert "a-slow 1.0.0 is not ready. It is being loaded." in response.text
        assert (await client.get("/v2/models/doubler/ready")).status_code == 200
        assert (await client.get("/v2/models/a-slow/ready")).status_code == 400
        assert (await client.get("/health/ready")).status_code == 503
        gate.set()
        await following
        assert (await client.get("/v2/models/a-slow/ready")).status_code == 200
        assert (await client.post("/models/a-slow/predict", json={"x": 4})).json()["y"] == 8
        assert (await client.get("/health/ready")).status_code == 200


async def test_it_is_not_live_while_a_model_hangs(tmp_path: Path) -> None:
    model = Doubler()
    write_package(tmp_path / "models", timeout_s=0.5)
    # By this clock each call takes a second: long enough to be made in a thread.
    models, client = _app(tmp_path, lambda _: model, clock=count().__next__)
    async with client:
        await models.follow()
        model.gate.clear()
        response = await client.post("/models/doubler/predict", json={"x": 4})
        assert (response.status_code, response.json()["code"]) == (504, "timeout")
        assert (await client.get("/health/live")).status_code == 503
        response = await client.post("/models/doubler/predict", json={"x": 4})
        assert (response.status_code, response.json()["code"]) == (503, "model_hangs")
        model.gate.set()


async def test_requests_are_counted_by_their_templates(client: httpx.AsyncClient) -> None:
    await client.post("/models/flight-delay/predict", json={})
    metrics = (await client.get("/metrics")).text
    assert 'foretell_http_requests_total{method="POST",route="/models/{name}/predict",status="422"}' in metrics
    assert 'foretell_batch_items_count{station="model"}' in metrics


@pytest.fixture
async def page(client: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


async def test_the_page_has_every_promised_call(page: dict[str, Any]) -> None:
    assert set(page["paths"]) >= {
        "/predict",
        "/models",
        "/models/{name}",
        "/models/{name}/predict",
        "/models/flight-delay/predict",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{name}",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/models/{name}/versions/{version}/infer",
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/unload",
    }
    ids = [operation["operationId"] for path in page["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


async def test_every_error_of_the_protocol_has_its_own_example(page: dict[str, Any]) -> None:
    errors: dict[str, set[str]] = {}
    for path, operations in page["paths"].items():
        if not path.startswith("/v2"):
            continue
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    example = answer["content"]["application/json"]["example"]
                    assert answer["description"] == example["error"]
                    errors.setdefault(status, set()).add(example["error"])
    assert set(errors) == {"400", "401", "403", "404", "413", "500", "503", "504"}
    texts = [text for found in errors.values() for text in found]
    assert len(texts) == len(set(texts))


def _validator(page: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema | {"components": page["components"]})


async def test_examples_and_answers_fit_the_page(page: dict[str, Any], client: httpx.AsyncClient) -> None:
    checked = 0
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                _validator(page, content["schema"]).validate(example["value"])
                address = path.replace("{name}", "flight-delay").replace("{version}", "1.0.0")
                if "sentiment" in address:
                    continue
                response = await client.request(method, address, json=example["value"])
                answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
                _validator(page, answer).validate(json.loads(response.text))
                checked += 1
    assert checked >= 6


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in part.values()))
    return set().union(*map(_references, part)) if isinstance(part, list) else set()


async def test_every_reference_of_the_page_leads_somewhere(page: dict[str, Any]) -> None:
    there = {f"#/components/schemas/{name}" for name in page["components"]["schemas"]}
    assert {name for name in _references(page) if name.startswith("#/components")} <= there


async def test_the_hot_route_is_described_by_the_models_schema(page: dict[str, Any], models: Models) -> None:
    package: ModelPackage = models.package("flight-delay")
    body = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    described = page["components"]["schemas"][body["$ref"].rsplit("/", 1)[1]]
    expected = {name: part for name, part in package.features_schema.items() if name != "$schema"}
    assert described == expected


async def test_the_log_names_the_route_of_every_known_path(client: httpx.AsyncClient) -> None:
    with capture_logs() as lines:
        for path in ("/docs", "/docs/start.js", "/openapi.json", "/models/flight-delay"):
            await client.get(path)
        # Refused before it reaches the routes.
        refused = await client.get("/models/flight-delay", headers={"Origin": "https://elsewhere"})
    assert refused.status_code == 403
    routes = ["/docs", "/docs/{file}", "/openapi.json", "/models/{name}", "/models/{name}"]
    assert [line["route"] for line in lines if line["event"] == "request_finished"] == routes
