"""Raw fields to features, one or many, and which of them can't be."""

import json
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from foretell.kit.json_rows import LARGE_BYTES

FLIGHT = {"carrier": "AA", "departure_time": "08:45", "distance_miles": 550.0, "weather_code": 1}
FEATURES = {"carrier": "AA", "dep_hour": 8, "distance": 550.0, "weather_delay": 0}
MODEL = "/models/flight-delay/preprocess"


async def test_a_flight_becomes_features(client: httpx.AsyncClient) -> None:
    for path in ("/preprocess", MODEL):
        response = await client.post(path, json=FLIGHT)
        assert (response.status_code, response.json()) == (200, FEATURES)


@pytest.mark.parametrize(("code", "delay"), [(1, 0), (2, 5), (3, 15), (4, 30)])
async def test_the_weather_becomes_minutes(client: httpx.AsyncClient, code: int, delay: int) -> None:
    response = await client.post("/preprocess", json=FLIGHT | {"weather_code": code})
    assert response.json()["weather_delay"] == delay


@pytest.mark.parametrize("code", [0, 5, -1, 99])
async def test_an_unknown_weather_counts_as_clear_with_a_warning(client: httpx.AsyncClient, code: int) -> None:
    with capture_logs() as lines:
        response = await client.post("/preprocess", json=FLIGHT | {"weather_code": code})
    assert (response.status_code, response.json()["weather_delay"]) == (200, 0)
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings] == ["weather_code_replaced"]


@pytest.mark.parametrize("time", ["25:00", "12:60", "9:30", "0930", "", "noon", "08:45 ", "08:45\n", "٠٨:٤٥"])
async def test_a_time_that_is_none_is_a_400(client: httpx.AsyncClient, time: str) -> None:
    response = await client.post("/preprocess", json=FLIGHT | {"departure_time": time})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (400, "invalid_time")
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in problem["errors"]] == ["#/departure_time"]
    response = await client.post("/batch_preprocess", json=[FLIGHT, FLIGHT | {"departure_time": time}])
    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/1/departure_time"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("carrier", "A"),
        ("carrier", "ZZ"),
        ("carrier", None),
        ("departure_time", 845),
        ("departure_time", None),
        ("distance_miles", 0),
        ("distance_miles", 5001),
        ("distance_miles", "far"),
        ("weather_code", "rain"),
        ("weather_code", 1.5),
        ("gate", "A1"),
    ],
)
async def test_whatever_else_does_not_fit_is_a_422(client: httpx.AsyncClient, field: str, value: Any) -> None:
    for path, body, place in (
        ("/preprocess", FLIGHT | {field: value}, f"#/{field}"),
        (MODEL, FLIGHT | {field: value}, f"#/{field}"),
        ("/batch_preprocess", [FLIGHT, FLIGHT | {field: value}], f"#/1/{field}"),
    ):
        response = await client.post(path, json=body)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
        assert {error["pointer"] for error in response.json()["errors"]} == {place}


async def test_a_bad_time_beside_another_fault_is_a_422(client: httpx.AsyncClient) -> None:
    bad = FLIGHT | {"departure_time": "25:00", "distance_miles": 0}
    response = await client.post("/batch_preprocess", json=[FLIGHT, bad])
    assert response.status_code == 422
    assert {error["pointer"] for error in response.json()["errors"]} == {"#/1/departure_time", "#/1/distance_miles"}


async def test_a_bad_time_far_behind_is_named(client: httpx.AsyncClient) -> None:
    # More than what is parsed at once (kit/json_rows.py).
    rows = [FLIGHT] * 900 + [FLIGHT | {"departure_time": "25:00"}] + [FLIGHT] * 300
    assert len(json.dumps(rows)) > LARGE_BYTES
    response = await client.post("/batch_preprocess", json=rows)
    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/900/departure_time"]
    response = await client.post("/batch_preprocess", json=[FLIGHT] * 1200)
    assert len(response.json()) == 1200
    response = await client.post("/batch_preprocess", content=json.dumps(rows).encode()[:-1])
    assert (response.status_code, response.json()["code"]) == (422, "malformed_body")


@pytest.mark.parametrize("path", ["/batch_preprocess", MODEL])
async def test_a_list_is_answered_by_a_list_in_its_order(client: httpx.AsyncClient, path: str) -> None:
    rows = [FLIGHT | {"departure_time": f"{number % 24:02}:00"} for number in range(1500)]
    response = await client.post(path, json=rows)
    assert [features["dep_hour"] for features in response.json()] == [number % 24 for number in range(1500)]
    assert (await client.post(path, json=[])).json() == []


async def test_every_bad_row_is_named(client: httpx.AsyncClient) -> None:
    rows = [FLIGHT, {}, FLIGHT, FLIGHT | {"carrier": "ZZ"}]
    errors = (await client.post("/batch_preprocess", json=rows)).json()["errors"]
    assert {error["pointer"].split("/")[1] for error in errors[:-1]} == {"1"}
    assert errors[-1]["pointer"] == "#/3/carrier"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/preprocess", b""),
        ("/preprocess", b"{"),
        ("/preprocess", b"[]"),
        ("/preprocess", b"null"),
        ("/preprocess", b"[" * 100_000),
        ("/preprocess", json.dumps(FLIGHT).replace("550.0", "NaN").encode()),
        ("/batch_preprocess", b"{}"),
        ("/batch_preprocess", b"[1]"),
        ("/batch_preprocess", json.dumps([FLIGHT] * 2001).encode()),
    ],
)
async def test_what_is_no_flight_at_all_is_a_422(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    response = await client.post(path, content=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_body_that_is_too_large_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/preprocess", content=b" " * (1024 * 1024 + 1))).status_code == 413


async def test_a_model_or_version_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for path in ("/models/nobody/preprocess", f"{MODEL}?version=7.0.0"):
        response = await client.post(path, json=FLIGHT)
        assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
    assert (await client.post(f"{MODEL}?version=1.0.0", json=FLIGHT)).json() == FEATURES


async def test_the_log_names_the_route_of_every_known_path(client: httpx.AsyncClient) -> None:
    with capture_logs() as lines:
        for path in ("/docs", "/docs/start.js", "/openapi.json", "/models/flight-delay"):
            await client.get(path)
        # Refused before it reaches the routes.
        refused = await client.get("/models/flight-delay", headers={"Origin": "https://elsewhere"})
    assert refused.status_code == 403
    routes = ["/docs", "/docs/{file}", "/openapi.json", "/models/{name}", "/models/{name}"]
    assert [line["route"] for line in lines if line["event"] == "request_finished"] == routes
