"""Every refusal of the hot route: as clear as those of the other routes, and nothing is charged."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.integration.app_path.running import FEATURES, INPUT, ORDER, PATH, Running
from tests.predictions import balance_of

from foretell.domain.credits.ledger import Balance

# What is refused here never comes as far as the database.
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


def _order(**changes: Any) -> bytes:
    return json.dumps({"model": "flight-delay", "input": INPUT | changes}).encode()


def _input(text: str) -> bytes:
    return b'{"model":"flight-delay","input":' + text.encode() + b"}"


_MALFORMED = {
    "nothing": b"",
    "text": b"flight-delay",
    "half": b'{"model": "flight-delay", "input": {"carrier"',
    "more": json.dumps(ORDER).encode() + b"}",
    "a comma too many": b'{"model":"flight-delay","input":{},}',
    "NaN": _input(json.dumps(INPUT).replace("550", "NaN")),
    "Infinity": _input(json.dumps(INPUT).replace("550", "-Infinity")),
    "out of range": _input(json.dumps(INPUT).replace("550", "1e999")),
    "raw NUL": _order(carrier="A").replace(b'"A"', b'"A\x00"'),
    "raw line feed": _order(carrier="A").replace(b'"A"', b'"A\n"'),
    "bytes": _order(carrier="A").replace(b'"A"', b'"A\xff"'),
    "half a pair": _order(carrier="A").replace(b'"A"', b'"\\ud800"'),
    "UTF-16": json.dumps(ORDER).encode("utf-16"),
    "deep list": _input("[" * 100_000),
    "deep and closed": _input("[" * 100_000 + "]" * 100_000),
    "deep object": _input('{"a":' * 100_000),
}
_INVALID = {
    "a list": (b"[]", "#"),
    "null": (b"null", "#"),
    "deep lists": (b"[" * 100_000, "#"),
    "an empty model": (json.dumps({"model": "", "input": INPUT}).encode(), "#/model"),
    "no model": (json.dumps({"input": INPUT}).encode(), "#/model"),
    "a model of another kind": (json.dumps({"model": 1, "input": INPUT}).encode(), "#/model"),
    "a version that is empty": (json.dumps({**ORDER, "version": ""}).encode(), "#/version"),
    "a field that nobody knows": (json.dumps({**ORDER, "price": 0}).encode(), "#/price"),
    "no address to notify": (json.dumps({**ORDER, "notify": {}}).encode(), "#/notify/webhook"),
    "a notify of another kind": (json.dumps({**ORDER, "notify": 5}).encode(), "#/notify"),
    "a field of notify that nobody knows": (
        json.dumps({**ORDER, "notify": {"webhook": "https://example.com", "a/b": 1}}).encode(),
        "#/notify/a~1b",
    ),
    "both": (json.dumps({**ORDER, "features": FEATURES}).encode(), "#"),
    "neither": (json.dumps({"model": "flight-delay"}).encode(), "#"),
    "no carrier": (_input('{"departure_time":"09:30","distance_miles":550,"weather_code":1}'), "#/input"),
    "a carrier of one letter": (_order(carrier="A"), "#/input/carrier"),
    "a carrier of another kind": (_order(carrier=["AA"]), "#/input/carrier"),
    "a negative distance": (_order(distance_miles=-1), "#/input/distance_miles"),
    "a distance in words": (_order(distance_miles="550"), "#/input/distance_miles"),
    "features out of range": (
        json.dumps({"model": "flight-delay", "features": FEATURES | {"dep_hour": 24}}).encode(),
        "#/features/dep_hour",
    ),
    "NUL": (_order(carrier="A\0"), "#/input/carrier"),
    "an input of another kind": (_input('"AA"'), "#/input"),
    "an input of null": (_input("null"), "#/input"),
}


@pytest.fixture
async def headers(app: Running) -> AsyncIterator[dict[str, str]]:
    """Somebody who could pay, and who has paid nothing at the end."""
    ada, headers = await app.open_account()
    yield headers
    assert await balance_of(app.database, ada) == Balance(100, 0)


def _check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["type"] == f"urn:problem-type:foretell:{code}"
    assert problem["instance"] == PATH
    assert problem["title"]
    assert problem["detail"]
    assert response.headers["x-request-id"]
    return problem


async def test_a_body_that_is_no_json_is_refused(app: Running, headers: dict[str, str]) -> None:
    for body in _MALFORMED.values():
        _check_problem(await app.client.post(PATH, content=body, headers=headers), 422, "malformed_body")


async def test_a_body_that_does_not_fit_is_refused_naming_the_field(app: Running, headers: dict[str, str]) -> None:
    for name, (body, pointer) in _INVALID.items():
        response = await app.client.post(PATH, content=body, headers=headers)
        problem = _check_problem(response, 422, "invalid_request")
        pointers = [error["pointer"] for error in problem["errors"]]
        assert pointer in pointers or any(each.startswith(pointer) for each in pointers), (name, problem)
        assert all(error["detail"] and "`$" not in error["detail"] for error in problem["errors"])


async def test_every_field_that_is_wrong_is_named(app: Running, headers: dict[str, str]) -> None:
    body = _order(carrier="A", distance_miles=-1)
    problem = (await app.client.post(PATH, content=body, headers=headers)).json()
    assert {error["pointer"] for error in problem["errors"]} == {"#/input/carrier", "#/input/distance_miles"}


async def test_a_model_that_is_not_there_is_not_found(app: Running, headers: dict[str, str]) -> None:
    for model, version in (("nobody", None), ("flight-delay", "0.0.0"), ("../flight", None)):
        order = {"model": model, "version": version, "input": INPUT}
        _check_problem(await app.client.post(PATH, json=order, headers=headers), 404, "model_not_found")


async def test_a_key_that_is_none_is_refused(app: Running, headers: dict[str, str]) -> None:
    for key in (b"", b"x" * 256, b"a\tb", b"\x85"):
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        response = await app.client.post(PATH, json=ORDER, headers=[*named, (b"Idempotency-Key", key)])
        problem = _check_problem(response, 422, "invalid_request")
        assert problem["errors"][0]["header"] == "Idempotency-Key"


async def test_a_body_that_is_too_large_is_refused(app: Running, headers: dict[str, str]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"model":"'
        for _ in range(100):
            yield b"x" * 65_536

    large = b"x" * (app.settings.max_body_bytes + 1)
    _check_problem(await app.client.post(PATH, content=large, headers=headers), 413, "body_too_large")
    _check_problem(await app.client.post(PATH, content=chunks(), headers=headers), 413, "body_too_large")
    exact = json.dumps(ORDER).encode().ljust(app.settings.max_body_bytes - 1) + b"]"
    _check_problem(await app.client.post(PATH, content=exact, headers=headers), 422, "malformed_body")


async def test_somebody_who_is_nobody_is_refused_whatever_they_ask(app: Running) -> None:
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic YTpi"}, {"X-API-Key": "ftl_x"}):
        for body in (json.dumps(ORDER).encode(), b"{"):
            response = await app.client.post(PATH, content=body, headers=headers)
            _check_problem(response, 401, "invalid_token")
            assert response.headers["www-authenticate"].startswith("Bearer ")


async def test_somebody_whose_account_is_gone_gets_nothing(app: Running) -> None:
    response = await app.client.post(PATH, json=ORDER, headers=app.headers_of(uuid4()))
    _check_problem(response, 404, "not_found")


async def test_it_explains_as_the_other_routes_do(app: Running, headers: dict[str, str]) -> None:
    """The hot route speaks for itself; nobody should notice."""

    def alike(response: httpx.Response) -> Any:
        problem = response.json()
        problem.pop("instance")
        problem.pop("errors", None)
        kept = {
            name: value for name, value in response.headers.items() if name not in ("x-request-id", "content-length")
        }
        return response.status_code, problem, kept

    headers["Content-Type"] = "application/json"

    pairs = [
        (await app.client.post(PATH, json=ORDER), await app.client.get("/predictions")),
        (
            await app.client.post(PATH, content=b"{", headers=headers),
            await app.client.post("/api-keys", content=b"{", headers=headers),
        ),
        (
            await app.client.post(PATH, content=b"[]", headers=headers),
            await app.client.post("/api-keys", content=b"[]", headers=headers),
        ),
        (
            await app.client.post(PATH, content=b"x" * 2_000_000, headers=headers),
            await app.client.post("/api-keys", content=b"x" * 2_000_000, headers=headers),
        ),
    ]
    for hot, other in pairs:
        assert alike(hot) == alike(other)


async def test_other_methods_are_not_allowed(app: Running, headers: dict[str, str]) -> None:
    for method in ("PUT", "PATCH"):
        _check_problem(await app.client.request(method, PATH, json=ORDER, headers=headers), 405, "method_not_allowed")


async def test_a_client_that_leaves_in_the_middle_does_no_harm(app: Running, headers: dict[str, str]) -> None:
    for sent in (b"", b'{"model":"fli'):
        _, writer = await asyncio.open_connection("127.0.0.1", app.settings.port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\nContent-Length: 99\r\n"
        writer.write(head.encode() + b"\r\n" + sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await app.client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/models", "/balance", "/events", "/docs", "/openapi.json", "/predictions", "/nothing"]
)
async def test_head_is_answered_as_get_is_without_a_body(app: Running, path: str) -> None:
    _, headers = await app.open_account()
    asked = await app.client.get(path, headers=headers)
    head = await app.client.head(path, headers=headers)
    assert (head.status_code, head.content) == (asked.status_code, b"")
    for name in ("content-type", "content-length"):
        assert head.headers.get(name) == asked.headers.get(name)


async def test_head_of_a_stream_does_not_wait_for_its_end(app: Running) -> None:
    _, headers = await app.open_account()
    head = await asyncio.wait_for(app.client.head("/events", headers=headers | {"Accept": "text/event-stream"}), 30)
    assert (head.status_code, head.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")


async def test_what_takes_no_get_takes_no_head_and_says_what_it_takes(app: Running) -> None:
    for path, allowed in {"/users": "POST", PATH: "POST"}.items():
        head = await app.client.head(path)
        assert (head.status_code, head.headers["allow"]) == (405, allowed)
    refused = await app.client.put("/balance")
    assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "PATCH"})


async def test_a_body_that_is_too_large_is_told_which_setting_raises_the_bound(app: Running) -> None:
    _, headers = await app.open_account()
    for path in (PATH, "/api-keys"):
        answer = await app.client.post(path, content=b" " * (app.settings.max_body_bytes + 1), headers=headers)
        assert answer.status_code == 413
        assert "(FORETELL_MAX_BODY_BYTES)" in answer.json()["detail"]
        assert answer.json()["setting"] == "FORETELL_MAX_BODY_BYTES"


async def test_a_compressed_body_is_unpacked_within_the_bound(app: Running) -> None:
    _, headers = await app.open_account()
    gzipped = headers | {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    order = await app.client.post(PATH, content=gzip.compress(json.dumps(ORDER).encode()), headers=gzipped)
    assert order.status_code == 202, order.text
    key = await app.client.post("/api-keys", content=gzip.compress(b'{"name": "packed"}'), headers=gzipped)
    assert key.status_code == 201, key.text
    assert key.json()["name"] == "packed"
    bomb = gzip.compress(b" " * (app.settings.max_body_bytes + 1))
    for path in (PATH, "/api-keys"):
        assert (await app.client.post(path, content=bomb, headers=gzipped)).status_code == 413
        broken = await app.client.post(path, content=b"{}", headers=gzipped)
        assert (broken.status_code, broken.json()["code"]) == (422, "broken_encoding")
        unknown = await app.client.post(path, content=b"{}", headers=gzipped | {"Content-Encoding": "br"})
        assert (unknown.status_code, unknown.json()["code"]) == (415, "unknown_encoding")
        assert unknown.headers["accept-encoding"] == "gzip, deflate"
