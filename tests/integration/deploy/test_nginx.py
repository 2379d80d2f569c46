"""nginx as it ships, before a whole system: every address leads where it should, and nobody comes further than that."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
import tritonclient.http
from tests.asides import run_aside
from tests.ports import free_port
from tests.services_nginx import NewNginx, PrivateNginx, running
from tests.system import FLIGHT, System

from foretell.domain.accounts import registration
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.accounts.tokens import AccessTokens
from foretell.kit.database import Database

_TOKEN = "token-of-the-monitoring-9k2x"
_PASSWORD = "a long password"
_BODY_BYTES = 4096
_FEATURES = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}


@dataclass
class Door:
    """A system with nginx in front."""

    nginx: PrivateNginx
    system: System
    user: str
    operator: str

    def client(self, token: str = "", **options: Any) -> httpx.Client:
        """Somebody outside."""
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        return httpx.Client(base_url=self.nginx.url, headers=headers, timeout=60, **options)


@pytest.fixture(scope="module")
def door(new_nginx: NewNginx, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("system")
    ports = {service: free_port() for service in ("model", "preprocessing", "monitoring")}
    system = System(
        folder,
        database_url=f"sqlite:///{folder / 'foretell.db'}",
        broker_url=f"sqlite:///{folder / 'broker.db'}",
        FORETELL_MONITORING_URL=f"http://127.0.0.1:{ports['monitoring']}",
        FORETELL_MONITORING_TOKEN=_TOKEN,
        FORETELL_TRUSTED_PROXIES="127.0.0.1",
        FORETELL_SIGNUPS_PER_ADDRESS="3",
        FORETELL_MAX_BODY_BYTES=str(_BODY_BYTES),
        FORETELL_MONITORING_MAX_BODY_BYTES=str(2 * _BODY_BYTES),
        FORETELL_MAX_PACKAGE_BYTES=str(2 * _BODY_BYTES),
    )
    nginx = new_nginx(
        APP_UPSTREAM=f"127.0.0.1:{system.app_port}",
        MODEL_UPSTREAM=f"127.0.0.1:{ports['model']}",
        PREPROCESSING_UPSTREAM=f"127.0.0.1:{ports['preprocessing']}",
        MONITORING_UPSTREAM=f"127.0.0.1:{ports['monitoring']}",
        MONITORING_TOKEN=_TOKEN,
        MAX_BODY_BYTES=str(_BODY_BYTES),
        MONITORING_MAX_BODY_BYTES=str(2 * _BODY_BYTES),
        MAX_PACKAGE_BYTES=str(2 * _BODY_BYTES),
        # Less than the 15 s after which a stream says that there is nothing new.
        NGINX_TIMEOUT_S="5",
    )
    with ExitStack() as stack:
        for service, port in ports.items():
            system.spawn(service, port=port)
        stack.callback(lambda: run_aside(system.stop()))
        run_aside(system.start(workers=1))
        stack.enter_context(running(nginx))
        _, user = run_aside(system.new_user())
        yield Door(nginx, system, user, run_aside(_new_operator(system)))


async def _new_operator(system: System) -> str:
    database = Database(system.database_url)
    try:
        async with database.transaction() as connection:
            user = await registration.register(
                connection,
                username="operator",
                password_hash=await Passwords().hash(_PASSWORD),
                grant_credits=0,
                role="operator",
            )
    finally:
        await database.close()
    return AccessTokens(system.secret, lifetime_s=86_400).issue(user)[0]


def test_the_whole_way_of_a_prediction(door: Door) -> None:
    with door.client() as client:
        assert client.post("/users", json={"username": "somebody", "password": _PASSWORD}).status_code == 201
        tokens = client.post("/token", data={"username": "somebody", "password": _PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        asked = client.post(
            "/predictions/predict", json={"model": "flight-delay", "input": FLIGHT}, headers={"Prefer": "wait=30"}
        )
        assert asked.status_code == 200, asked.text
        assert asked.json()["status"] == "succeeded"
        location = asked.headers["Location"]
        assert client.get(location).json()["output"] == asked.json()["output"]
        assert [each["id"] for each in client.get("/predictions?limit=5").json()["items"]] == [asked.json()["id"]]
        assert client.get("/balance").json()["available"] == 99


def test_an_idempotency_key_is_passed_on(door: Door) -> None:
    with door.client(door.user) as client:
        order = {"model": "flight-delay", "input": FLIGHT}
        answers = [
            client.post("/predictions/predict?x=1", json=order, headers={"Idempotency-Key": "the-same"})
            for _ in range(2)
        ]
        assert {answer.status_code for answer in answers} <= {200, 202}
        assert len({answer.json()["id"] for answer in answers}) == 1


def test_the_documentation_of_every_service(door: Door) -> None:
    with door.client(door.operator) as client:
        for prefix in ("", "/model", "/preprocessing", "/monitoring"):
            page = client.get(f"{prefix}/docs")
            assert page.status_code == 200, prefix
            for address in re.findall(r'(?:href|src)="([^"]+)"', page.text):
                assert client.get(f"{prefix}/{address}").status_code == 200, address
            document = client.get(f"{prefix}/openapi.json").json()
            assert document.get("servers", [{"url": ""}]) == [{"url": prefix}]
            assert document["paths"]
            if prefix:
                for short in (prefix, f"{prefix}/"):
                    answer = client.get(short)
                    assert (answer.status_code, answer.headers["Location"]) == (308, f"{prefix}/docs")


def test_the_services_below_their_prefixes(door: Door) -> None:
    with door.client() as client:
        answer = client.post("/model/predict", json=_FEATURES)
        assert answer.status_code == 200
        assert answer.json()["prediction"] in (0, 1)
        assert client.post("/preprocessing/preprocess", json=FLIGHT).json()["carrier"] == "AA"
        assert client.get("/model/models/flight-delay?x=%2F").status_code == 200
        # Their errors are theirs.
        assert client.post("/model/predict", json={}).json()["code"] == "invalid_request"
        assert client.get("/model/v2/models/none").json().keys() == {"error"}


def test_tritonclient_works_as_it_comes(door: Door) -> None:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{door.nginx.port}/model")
    try:
        assert client.is_server_live()
        assert client.is_model_ready("flight-delay")
        inputs = []
        for name, value in _FEATURES.items():
            dtype = {str: object, int: numpy.int64, float: numpy.float64}[type(value)]
            tensor = numpy.array([value], dtype=dtype)
            kind = tritonclient.http.InferInput(name, [1], tritonclient.utils.np_to_triton_dtype(tensor.dtype))
            kind.set_data_from_numpy(tensor)
            inputs.append(kind)
        result = client.infer("flight-delay", inputs)
        probability = result.as_numpy("probability")
        assert probability is not None
        assert 0 <= float(probability[0]) <= 1
    finally:
        client.close()


def test_monitoring_is_for_operators(door: Door) -> None:
    with door.client() as client:
        for address in ("/monitoring/docs", "/monitoring/openapi.json", "/monitoring/reports/logs"):
            nobody = client.get(address)
            assert nobody.status_code == 401
            assert nobody.headers["content-type"] == "application/problem+json"
            assert nobody.headers["www-authenticate"].startswith("Bearer")
            with_its_token = client.get(address, headers={"Authorization": f"Bearer {_TOKEN}"})
            assert with_its_token.status_code == 401
            somebody = client.get(address, headers={"Authorization": f"Bearer {door.user}"})
            assert somebody.status_code == 403
            assert somebody.json()["code"] == "forbidden"
            operator = client.get(address, headers={"Authorization": f"Bearer {door.operator}"})
            assert operator.status_code == 200
            assert _TOKEN not in operator.text + str(operator.headers)
        page = client.get("/monitoring/docs", headers={"Accept": "text/html", "Accept-Language": "ru-RU"})
        assert page.status_code == 401
        assert "операторов" in page.text


def test_an_operator_can_act_in_the_monitoring_service(door: Door) -> None:
    with door.client(door.operator) as client:
        line = {"service": "x", "level": "INFO", "message": "by an operator", "timestamp": "2026-01-05T09:30:00Z"}
        answer = client.post("/monitoring/logs", json=line, headers={"Origin": door.nginx.url})
        assert answer.json() == {"status": "logged"}


def test_an_operator_in_a_browser(door: Door) -> None:
    """The session's cookie opens the same door, and the app looks after forged requests there, too."""
    line = {"service": "x", "level": "INFO", "message": "from a page", "timestamp": "2026-01-05T09:30:00Z"}
    with door.client() as client:
        client.headers["Origin"] = door.nginx.url
        session = client.post("/session", json={"username": "operator", "password": _PASSWORD})
        assert session.status_code == 200, session.text
        assert client.get("/monitoring/reports/logs").status_code == 200
        assert client.post("/monitoring/logs", json=line).status_code == 403
        csrf = {"X-CSRF-Token": session.json()["csrf_token"]}
        assert client.post("/monitoring/logs", json=line, headers=csrf).json() == {"status": "logged"}
        elsewhere = csrf | {"Origin": "http://elsewhere.example"}
        assert client.post("/monitoring/logs", json=line, headers=elsewhere).status_code == 403


