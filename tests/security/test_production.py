"""What a stranger tries against an installation in production, over its ports."""

import base64
import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

from .conftest import PASSWORD, SERVICES, Account, Production

FLIGHT = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
RAW = {"carrier": "AA", "departure_time": "09:30", "distance_miles": 550.0, "weather_code": 1}
ORDER = {"model": "flight-delay", "input": RAW}
INFER = "/v2/models/flight-delay/infer"
MIB = 1024 * 1024

#: Every address that reads a body, and who stands there.
READERS = [
    ("app", "/predictions/predict"),
    ("app", "/users"),
    ("app", "/token"),
    ("app", "/token/revoke"),
    ("app", "/api-keys"),
    ("model", "/predict"),
    ("model", "/models/flight-delay/predict"),
    ("model", INFER),
    ("model", "/v2/repository/index"),
    ("preprocessing", "/preprocess"),
    ("preprocessing", "/batch_preprocess"),
    ("preprocessing", "/models/flight-delay/preprocess"),
    ("monitoring", "/logs"),
    ("monitoring", "/metrics"),
    ("monitoring", "/heartbeats"),
    ("monitoring", "/queues/ml_tasks/redrive"),
]


@contextmanager
def connected(production: Production, service: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", production.services[service].port), timeout=30) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """All that is said until the other side closes or has nothing more to say."""
    said = b""
    with suppress(OSError):
        while part := connection.recv(65_536):
            said += part
            if b"\r\n\r\n" in said and b"connection: close" not in said.lower():
                break
    return said


# Who comes in


def test_metrics_ingestion_and_reports_need_the_token(production: Production) -> None:
    closed = [(service, "GET", "/metrics") for service in SERVICES]
    closed += [
        ("monitoring", "GET", path) for path in ("/reports/logs", "/reports/metrics", "/alerts", "/prometheus/targets")
    ]
    closed += [
        ("monitoring", "POST", path) for path in ("/logs", "/metrics", "/heartbeats", "/queues/ml_tasks/redrive")
    ]
    token = production.monitoring_token
    for service, method, path in closed:
        url = production.url(service) + path
        for wrong in ({}, {"Authorization": f"Bearer {token[:-1]}"}, {"Authorization": f"Basic {token}"}):
            assert httpx.request(method, url, headers=wrong).status_code == 401, (service, method, path)
    for service in SERVICES:
        shown = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{production.url(service)}/metrics", headers=shown).status_code == 200


def test_nobody_is_test_and_nobody_changes_models(production: Production) -> None:
    said = httpx.post(f"{production.url('app')}/token", data={"username": "test", "password": "test"})
    assert said.status_code == 401
    for change in ("load", "unload"):
        url = f"{production.url('model')}/v2/repository/models/flight-delay/{change}"
        assert httpx.post(url).status_code == 403
        assert httpx.post(url, headers={"Authorization": "Bearer x"}).status_code == 403


def forged(production: Production, user_id: str) -> dict[str, str]:
    now = int(time.time())
    good: dict[str, Any] = {"iss": "foretell", "aud": "foretell", "sub": user_id, "role": "user", "typ": "access"}
    good |= {"jti": uuid4().hex, "iat": now, "exp": now + 60}
    secret = production.secret_key

    def unsigned(algorithm: str) -> str:
        parts = [{"alg": algorithm, "typ": "JWT"}, good]
        return ".".join(
            [*(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts), ""]
        )

    def signed(key: str = secret, algorithm: str = "HS256", **changes: Any) -> str:
        return jwt.encode(good | changes, key, algorithm=algorithm)

    return {
        "good": signed(),
        "none": unsigned("none"),
        "None": unsigned("None"),
        "no signature": unsigned("HS256"),
        "another algorithm": signed(algorithm="HS512"),
        "another key": signed("x" * 64),
        "a key that is easy to guess": signed("foretell"),
        "another audience": signed(aud="somebody"),
        "several audiences": signed(aud=["foretell", "somebody"]),
        "another issuer": signed(iss="somebody"),
        "the future": signed(iat=now + 600),
        "nobody": signed(sub="ada"),
        "no end": jwt.encode({name: value for name, value in good.items() if name != "exp"}, secret, algorithm="HS256"),
        "noise": "a.b.c",
        "half an alphabet": "é" * 20,
        "very long": "a" * 10_000,
        "an API key of nobody": "ftl_" + "a" * 43,
        "an API key that is none": "ftl_",
        "an old date": signed(iat=now - 7200, exp=now - 3600),
        "a date beyond every calendar": signed(exp=10**18),
        "another kind": signed(typ="refresh"),
        "another role": signed(role="god"),
        "the monitoring token": production.monitoring_token,
    }


@pytest.mark.filterwarnings("ignore:The HMAC key is")
def test_no_forged_token_opens_anything(production: Production, ada: Account) -> None:
    user_id = ada.client.get("/users/me").json()["id"]
    tokens = forged(production, user_id)
    good = {"Authorization": f"Bearer {tokens.pop('good')}"}
    # Else the refusals might be for another reason.
    assert httpx.get(f"{production.url('app')}/balance", headers=good).status_code == 200
    for name, token in tokens.items():
        headers = {b"Authorization": b"Bearer " + token.encode("latin-1")}
        assert httpx.get(f"{production.url('app')}/balance", headers=headers).status_code == 401, name
        # The hot route, which stands in front of all others.
        asked = httpx.post(f"{production.url('app')}/predictions/predict", headers=headers, json=ORDER)
        assert asked.status_code == 401, name


def test_what_is_somebody_elses_is_not_there(ada: Account, mallory: Account) -> None:
    prediction = ada.client.post("/predictions/predict", json=ORDER).json()["id"]
    key = ada.client.post("/api-keys", json={"name": "mine"}).json()["id"]
    calls = [
        ("GET", "/predictions/{}", prediction),
        ("DELETE", "/predictions/{}", prediction),
        ("GET", "/predictions/{}/events", prediction),
        ("DELETE", "/api-keys/{}", key),
    ]
    for method, path, its_id in calls:
        foreign, absent = (mallory.client.request(method, path.format(each)) for each in (its_id, uuid4()))
        assert (foreign.status_code, absent.status_code) == (404, 404), path
        said = [
            {name: value for name, value in each.json().items() if name != "instance"} for each in (foreign, absent)
        ]
        assert said[0] == said[1]
        assert {*foreign.headers} == {*absent.headers}
    assert ada.client.get(f"/predictions/{prediction}").json()["status"] == "queued"
    assert mallory.client.get("/predictions").json()["items"] == []


def test_a_refresh_token_that_comes_twice_ends_its_family(ada: Account) -> None:
    def refresh(token: str) -> httpx.Response:
        return ada.client.post("/token", data={"grant_type": "refresh_token", "refresh_token": token})

    form = {"username": ada.username, "password": PASSWORD}
    other = ada.client.post("/token", data=form).json()["refresh_token"]
    second = refresh(ada.refresh_token).json()["refresh_token"]
    assert refresh(ada.refresh_token).status_code == 401
    assert refresh(second).status_code == 401
    # Another log-in is none of its family.
    assert refresh(other).status_code == 200


def test_nobody_gives_themselves_a_role_a_balance_or_a_price(production: Production, ada: Account) -> None:
    before = ada.client.get("/balance").json()
    extras = ("role", "balance", "available", "credits", "price", "price_credits", "user_id", "id", "active", "status")
    for name in extras:
        for value in ("operator", 1_000_000):
            wanted = {"username": f"m-{uuid4().hex}", "password": PASSWORD, name: value}
            assert httpx.post(f"{production.url('app')}/users", json=wanted).status_code == 422, name
            assert ada.client.post("/predictions/predict", json={**ORDER, name: value}).status_code == 422, name
            assert ada.client.post("/api-keys", json={"name": "key", name: value}).status_code == 422, name
    assert ada.client.get("/balance").json() == before


def test_other_web_pages_do_not_reach_what_is_open(production: Production) -> None:
    for service, path in (("model", "/predict"), ("model", "/v2/repository/index"), ("preprocessing", "/preprocess")):
        for origin in ("http://evil.example", "null"):
            headers = {"Origin": origin, "Content-Type": "text/plain"}
            said = httpx.post(production.url(service) + path, headers=headers, content=json.dumps(FLIGHT))
            assert (said.status_code, said.json()["code"]) == (403, "foreign_page")


# Bodies


def hostile() -> dict[str, bytes]:
    flight = json.dumps(FLIGHT)
    return {
        "nothing": b"",
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "deep and whole": b"[" * 100_000 + b"]" * 100_000,
        "NaN": flight.replace("550.0", "NaN").encode(),
        "Infinity": flight.replace("550.0", "-Infinity").encode(),
        "1e999": flight.replace("550.0", "1e999").encode(),
        "many digits": flight.replace("550.0", "9" * 10_000).encode(),
        "NUL": flight.replace("AA", "A\\u0000").encode(),
        "raw NUL": b"\0" * 1000,
        "no UTF-8": flight.replace("AA", "~").encode().replace(b"~", b"\xff\xfe"),
        "half a pair": flight.replace("AA", "\\ud800").encode(),
        "a list": b"[]",
        "null": b"null",
        "many names": json.dumps({str(number): number for number in range(20_000)}).encode(),
        "one name again and again": b"{" + b",".join([b'"carrier":1'] * 20_000) + b"}",
        "a bomb": gzip.compress(bytes(20 * MIB)),
    }


@pytest.mark.parametrize(("service", "path"), READERS)
def test_no_body_is_more_than_refused(production: Production, ada: Account, service: str, path: str) -> None:
    bearer = production.monitoring_token if service == "monitoring" else ada.client.headers["Authorization"][7:]
    with httpx.Client(
        base_url=production.url(service), headers={"Authorization": f"Bearer {bearer}"}, timeout=30
    ) as client:
        for name, body in hostile().items():
            kind = "application/x-www-form-urlencoded" if path.startswith("/token") else "application/json"
            headers = {"Content-Type": kind}
            if name == "a bomb":
                headers["Content-Encoding"] = "gzip"
            said = client.post(path, content=body, headers=headers)
            assert said.status_code < 500, (name, said.text[:300])
            # An index passes over what it does not know, and a list of no records is one.
            may_pass = {"nothing", "a list", "many names", "one name again and again"}
            passed = said.status_code < 400 and name not in may_pass and not path.endswith("/index")
            assert not passed, (name, said.status_code, said.text[:300])
    production.assert_well()


def test_more_than_can_be_meant_is_refused_before_any_work(production: Production) -> None:
    tensors = [
        ("carrier", "BYTES", "AA"),
        ("dep_hour", "INT64", 9),
        ("distance", "FP64", 550),
        ("weather_delay", "FP64", 0),
    ]

    def asked(shape: list[int], **more: Any) -> dict[str, Any]:
        inputs = [{"name": name, "datatype": kind, "shape": shape, "data": [value]} for name, kind, value in tensors]
        return {"inputs": inputs, **more}

    before = production.memory_bytes("model")
    with httpx.Client(base_url=production.url("model"), timeout=30) as client:
        assert client.post(INFER, json=asked([1])).status_code == 200
        for body in (
            asked([10**17] * 40_000),
            asked([1, 10**17]),
            asked([1, 0]),
            asked([2**31 - 1]),
            asked([1], outputs=[{"name": "probability"}] * 3000),
            asked([1], outputs=[{"name": "probability"}] * 100_000),
        ):
            assert client.post(INFER, json=body).status_code == 400
    production.assert_well()
    assert production.memory_bytes("model") < 2 * before


# Connections


@pytest.mark.parametrize("service", SERVICES)
def test_a_head_has_its_bounds(production: Production, service: str) -> None:
    for head, status in (
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"414"),
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /health/live HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 30_000 + b"\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00" + b"\0" * 1000, b"400"),
    ):
        with connected(production, service) as connection:
            with suppress(OSError):
                connection.sendall(head)
            said = answer(connection)
            # What is still being sent when we close may cost the sender the answer.
            assert said == b"" or said.split(b" ")[1] == status, said[:200]
    production.assert_well()


@pytest.mark.parametrize(
    ("service", "path"), [("model", "/predict"), ("model", INFER), ("app", "/predictions/predict")]
)
def test_who_hangs_up_leaves_nothing_behind(production: Production, service: str, path: str) -> None:
    httpx.post(production.url(service) + path, json=FLIGHT)
    before = production.memory_bytes(service)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {15 * MIB}\r\n\r\n".encode()
    for _ in range(8):
        with connected(production, service) as connection, suppress(OSError):
            connection.sendall(head + b"[" * (14 * MIB))
    production.assert_well()
    assert production.memory_bytes(service) < 2 * before


def test_chunks_of_two_bytes_are_not_gathered(production: Production) -> None:
    for service, path in (("model", "/predict"), ("model", INFER), ("preprocessing", "/preprocess")):
        with connected(production, service) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            with suppress(OSError):
                connection.sendall(b"2\r\n[[\r\n" * 20_000)
            said = answer(connection)
            assert said == b"" or b" 400 " in said.splitlines()[0], said[:200]
    production.assert_well()


def test_nobody_forges_a_line_of_the_log(production: Production, ada: Account) -> None:
    line = '\n{"message":"forged","log.level":"error"}\n\x1b[2J'
    url = production.url("app")
    escaped = "%0A%7B%22message%22%3A%22forged%22%7D%0A%1B"
    httpx.get(f"{url}/nowhere/{escaped}?{escaped}", headers={"User-Agent": "x\x1b[2J", "X-Request-ID": escaped})
    httpx.post(f"{url}/token", data={"username": line, "password": line})
    httpx.post(f"{url}/users", json={"username": line, "password": PASSWORD})
    ada.client.post("/predictions/predict", json={"model": line, "input": {line: line}})
    ada.client.post("/api-keys", json={"name": "x" + line})
    with connected(production, "app") as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\r\n\tforged\r\n\r\n")
        answer(connection)
    service = production.services["app"]
    assert service.lines("forged") == []
    for each in service.raw_lines():
        assert isinstance(json.loads(each), dict), each
        assert "\x1b" not in each
