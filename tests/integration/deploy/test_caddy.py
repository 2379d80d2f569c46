"""Caddy as it ships, with a certificate that it had by itself, before a server that says what it was asked."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.echo_server import EchoServer, echoing
from tests.services_pebble import DOMAIN, PrivateCaddy


@pytest.fixture(scope="module")
def app() -> Iterator[EchoServer]:
    with echoing(name="app") as server:
        yield server


@pytest.fixture(scope="module")
def caddy_settings(app: EchoServer) -> dict[str, str]:
    here = f"127.0.0.1 {app.port}"
    return {
        "FORETELL_CADDY_APP": here,
        "FORETELL_CADDY_MONITORING": here,
        "FORETELL_CADDY_PREPROCESSING": here,
        "FORETELL_CADDY_BOT": here,
        # Nobody is there (discard).
        "FORETELL_CADDY_MODEL": "127.0.0.1 9",
        "FORETELL_CADDY_MODEL_ACCESS": "everybody",
        "FORETELL_MONITORING_TOKEN": "the-token-8c1f",
        "FORETELL_HTTPS_PORT": "8443",
    }


def headers_of(answer: httpx.Response) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in answer.json()["headers"]:
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_https_with_a_certificate_that_nobody_brought(caddy: PrivateCaddy, http2: bool) -> None:
    with caddy.client(http2=http2) as client:
        answer = client.get("/users/me")
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert headers_of(answer)["x-forwarded-proto"] == ["https"]


def test_http_leads_to_https(caddy: PrivateCaddy) -> None:
    answer = httpx.get(f"http://127.0.0.1:{caddy.http_port}/ui/x?y=1", headers={"Host": DOMAIN})
    assert answer.status_code == 308
    # The port that the outside knows, which is not the one that Caddy has.
    assert answer.headers["location"] == f"https://{DOMAIN}:8443/ui/x?y=1"


def test_what_a_client_says_of_itself_is_not_passed_on(caddy: PrivateCaddy) -> None:
    forged = {
        "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "http", "X-Real-IP": "1.2.3.4", "Forwarded": "for=1.2.3.4",
        "X-Forwarded-Prefix": "/elsewhere",
    }  # fmt: skip
    with caddy.client() as client:
        seen = headers_of(client.get("/users/me", headers=forged))
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == ["127.0.0.1"]
    assert seen["x-forwarded-proto"] == ["https"]
    assert not {"forwarded", "x-forwarded-prefix"} & seen.keys()


def test_the_services_below_their_prefixes(caddy: PrivateCaddy) -> None:
    with caddy.client() as client:
        answer = client.get("/preprocessing/models/a%2Fb?x=%20", headers={"Cookie": "foretell_session=abc"})
        assert answer.json()["line"] == "GET /models/a%2Fb?x=%20 HTTP/1.1"
        assert headers_of(answer)["x-forwarded-prefix"] == ["/preprocessing"]
        assert "cookie" not in headers_of(answer)
        assert client.get("/model").headers["location"] == "/model/docs"
        seen = client.post("/telegram/webhook", json={}).json()
        assert seen["line"] == "POST /telegram/webhook HTTP/1.1"


@pytest.mark.parametrize("path", ["/metrics", "/model/metrics", "/preprocessing/metrics", "/monitoring/metrics"])
def test_metrics_are_never_seen_outside(caddy: PrivateCaddy, app: EchoServer, path: str) -> None:
    with caddy.client() as client:
        app.requests.clear()
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"
        assert app.requests == []


def test_monitoring_is_for_whom_the_app_lets_in(caddy: PrivateCaddy, app: EchoServer) -> None:
    with caddy.client() as client:
        app.requests.clear()
        mine = {"Authorization": "Bearer mine", "Cookie": "foretell_session=abc", "Origin": "https://elsewhere"}
        answer = client.post("/monitoring/logs", json=["body"], headers=mine)
        assert app.requests == ["GET /auth/operator HTTP/1.1", "POST /logs HTTP/1.1"]
        seen = headers_of(answer)
        assert answer.json()["body"] == '["body"]'
        assert seen["authorization"] == ["Bearer the-token-8c1f"]
        assert seen["host"] == ["localhost"]
        assert not {"cookie", "origin", "x-api-key"} & seen.keys()
        app.status = 403
        try:
            app.requests.clear()
            assert client.get("/monitoring/reports/logs").status_code == 403
            assert app.requests == ["GET /auth/operator HTTP/1.1"]
        finally:
            app.status = 200


def test_a_session_may_look_and_not_act_in_the_monitoring_service(caddy: PrivateCaddy, app: EchoServer) -> None:
    """The app is asked with GET, for which it wants no proof against forged requests."""
    with caddy.client() as client:
        app.status = 401
        try:
            cookie = {"Cookie": "foretell_session=abc"}
            assert headers_of(client.get("/monitoring/x", headers=cookie))["cookie"] == ["foretell_session=abc"]
            assert "cookie" not in headers_of(client.post("/monitoring/x", headers=cookie))
        finally:
            app.status = 200


def test_what_is_worth_it_is_compressed(caddy: PrivateCaddy) -> None:
    with caddy.client() as client:
        encoding = {
            path: client.get(path, headers={"Accept-Encoding": "gzip"}).headers.get("content-encoding")
            for path in ("/large", "/balance", "/webhooks")
        }
    assert encoding == {"/large": "gzip", "/balance": None, "/webhooks": None}


def test_a_stream_is_not_held_back(caddy: PrivateCaddy, app: EchoServer) -> None:
    app.go_on = threading.Event()
    with caddy.client() as client, client.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        app.go_on.set()
        assert "data: done" in list(lines)


def test_who_is_away(caddy: PrivateCaddy) -> None:
    with caddy.client() as client:
        answer = client.post("/model/predict", json={})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "5"
        assert client.get("/model/v2/health/ready").json().keys() == {"error"}
        for language, words in {"ru-RU,ru": "недоступен", "en": "not available"}.items():
            page = client.get("/model/docs", headers={"Accept": "text/html", "Accept-Language": language})
            assert page.status_code == 503
            assert words in page.text
            assert "style-src 'sha256-" in page.headers["content-security-policy"]


def test_lines_of_the_log_hold_no_address_and_no_header(caddy: PrivateCaddy) -> None:
    with caddy.client() as client:
        client.get("/predictions/who-knows?secret=never-told", headers={"Authorization": "Bearer never-told-either"})
    lines: list[dict[str, Any]] = [json.loads(line) for line in caddy.log.read_text().splitlines()]
    assert any(line.get("status") == 200 for line in lines)
    for secret in ("who-knows", "never-told", "the-token-8c1f"):
        assert secret not in caddy.log.read_text()