def test_who_may_come_further_is_asked_of_the_app(door: Door) -> None:
    with door.client() as client:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            answers = {
                name: client.request(method, "/auth/operator", headers={"Authorization": f"Bearer {token}"}).status_code
                for name, token in {"user": door.user, "operator": door.operator, "nobody": "x"}.items()
            }
            assert answers == {"user": 403, "operator": 204, "nobody": 401}, method
        assert client.get("/auth/user", headers={"Authorization": f"Bearer {door.user}"}).status_code == 204


@pytest.mark.parametrize(
    "address",
    [
        "/metrics", "//metrics", "/./metrics", "/%6detrics", "/x/../metrics", "/metrics?a=b", "/model/metrics",
        "/model//metrics", "/model/%6Detrics", "/preprocessing/metrics", "/monitoring/metrics", "/model/../metrics",
        "/x/../model/predict", "/%6dodel/predict", "/model/..%2fmetrics", "/monitoring/../metrics",
    ],
)  # fmt: skip
def test_metrics_are_never_seen_outside(door: Door, address: str) -> None:
    status, body = _ask_raw(door.nginx.port, f"GET {address} HTTP/1.1\r\nAuthorization: Bearer {door.operator}\r\n")
    assert status in (401, 404), body
    assert b"foretell_" not in body


