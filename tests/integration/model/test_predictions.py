"""`/predict` and `/models/{name}/predict`: what they answer, and that they refuse what the schema refuses."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import foretell
from foretell.inference.registry import Registry, shipped_folder
from foretell.inference.schema import Validator
from foretell.kit.json_rows import LARGE_BYTES
from foretell.services.model.models import Models

FLIGHT = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
RAW = {"carrier": "AA", "departure_time": "09:30", "distance_miles": 550.0, "weather_code": 1}
PACKAGE = Registry.discover(shipped_folder()).get("flight-delay")

BAD_VALUES: list[tuple[str, Any]] = [
    ("carrier", "A"),
    ("carrier", "AAA"),
    ("carrier", ""),
    ("carrier", "aa"),
    ("carrier", "ZZ"),
    ("carrier", "A\0"),
    ("carrier", 12),
    ("carrier", None),
    ("carrier", ["AA"]),
    ("dep_hour", -1),
    ("dep_hour", 24),
    ("dep_hour", 9.5),
    ("dep_hour", "9"),
    ("dep_hour", True),
    ("dep_hour", None),
    ("dep_hour", 10**400),
    ("distance", 0),
    ("distance", -1),
    ("distance", 5000.5),
    ("distance", "550"),
    ("distance", None),
    ("distance", False),
    ("distance", {}),
    ("weather_delay", -0.5),
    ("weather_delay", "0"),
    ("weather_delay", None),
    ("weather_delay", 10**400),
]
GOOD_VALUES: list[tuple[str, Any]] = [
    ("carrier", "F9"),
    ("dep_hour", 0),
    ("dep_hour", 23),
    ("dep_hour", 9.0),
    ("distance", 5000),
    ("distance", 0.1),
    ("weather_delay", 0),
    ("weather_delay", 1e300),
]


async def _predict(client: httpx.AsyncClient, body: Any, path: str = "/predict") -> httpx.Response:
    return await client.post(path, content=body if isinstance(body, bytes) else json.dumps(body))


async def test_a_flight_is_predicted(client: httpx.AsyncClient) -> None:
    response = await _predict(client, FLIGHT)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"prediction", "probability", "timestamp", "service_version"}
    assert (answer["prediction"], answer["probability"]) == (0, 0.1052)
    assert answer["service_version"] == foretell.__version__
    moment = datetime.fromisoformat(answer["timestamp"])
    assert moment.tzinfo == UTC


async def test_the_examples_of_the_package_come_out(client: httpx.AsyncClient) -> None:
    for example in PACKAGE.examples:
        stage = "input" if example.input is not None else "features"
        response = await _predict(client, {stage: getattr(example, stage)}, "/models/flight-delay/predict")
        answer = response.json()
        assert {name: answer[name] for name in example.output} == example.output


@pytest.mark.parametrize(("field", "value"), BAD_VALUES)
async def test_what_the_schema_refuses_the_routes_refuse(client: httpx.AsyncClient, field: str, value: Any) -> None:
    body = FLIGHT | {field: value}
    assert not Validator(PACKAGE.features_schema).is_valid(json.loads(json.dumps(body)))
    for path, sent, place in (
        ("/predict", body, f"#/{field}"),
        ("/models/flight-delay/predict", body, f"#/{field}"),
        ("/models/flight-delay/predict", {"features": body}, f"#/features/{field}"),
        ("/models/flight-delay/predict", [FLIGHT, body], f"#/1/{field}"),
    ):
        response = await _predict(client, sent, path)
        problem = response.json()
        assert (response.status_code, problem["code"]) == (422, "invalid_request")
        assert problem["errors"][0]["pointer"] == place


@pytest.mark.parametrize(("field", "value"), GOOD_VALUES)
async def test_what_the_schema_takes_the_routes_take(client: httpx.AsyncClient, field: str, value: Any) -> None:
    body = FLIGHT | {field: value}
    assert Validator(PACKAGE.features_schema).is_valid(json.loads(json.dumps(body)))
    for path in ("/predict", "/models/flight-delay/predict"):
        assert (await _predict(client, body, path)).status_code == 200


@pytest.mark.parametrize("field", FLIGHT)
async def test_a_missing_or_a_foreign_field_is_refused(client: httpx.AsyncClient, field: str) -> None:
    missing = {name: value for name, value in FLIGHT.items() if name != field}
    for body in (missing, FLIGHT | {field + "2": 1}):
        assert not Validator(PACKAGE.features_schema).is_valid(body)
        assert (await _predict(client, body)).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"AA"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        json.dumps(FLIGHT).replace("550.0", "NaN").encode(),
        json.dumps(FLIGHT).replace("550.0", "Infinity").encode(),
        json.dumps(FLIGHT).replace("550.0", "1e999").encode(),
        json.dumps(FLIGHT).replace("AA", "\\ud800").encode(),
    ],
)
async def test_what_is_no_flight_at_all_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/predict", "/models/flight-delay/predict"):
        response = await _predict(client, body, path)
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"


async def test_an_unknown_carrier_is_refused_and_not_guessed(client: httpx.AsyncClient) -> None:
    response = await _predict(client, FLIGHT | {"carrier": "QQ"})
    assert response.status_code == 422
    assert re.match("carrier must be one of 9E, AA", response.json()["errors"][0]["detail"])


async def test_raw_input_is_preprocessed(client: httpx.AsyncClient) -> None:
    by_input = await _predict(client, {"input": RAW}, "/models/flight-delay/predict")
    by_features = await _predict(client, {"features": FLIGHT}, "/models/flight-delay/predict")
    assert by_input.json()["probability"] == by_features.json()["probability"] == 0.1052
    assert by_input.json()["model_version"] == "1.0.0"


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"features": rows}])
async def test_a_list_is_answered_by_a_list_in_its_order(client: httpx.AsyncClient, wrap: Any) -> None:
    # More than what is parsed at once (kit/json_rows.py).
    rows = [FLIGHT | {"dep_hour": number % 24, "distance": 100.0 + number} for number in range(1600)]
    assert len(json.dumps(wrap(rows))) > LARGE_BYTES
    response = await _predict(client, wrap(rows), "/models/flight-delay/predict")
    outputs = response.json()["outputs"]
    assert len(outputs) == 1600
    for number in (0, 1, 255, 256, 1599):
        single = (await _predict(client, rows[number])).json()
        assert outputs[number]["probability"] == single["probability"]


async def test_each_bad_row_of_a_list_is_named(client: httpx.AsyncClient) -> None:
    rows = [FLIGHT, FLIGHT | {"dep_hour": 99}, FLIGHT, FLIGHT | {"carrier": "ZZ"}]
    response = await _predict(client, {"features": rows}, "/models/flight-delay/predict")
    pointers = [error["pointer"] for error in response.json()["errors"]]
    assert pointers == ["#/features/1/dep_hour", "#/features/3/carrier"]
    response = await _predict(
        client, {"input": [RAW, RAW | {"departure_time": "25:00"}]}, "/models/flight-delay/predict"
    )
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/input/1/departure_time"]


@pytest.mark.parametrize("key", ["features", "input"])
async def test_a_bad_row_far_behind_is_named(client: httpx.AsyncClient, key: str) -> None:
    row, field = (FLIGHT, "dep_hour") if key == "features" else (RAW, "departure_time")
    rows = [row] * 900 + [row | {field: 99}] + [row] * 300
    assert len(json.dumps(rows)) > LARGE_BYTES
    response = await _predict(client, {key: rows}, "/models/flight-delay/predict")
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [f"#/{key}/900/{field}"]


async def test_a_large_body_that_is_broken_inside_is_refused(client: httpx.AsyncClient) -> None:
    content = json.dumps([FLIGHT] * 1200).encode()
    for broken in (content[:-1], content[:-3] + b"}}]", content.replace(b'"AA"', b'"\xff"')):
        response = await client.post("/models/flight-delay/predict", content=broken)
        assert (response.status_code, response.json()["code"]) == (422, "malformed_body")


async def test_a_large_value_that_is_no_list_is_one_row(client: httpx.AsyncClient) -> None:
    for value in ({"features": {"carrier": "A" * 70_000}}, {"carrier": "A" * 70_000}):
        response = await _predict(client, value, "/models/flight-delay/predict")
        assert response.status_code == 422
        assert all("/0" not in error["pointer"] for error in response.json()["errors"])


async def test_a_list_of_bad_rows_gives_no_endless_answer(client: httpx.AsyncClient) -> None:
    response = await _predict(client, [{}] * 2000, "/models/flight-delay/predict")
    assert response.status_code == 422
    assert len(response.json()["errors"]) <= 54


@pytest.mark.parametrize("rows", [0, 2001])
async def test_a_list_has_bounds(client: httpx.AsyncClient, rows: int) -> None:
    response = await _predict(client, {"features": [FLIGHT] * rows}, "/models/flight-delay/predict")
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "#/features")


async def test_a_version_may_be_named(client: httpx.AsyncClient) -> None:
    path = "/models/flight-delay/predict?version="
    assert (await _predict(client, FLIGHT, f"{path}1.0.0")).json()["probability"] == 0.1052
    response = await _predict(client, FLIGHT, f"{path}9.9.9")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


async def test_a_model_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    response = await _predict(client, FLIGHT, "/models/nobody/predict")
    assert (response.status_code, response.json()["model"]) == (404, "nobody")


async def test_a_model_that_is_not_ready_is_a_503_with_a_time_to_wait(
    client: httpx.AsyncClient, models: Models
) -> None:
    await models.unload("flight-delay")
    response = await _predict(client, FLIGHT)
    assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
    assert int(response.headers["retry-after"]) >= 1


async def test_a_body_that_is_too_large_is_refused(client: httpx.AsyncClient) -> None:
    response = await _predict(client, b" " * (1024 * 1024 + 1))
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


async def test_only_post_predicts(client: httpx.AsyncClient) -> None:
    response = await client.get("/predict")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
