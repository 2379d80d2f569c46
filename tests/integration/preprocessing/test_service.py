"""What is said about the service, packages of others, and its way up and down."""

from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
from tests.model_packages import live_registry, write_package
from tests.service_process import running_service

from foretell.inference.registry import Registry
from foretell.services.preprocessing.app import build
from foretell.services.preprocessing.preprocessors import Preprocessors
from foretell.services.preprocessing.settings import PreprocessingSettings

FLIGHT = {"carrier": "AA", "departure_time": "08:45", "distance_miles": 550.0, "weather_code": 1}
HALVE = """
from foretell.inference.package import InvalidField

def preprocess(row):
    if row["twice"] == 13:
        raise InvalidField("twice", "must not be 13")
    return {"x": row["twice"] / 2}
"""


def _client(folder: Path) -> httpx.AsyncClient:
    app = build(Preprocessors(Registry.discover(folder)), PreprocessingSettings(), "preprocessing-1")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://preprocessing")


async def test_any_model_is_preprocessed_by_its_own_function(tmp_path: Path) -> None:
    write_package(tmp_path, preprocessing=HALVE)
    async with _client(tmp_path) as client:
        assert (await client.post("/models/doubler/preprocess", json={"twice": 8})).json() == {"x": 4}
        response = await client.post("/models/doubler/preprocess", json=[{"twice": 1}, {"twice": 13}])
        assert (response.status_code, response.json()["errors"]) == (
            422,
            [{"detail": "twice must not be 13.", "pointer": "#/1/twice"}],
        )
        # There is no flight-delay model here, and its routes say so.
        assert (await client.post("/preprocess", json=FLIGHT)).status_code == 404


async def test_without_preprocessing_the_input_is_the_features(tmp_path: Path) -> None:
    write_package(tmp_path)
    async with _client(tmp_path) as client:
        assert (await client.post("/models/doubler/preprocess", json={"x": 4})).json() == {"x": 4}
        assert (await client.post("/models/doubler/preprocess", json={"x": "4"})).status_code == 422


async def test_what_cannot_be_used_is_listed_and_the_others_work(tmp_path: Path) -> None:
    write_package(tmp_path, preprocessing=HALVE)
    write_package(tmp_path, name="bent", preprocessing="import nothing_of_that_name")
    (write_package(tmp_path, name="broken") / "model.toml").write_text("name = ")
    async with _client(tmp_path) as client:
        listed = (await client.get("/models")).json()
        assert {item["name"]: item["ready"] for item in listed["items"]} == {"bent": False, "doubler": True}
        assert "broken" in listed["unavailable"][0]["name"]
        response = await client.post("/models/bent/preprocess", json={})
        assert (response.status_code, response.json()["code"]) == (503, "preprocessing_unavailable")
        assert (await client.post("/models/doubler/preprocess", json={"twice": 8})).status_code == 200


async def test_health_names_the_service(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/health")).json()
    assert (answer["status"], answer["service"]) == ("healthy", "preprocessing_service")
    for path in ("/health/live", "/health/ready", "/metrics", "/docs"):
        assert (await client.get(path)).status_code == 200


async def test_examples_and_answers_fit_the_page(client: httpx.AsyncClient) -> None:
    page: dict[str, Any] = (await client.get("/openapi.json")).json()
    assert set(page["paths"]) >= {"/preprocess", "/batch_preprocess", "/models/{name}/preprocess", "/models"}
    components = {"components": page["components"]}
    checked = 0
    for path, operations in page["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                jsonschema_rs.Draft202012Validator(content["schema"] | components).validate(example["value"])
                response = await client.post(path, json=example["value"])
                schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                jsonschema_rs.Draft202012Validator(schema | components).validate(response.json())
                checked += 1
    assert checked >= 3


async def test_it_comes_up_loads_no_model_and_goes_down(tmp_path: Path) -> None:
    with running_service("preprocessing", tmp_path) as service:
        assert httpx.post(f"{service.url}/preprocess", json=FLIGHT).json()["dep_hour"] == 8
        maps = Path(f"/proc/{service.process.pid}/maps")
        assert not maps.exists() or "onnxruntime" not in maps.read_text()
        assert service.stop() == 0
        assert service.lines("request_finished")[0]["route"] in ("/preprocess", "/health/ready")


async def test_it_follows_the_folder_of_models(tmp_path: Path) -> None:
    write_package(tmp_path / "models", preprocessing=HALVE)
    write_package(tmp_path / "models", name="other", preprocessing=HALVE)
    registry = live_registry(tmp_path)
    preprocessors = Preprocessors(registry)
    other = preprocessors.get("other")
    changed = HALVE.replace("/ 2", "* 3")
    write_package(tmp_path / "models", preprocessing=changed)
    write_package(tmp_path / "models", name="new", preprocessing=HALVE)
    registry.refresh()
    preprocessors.refresh()
    assert await preprocessors.get("doubler").run([{"twice": 8}]) == [{"x": 24}]
    assert await preprocessors.get("new").run([{"twice": 8}]) == [{"x": 4}]
    assert preprocessors.get("other") is other