def _ask_raw(port: int, head: str, body: bytes = b"") -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}Host: localhost\r\nConnection: close\r\n\r\n".encode() + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer


def test_health_is_seen_outside(door: Door) -> None:
    with door.client() as client:
        assert client.get("/health").json()["service"] == "app"
        assert client.get("/health/ready").status_code == 200
        assert client.get("/model/health").json()["service"] == "model_service"
        assert client.get("/nginx-health").text == "ok\n"


async def test_a_stream_says_something_at_once_and_outlives_the_ordinary_timeout(door: Door) -> None:
    headers = {"Authorization": f"Bearer {door.user}", "Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    async with (
        httpx.AsyncClient(base_url=door.nginx.url, headers=headers, timeout=60) as client,
        client.stream("GET", "/events") as stream,
    ):
        assert stream.status_code == 200
        assert "content-encoding" not in stream.headers
        lines = stream.aiter_lines()
        # Nothing has happened, so what comes now was not held back for more.
        assert await anext(lines) == "retry: 2000"
        async for line in lines:
            if line.startswith(": nothing"):
                break
        asked = await client.post("/predictions/predict", json={"model": "flight-delay", "input": FLIGHT})
        async for line in lines:
            if line.startswith("data: "):
                assert json.loads(line.removeprefix("data: "))["data"]["id"] == asked.json()["id"]
                break


async def test_the_stream_of_a_prediction_comes_as_it_happens(door: Door) -> None:
    async with httpx.AsyncClient(
        base_url=door.nginx.url, headers={"Authorization": f"Bearer {door.user}"}, timeout=60
    ) as client:
        asked = await client.post("/predictions/predict", json={"model": "flight-delay", "input": FLIGHT})
        async with client.stream("GET", f"{asked.headers['Location']}/events") as stream:
            text = "".join([part async for part in stream.aiter_text()])
        assert '"succeeded"' in text


