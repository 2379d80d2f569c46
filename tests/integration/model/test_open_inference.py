"""The Open Inference Protocol as it goes over the wire; `test_tritonclient.py` has the client's view."""

import gzip
import json
import struct
import zlib
from typing import Any

import httpx
import pytest

from foretell.services.model.app import build
from foretell.services.model.models import Models
from foretell.services.model.settings import ModelSettings

INFER = "/v2/models/flight-delay/infer"


def _inputs(rows: int = 1, **changes: Any) -> dict[str, Any]:
    inputs = {
        "carrier": {"datatype": "BYTES", "data": ["AA"] * rows},
        "dep_hour": {"datatype": "INT64", "data": [9] * rows},
        "distance": {"datatype": "FP64", "data": [550.0] * rows},
        "weather_delay": {"datatype": "FP32", "data": [0] * rows},
    }
    inputs.update(changes)
    return {"inputs": [{"name": name, "shape": [rows], **tensor} for name, tensor in inputs.items() if tensor]}


async def test_json_tensors_come_back_as_json(client: httpx.AsyncClient) -> None:
    response = await client.post(INFER, json=_inputs(2) | {"id": "seven"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in response.headers
    assert response.json() == {
        "model_name": "flight-delay",
        "model_version": "1.0.0",
        "id": "seven",
        "outputs": [
            {"name": "prediction", "datatype": "INT64", "shape": [2], "data": [0, 0]},
            {"name": "probability", "datatype": "FP64", "shape": [2], "data": [0.1052, 0.1052]},
        ],
    }


async def test_more_than_can_be_meant_is_refused_before_any_work(client: httpx.AsyncClient) -> None:
    huge = 10**17

    async def refused(words: str, **changes: Any) -> None:
        response = await client.post(INFER, json=_inputs() | changes)
        assert response.status_code == 400, response.text
        assert words in response.json()["error"]

    def shaped(*shape: int) -> list[dict[str, Any]]:
        return [given | {"shape": list(shape)} for given in _inputs()["inputs"]]

    await refused("length <= 8", inputs=shaped(*[1] * 5_000))
    await refused("2147483647", inputs=shaped(huge))
    await refused("2147483647", inputs=shaped(1, huge))
    await refused("its shape is", inputs=shaped(1, 0))
    await refused("its shape is", inputs=shaped(1, 2**31 - 1))
    await refused("is asked for twice", outputs=[{"name": "probability"}] * 3000)
    await refused("length <= 10000", outputs=[{"name": "probability"}] * 10_001)
    digits = json.dumps(_inputs()).replace("[1]", f"[{'9' * 4000}]").encode()
    response = await client.post(INFER, content=digits)
    assert response.status_code == 400, response.text


async def test_an_answer_has_a_bound(models: Models) -> None:
    settings = ModelSettings(max_answer_bytes=1024)
    transport = httpx.ASGITransport(build(models, settings, "model-1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        assert (await client.post(INFER, json=_inputs(60))).status_code == 200
        for parameters in ({}, {"binary_data_output": True}):
            response = await client.post(INFER, json=_inputs(100) | {"parameters": parameters})
            assert response.status_code == 400
            assert "Ask for fewer than 100 rows" in response.json()["error"]


async def test_an_empty_version_is_none(client: httpx.AsyncClient) -> None:
    flight = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
    for path in ("/models/flight-delay/predict?version=", "/models/flight-delay/predict"):
        response = await client.post(path, json=flight)
        assert (response.status_code, response.json()["model_version"]) == (200, "1.0.0")
    assert (await client.get("/models/flight-delay?version=")).status_code == 200


async def test_a_version_may_be_named(client: httpx.AsyncClient) -> None:
    path = "/v2/models/flight-delay/versions/{}/infer"
    assert (await client.post(path.format("1.0.0"), json=_inputs())).status_code == 200
    response = await client.post(path.format("2.0.0"), json=_inputs())
    assert (response.status_code, response.json()) == (
        404,
        {"error": "There is no version 2.0.0 of the model flight-delay."},
    )


def _binary_body(header: dict[str, Any], content: bytes) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(header).encode()
    return head + content, {"Inference-Header-Content-Length": str(len(head))}


async def test_some_tensors_may_be_binary_and_others_not(client: httpx.AsyncClient) -> None:
    carrier = struct.pack("<I2s", 2, b"AA")
    asked = _inputs(
        carrier={"datatype": "BYTES", "parameters": {"binary_data_size": len(carrier)}},
        distance={"datatype": "FP64", "parameters": {"binary_data_size": 8}},
    )
    asked["outputs"] = [{"name": "probability", "parameters": {"binary_data": True}}, {"name": "prediction"}]
    body, headers = _binary_body(asked, carrier + struct.pack("<d", 550.0))
    response = await client.post(INFER, content=body, headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    answer = json.loads(response.content[:length])
    assert answer["outputs"] == [
        {"name": "probability", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}},
        {"name": "prediction", "datatype": "INT64", "shape": [1], "data": [0]},
    ]
    assert struct.unpack("<d", response.content[length:]) == (0.1052,)


BAD: list[tuple[Any, str]] = [
    (b"", "must be JSON"),
    (b'{"parameters":{"a":' + b"[" * 100_000, "must be JSON"),
    ({}, "inputs"),
    ({"inputs": []}, "inputs"),
    ({"inputs": 5}, "inputs"),
    (_inputs(carrier=None), "carrier is missing"),
    (_inputs(gate={"datatype": "BYTES", "data": ["A1"]}), "'gate' is too much"),
    ({"inputs": _inputs()["inputs"] * 2}, "each once"),
    (_inputs(carrier={"datatype": "BYTES", "data": ["ZZ"]}), "Row 0: carrier must be one of"),
    (_inputs(2, dep_hour={"datatype": "INT64", "data": [9, 99]}), "Row 1: dep_hour must be at most 23"),
    (_inputs(distance={"datatype": "FP64", "data": ["550"]}), "input distance"),
    (_inputs(distance={"datatype": "FP99", "data": [550]}), "input distance"),
    (_inputs(distance={"datatype": "FP64", "data": [1, 2]}), "input distance"),
    (_inputs(distance={"datatype": "FP64", "shape": [2], "data": [1, 2]}), "number of rows"),
    (_inputs(distance={"datatype": "FP64", "shape": [-1], "data": [1]}), "shape"),
    (_inputs(2001), "more than 2000 rows"),
    (_inputs() | {"outputs": [{"name": "delay"}]}, "'delay' is none of them"),
    (_inputs() | {"parameters": {"sequence_id": 3}}, "sequence_id is not supported"),
    (_inputs() | {"outputs": [{"name": "prediction", "parameters": {"classification": 2}}]}, "classification"),
    (_inputs(distance={"datatype": "FP64", "parameters": {"binary_data_size": 8}}), "0 bytes follow the JSON"),
    (_inputs(distance={"datatype": "FP64", "parameters": {"binary_data_size": "8"}}), "binary_data_size"),
    (_inputs(distance={"datatype": "FP64", "parameters": {"binary_data_size": -8}}), "binary_data_size"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
async def test_what_is_no_inference_is_refused_in_words(client: httpx.AsyncClient, body: Any, message: str) -> None:
    response = await client.post(INFER, content=body if isinstance(body, bytes) else json.dumps(body))
    assert response.status_code == 400
    assert set(response.json()) == {"error"}
    assert message in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999", "9" * 30, ""])
async def test_a_header_length_that_is_none_is_refused(client: httpx.AsyncClient, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    response = await client.post(INFER, json=_inputs(), headers=headers)
    assert response.status_code == 400
    assert "Inference-Header-Content-Length" in response.json()["error"]


async def test_bytes_that_are_not_finite_numbers_are_refused(client: httpx.AsyncClient) -> None:
    asked = _inputs(distance={"datatype": "FP64", "parameters": {"binary_data_size": 8}})
    body, headers = _binary_body(asked, struct.pack("<d", float("inf")))
    response = await client.post(INFER, content=body, headers=headers)
    assert (response.status_code, response.json()) == (400, {"error": "Row 0: distance must be a finite number."})
    body, headers = _binary_body(asked, struct.pack("<d", float("nan")))
    response = await client.post(INFER, content=body, headers=headers)
    assert response.status_code == 400
    assert "in row 0 it is missing" in response.json()["error"]


async def test_null_stands_for_whatever_may_be_left_out(client: httpx.AsyncClient) -> None:
    """As MLServer's own types write a request."""
    asked = _inputs()
    for tensor in asked["inputs"]:
        tensor["parameters"] = None
    plain = await client.post(INFER, json=_inputs())
    answer = await client.post(INFER, json={**asked, "id": None, "parameters": None, "outputs": None})
    assert answer.status_code == 200, answer.text
    assert answer.json() == plain.json()
    outputs = [{"name": "probability", "parameters": None}]
    assert (await client.post(INFER, json={**asked, "outputs": outputs})).status_code == 200
    assert (await client.post("/v2/repository/index", json={"ready": None})).status_code in (200, 401)


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity"])
async def test_numbers_that_json_has_not_are_named(client: httpx.AsyncClient, written: str) -> None:
    body = json.dumps(_inputs()).replace("550.0", written)
    assert written in body
    response = await client.post(INFER, content=body)
    assert response.status_code == 400
    assert "JSON has no NaN" in response.json()["error"]


async def test_a_compressed_body_is_unpacked(client: httpx.AsyncClient) -> None:
    content = json.dumps(_inputs()).encode()
    plain = await client.post(INFER, content=content)
    for encoding, packed in {"gzip": gzip.compress(content), "deflate": zlib.compress(content)}.items():
        response = await client.post(INFER, content=packed, headers={"Content-Encoding": encoding})
        assert (response.status_code, response.json()) == (200, plain.json())
    broken = await client.post(INFER, json=_inputs(), headers={"Content-Encoding": "gzip"})
    assert (broken.status_code, list(broken.json())) == (400, ["error"])
    unknown = await client.post(INFER, json=_inputs(), headers={"Content-Encoding": "br"})
    assert (unknown.status_code, list(unknown.json())) == (415, ["error"])
    assert unknown.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("POST", "/v2/models/nobody/infer", 404),
        ("GET", "/v2/nowhere", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2", 405),
    ],
)
async def test_errors_are_the_protocols(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert isinstance(response.json()["error"], str)


async def test_a_model_that_is_not_ready_is_a_400(client: httpx.AsyncClient, models: Models) -> None:
    await models.unload("flight-delay")
    for method, path in (("GET", "/v2/models/flight-delay/ready"), ("POST", INFER)):
        response = await client.request(method, path, json=_inputs())
        assert response.status_code == 400
        assert "It was unloaded." in response.json()["error"]


async def test_nothing_is_compressed(client: httpx.AsyncClient) -> None:
    response = await client.post(INFER, json=_inputs(1000), headers={"Accept-Encoding": "gzip, deflate"})
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("path", ["index", "models/flight-delay/load", "models/flight-delay/unload"])
@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic a token that is long enough", "ü"])
async def test_the_repository_needs_the_admin_token(
    client: httpx.AsyncClient, models: Models, path: str, authorization: str
) -> None:
    headers = {"Authorization": authorization.encode()} if authorization else {}
    response = await client.post(f"/v2/repository/{path}", headers=headers)
    assert response.status_code == 401
    assert "Bearer" in response.headers["www-authenticate"]
    assert models.status("flight-delay").state == "READY"


async def test_models_are_unloaded_and_loaded(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    async def index(**asked: Any) -> dict[str, str]:
        response = await client.post("/v2/repository/index", headers=admin, json=asked)
        return {model["name"]: model["state"] for model in response.json()}

    assert (await index(ready=True)) == {"flight-delay": "READY"}
    response = await client.post("/v2/repository/models/flight-delay/unload", headers=admin, json={})
    assert response.status_code == 200
    assert (await index())["flight-delay"] == "UNAVAILABLE"
    assert (await index(ready=True)) == {}
    assert (await client.post("/v2/repository/models/flight-delay/load", headers=admin)).status_code == 200
    assert (await index(ready=True)) == {"flight-delay": "READY"}
    for change in ("load", "unload"):
        assert (await client.post(f"/v2/repository/models/nobody/{change}", headers=admin)).status_code == 404


async def test_a_model_cannot_be_sent_along(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    asked = {"parameters": {"file:1/model.onnx": "aGk="}}
    response = await client.post("/v2/repository/models/flight-delay/load", headers=admin, json=asked)
    assert (response.status_code, "package" in response.json()["error"]) == (400, True)