@pytest.mark.parametrize(
    ("path", "bound"),
    [
        ("/users", _BODY_BYTES),
        ("/admin/models", 2 * _BODY_BYTES),
        ("/predictions/predict", _BODY_BYTES),
        ("/model/predict", _BODY_BYTES),
        ("/model/v2/models/flight-delay/infer", _BODY_BYTES),
        ("/preprocessing/preprocess", _BODY_BYTES),
        ("/monitoring/logs", 2 * _BODY_BYTES),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_a_body_is_too_large_for_nginx_where_it_is_for_the_service(
    door: Door, path: str, bound: int, chunked: bool
) -> None:
    with door.client(door.operator) as client:
        largest, larger = (
            client.post(path, content=iter([b" " * size]) if chunked else b" " * size) for size in (bound, bound + 1)
        )
    assert largest.status_code in (400, 422), largest.text
    assert larger.status_code == 413
    told = larger.json()
    assert str(bound) in (told["error"] if "/v2/" in path else told["detail"])
    assert "/v2/" in path or (told["code"], told["setting"]) == ("body_too_large", _setting_of(path))


def _setting_of(path: str) -> str:
    others = {"/monitoring/logs": "FORETELL_MONITORING_MAX_BODY_BYTES", "/admin/models": "FORETELL_MAX_PACKAGE_BYTES"}
    return others.get(path, "FORETELL_MAX_BODY_BYTES")


def test_the_service_sees_the_true_address(door: Door) -> None:
    def register(source: str, name: str, forged: str | None = None) -> int:
        with door.client(transport=httpx.HTTPTransport(local_address=source)) as client:
            headers = {"X-Forwarded-For": forged, "X-Real-IP": forged, "Forwarded": f"for={forged}"} if forged else {}
            order = {"username": name, "password": _PASSWORD}
            return client.post("/users", json=order, headers=headers).status_code

    assert [register("127.0.0.7", f"seven-{n}") for n in range(3)] == [201] * 3
    assert register("127.0.0.7", "seven-3") == 429
    assert register("127.0.0.7", "seven-4", forged="127.0.0.8") == 429
    # Whoever is named so is none the worse for it.
    assert [register("127.0.0.7", f"of-nine-{n}", forged="127.0.0.9") for n in range(4)] == [429] * 4
    assert register("127.0.0.9", "nine") == 201


def test_what_is_worth_it_is_compressed(door: Door) -> None:
    with door.client(door.operator, headers={"Accept-Encoding": "gzip"}) as client:
        encoding = {
            path: client.get(path).headers.get("content-encoding")
            for path in (
                "/openapi.json", "/docs/swagger-ui.css", "/model/openapi.json", "/model/v2/models/flight-delay",
                "/balance", "/docs/favicon.png", "/webhooks",
            )
        }  # fmt: skip
        assert encoding == {
            "/openapi.json": "gzip",
            "/docs/swagger-ui.css": "gzip",
            "/model/openapi.json": "gzip",
            "/model/v2/models/flight-delay": None,
            "/balance": None,
            "/docs/favicon.png": None,
            "/webhooks": None,
        }
        assert client.get("/openapi.json").headers["vary"] == "Accept-Encoding"


def test_headers_are_there_once(door: Door) -> None:
    with door.client(door.user) as client:
        for path in ("/docs", "/balance", "/nothing", "/model/models", "/metrics"):
            names = [name for name, _ in client.get(path).headers.multi_items()]
            for name in ("x-content-type-options", "content-security-policy", "referrer-policy", "x-request-id"):
                assert names.count(name) == 1, (path, name)
            assert "strict-transport-security" not in names
        assert "script-src 'self'" in client.get("/docs").headers["content-security-policy"]
        assert client.get("/balance").headers["content-security-policy"].startswith("default-src 'none'")


def test_a_line_for_each_request_without_what_is_secret(door: Door) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-ID": "line-of-a-test", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with door.client(door.user, params={"secret": "never-told"}) as client:
        answer = client.get("/predictions/who-knows", headers=headers)
        assert answer.headers["x-request-id"] == "line-of-a-test"
    line = door.nginx.line_of("line-of-a-test")
    expected = {
        "route": "/predictions",
        "http.request.method": "GET",
        "http.response.status_code": answer.status_code,
        "trace.id": trace,
        "client.ip": "127.0.0.1",
        "message": "request_finished",
        "log.level": "info",
        "service.name": "nginx",
    }
    assert {name: line[name] for name in expected} == expected
    assert isinstance(line["event.duration"], int)
    written = door.nginx.access_log.read_text() + door.nginx.said()
    for secret in ("never-told", "who-knows", door.user, door.operator, _TOKEN, _PASSWORD):
        assert secret not in written
    # The app has the same id in its line.
    app = door.system.log_of(door.system.alive("app")[0])
    asyncio.run(asyncio.sleep(0.3))
    assert "line-of-a-test" in app or "line-of-a-test" in door.system.log_of(door.system.alive("app")[0])


def test_of_nginx_and_its_files_nothing_is_told(door: Door) -> None:
    with door.client() as client:
        for address in ("/-/operator", "/-/model", "/-/away.en.html", "/-/503", "/.well-known/acme-challenge/none"):
            answer = client.get(address)
            assert answer.status_code == 404
            assert answer.headers["server"] == "nginx"


def test_the_configuration_can_be_read_by_whoever_started_nginx_only(door: Door) -> None:
    assert door.nginx.configuration.stat().st_mode & 0o077 == 0
    assert Path(door.nginx.configuration.parent).stat().st_mode & 0o077 == 0
