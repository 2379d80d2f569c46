"""nginx as it ships, before a server that says what it was asked: what is passed on, refused, limited, repeated."""

import base64
import hashlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.echo_server import EchoServer, echoing
from tests.name_server import naming
from tests.ports import free_port
from tests.services_nginx import NewNginx, PrivateNginx, certificate, running

_TRUSTED = "127.0.0.6"


@pytest.fixture(scope="module")
def app() -> Iterator[EchoServer]:
    with echoing(name="app") as server:
        yield server


@pytest.fixture(scope="module")
def nginx(new_nginx: NewNginx, app: EchoServer) -> Iterator[PrivateNginx]:
    # Of the services, one stands for all that are there; the model service is away.
    settings = {f"{name}_UPSTREAM": app.address for name in ("APP", "MONITORING", "BOT", "PREPROCESSING")}
    with running(new_nginx(NGINX_TRUSTED_PROXIES=_TRUSTED, MONITORING_TOKEN="the-token-8c1f", **settings)) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def secure(new_nginx: NewNginx, app: EchoServer) -> Iterator[PrivateNginx]:
    nginx = new_nginx(APP_UPSTREAM=app.address)
    certificate(nginx.certificates)
    with running(nginx):
        yield nginx


def client_of(nginx: PrivateNginx, source: str = "127.0.0.1", **options: Any) -> httpx.Client:
    return httpx.Client(base_url=nginx.url, timeout=60, transport=httpx.HTTPTransport(local_address=source, **options))


def trusting(nginx: PrivateNginx, *, http2: bool = False) -> httpx.Client:
    """Somebody who believes in the certificate."""
    context = ssl.create_default_context(cafile=nginx.certificates / "fullchain.pem")
    return httpx.Client(base_url=nginx.secure_url, verify=context, http2=http2, timeout=60)


def headers_of(answer: httpx.Response) -> dict[str, list[str]]:
    """The headers that came to the server, each with all its values."""
    found: dict[str, list[str]] = {}
    for name, value in answer.json()["headers"]:
        found.setdefault(name, []).append(value)
    return found


def ask_raw(nginx: PrivateNginx, request: bytes) -> bytes:
    """What is answered to these bytes, until the connection is closed."""
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=60) as connection:
        answer = b""
        # A server that refuses a request before it has read it all closes with a reset; its answer comes before that.
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
        with suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def test_nginx_accepts_its_configuration_and_nothing_in_it_is_dangerous(nginx: PrivateNginx) -> None:
    tested = nginx.call("--test")
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr
    gixy = subprocess.run(
        [str(Path(sys.executable).with_name("gixy")), str(nginx.configuration)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert gixy.returncode == 0, gixy.stdout + gixy.stderr
    assert "No issues found" in gixy.stdout


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("APP_UPSTREAM", "app:8000; return 200"),
        ("APP_UPSTREAM", "app"),
        ("MONITORING_TOKEN", 'a"b'),
        ("NGINX_TRUSTED_PROXIES", "10.0.0.0/8 }"),
        ("NGINX_RATE", "many"),
        ("NGINX_RATE", "1\n2"),
        ("NGINX_MODEL_ACCESS", "somebody"),
        ("NGINX_ACCESS_LOG", "/dev/stdout; }"),
    ],
)
def test_a_setting_that_is_none_is_refused_by_name(new_nginx: NewNginx, setting: str, value: str) -> None:
    refused = new_nginx().call("--render", **{setting: value})
    assert refused.returncode == 1
    assert f"FORETELL_{setting}" in refused.stderr
    assert value not in refused.stderr


def test_a_token_may_be_in_a_file(new_nginx: NewNginx, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-a-file-3x\n")
    nginx = new_nginx(MONITORING_TOKEN_FILE=str(tmp_path / "token"))
    assert nginx.call("--render").returncode == 0
    assert "Bearer of-a-file-3x" in nginx.configuration.with_name("locations.conf").read_text()


def test_what_a_client_says_of_itself_is_not_passed_on(nginx: PrivateNginx) -> None:
    forged = {
        "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "elsewhere",
        "X-Real-IP": "1.2.3.4", "Forwarded": "for=1.2.3.4", "X-Forwarded-Prefix": "/elsewhere",
    }  # fmt: skip
    with client_of(nginx) as client:
        seen = headers_of(client.get("/users/me", headers=forged))
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == ["127.0.0.1"]
    assert seen["x-forwarded-proto"] == ["http"]
    assert seen["x-forwarded-host"] == seen["host"] == [f"127.0.0.1:{nginx.port}"]
    assert "forwarded" not in seen


def test_a_proxy_in_front_that_was_named_is_believed(nginx: PrivateNginx) -> None:
    forwarded = {"X-Forwarded-For": "1.2.3.4, 5.6.7.8", "X-Forwarded-Proto": "https"}
    with client_of(nginx, source=_TRUSTED) as client:
        seen = headers_of(client.get("/users/me", headers=forwarded))
    # What stands before the last address was written by the client.
    assert seen["x-forwarded-for"] == ["5.6.7.8"]
    assert seen["x-forwarded-proto"] == ["https"]


def test_addresses_are_passed_on_as_they_came(nginx: PrivateNginx) -> None:
    for path in ("/models/a%2Fb?x=%20&y=/../z", "/ui//double/./dots", "/%E2%82%AC?", "/x/../ui/%2e/"):
        for prefix in ("", "/preprocessing"):
            request = f"GET {prefix}{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
            asked = json.loads(ask_raw(nginx, request).partition(b"\r\n\r\n")[2])
            assert asked["line"] == f"GET {path} HTTP/1.1"


def test_what_a_service_behind_a_prefix_is_told(nginx: PrivateNginx) -> None:
    secrets = {"Cookie": "foretell_session=abc", "Authorization": "Bearer mine", "X-API-Key": "mine"}
    with client_of(nginx) as client:
        seen = headers_of(client.get("/preprocessing/models", headers=secrets))
        assert seen["x-forwarded-prefix"] == ["/preprocessing"]
        assert "cookie" not in seen
        seen = headers_of(client.post("/monitoring/logs", headers=secrets | {"Origin": "http://elsewhere"}, json=[1]))
        assert seen["authorization"] == ["Bearer the-token-8c1f"]
        assert seen["x-forwarded-prefix"] == ["/monitoring"]
        assert seen["host"] == ["localhost"]
        assert not {"cookie", "x-api-key", "origin"} & seen.keys()


def test_the_app_is_asked_who_may_see_monitoring_with_the_method_and_without_the_body(
    nginx: PrivateNginx, app: EchoServer
) -> None:
    with client_of(nginx) as client:
        app.requests.clear()
        assert client.post("/monitoring/logs", json=["body"]).json()["body"] == '["body"]'
    assert app.requests == ["POST /auth/operator HTTP/1.1", "POST /logs HTTP/1.1"]


def test_only_one_address_leads_to_the_bot(nginx: PrivateNginx) -> None:
    secret = {"X-Telegram-Bot-Api-Secret-Token": "its-secret"}
    with client_of(nginx) as client:
        seen = client.post("/telegram/webhook", headers=secret, content=b" " * 2_000_000).json()
    assert seen["line"] == "POST /telegram/webhook HTTP/1.1"
    assert ["x-telegram-bot-api-secret-token", "its-secret"] in seen["headers"]


def test_an_id_is_kept_if_it_can_be_one(nginx: PrivateNginx) -> None:
    with client_of(nginx) as client:
        assert headers_of(client.get("/", headers={"X-Request-ID": "mine-1"}))["x-request-id"] == ["mine-1"]
        for odd in ("with blank", "x" * 129, ""):
            (made,) = headers_of(client.get("/", headers={"X-Request-ID": odd}))["x-request-id"]
            assert made != odd
            assert len(made) == 32


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_what_two_could_read_in_two_ways_reaches_nobody(nginx: PrivateNginx, app: EchoServer, request_: bytes) -> None:
    app.requests.clear()
    answer = ask_raw(nginx, request_)
    assert answer.split(b" ", 2)[1] in (b"400", b"501"), answer
    assert app.requests == []


def test_names_with_an_underscore_do_not_pass_for_others(nginx: PrivateNginx) -> None:
    answer = ask_raw(nginx, b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\nConnection: close\r\n\r\n")
    assert b"1.2.3.4" not in answer


def test_the_head_has_the_bounds_of_the_services(nginx: PrivateNginx) -> None:
    with client_of(nginx) as client:
        assert client.get("/", headers={"X-Large": "x" * 40_000}).status_code == 200
        too_large = client.get("/", headers={"X-Large": "x" * 70_000})
        assert (too_large.status_code, too_large.json()["code"]) == (431, "head_too_large")
    too_long = ask_raw(nginx, b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 70_000))
    assert too_long.startswith(b"HTTP/1.1 414 ")
    assert b'"code":"address_too_long"' in too_long


def test_who_asks_too_often_is_told_to_wait(new_nginx: NewNginx, app: EchoServer) -> None:
    nginx = new_nginx(APP_UPSTREAM=app.address, NGINX_RATE="1", NGINX_BURST="3")
    with running(nginx), client_of(nginx) as client, client_of(nginx, source="127.0.0.5") as other:
        answers = [client.get("/balance") for _ in range(30)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        assert refused
        assert refused[0].headers["content-type"] == "application/problem+json"
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].json()["code"] == "too_many_requests"
        assert other.get("/balance").status_code == 200
        in_v2 = [client.get("/model/v2/models/x") for _ in range(30)]
        assert {"error"} in [answer.json().keys() for answer in in_v2 if answer.status_code == 429]


def test_nothing_is_limited_where_the_operator_says_so(new_nginx: NewNginx, app: EchoServer) -> None:
    with (
        running(new_nginx(APP_UPSTREAM=app.address, NGINX_RATE="0", NGINX_BURST="0")) as nginx,
        client_of(nginx) as client,
    ):
        assert {client.get("/balance").status_code for _ in range(50)} == {200}


def test_a_model_service_that_is_away(nginx: PrivateNginx) -> None:
    with client_of(nginx) as client:
        answer = client.post("/model/predict", json={})
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        problem = answer.json()
        assert problem["code"] == "unavailable"
        # No connection came about.
        assert problem["outcome"] == "not_done"
        assert client.get("/model/v2/health/ready").json().keys() == {"error"}


def test_a_page_for_people_when_the_app_is_away(new_nginx: NewNginx) -> None:
    with running(new_nginx()) as nginx, client_of(nginx) as client:
        words = {"en-GB,en;q=0.9": "not available right now", "ru-RU,ru;q=0.9": "недоступен", "de": "not available"}
        for language, expected in words.items():
            page = client.get("/", headers={"Accept": "text/html,*/*", "Accept-Language": language})
            assert page.status_code == 503
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["retry-after"] == "5"
            assert page.headers["cache-control"] == "no-store"
            assert expected in page.text
        # Programs hear what they can read, and a form that was sent is no page to look at.
        assert client.get("/balance").json()["code"] == "unavailable"
        assert client.post("/users", json={}, headers={"Accept": "text/html"}).json()["status"] == 503
        # Without the app nobody knows who an operator is.
        assert client.get("/monitoring/docs").status_code == 503


def test_whether_it_may_have_happened(nginx: PrivateNginx) -> None:
    with client_of(nginx) as client:
        assert client.post("/break").json()["outcome"] == "unknown"
        assert client.get("/break").json()["outcome"] == "not_done"


def test_what_may_be_repeated_is_asked_of_another_replica(new_nginx: NewNginx) -> None:
    """Two replicas, of which one breaks every request off."""
    with ExitStack() as stack:
        port = free_port()
        good = stack.enter_context(echoing("127.0.0.1", port, "good"))
        bad = stack.enter_context(_breaking("127.0.0.2", port))
        names = stack.enter_context(naming({"app.test": ["127.0.0.1", "127.0.0.2"]}))
        nginx = new_nginx(APP_UPSTREAM=f"app.test:{port}", NGINX_RESOLVER=names.address)
        stack.enter_context(running(nginx))
        client = stack.enter_context(client_of(nginx))
        order = {"model": "x", "input": {}}
        keyed = [
            client.post("/predictions/predict?a=b", json=order, headers={"Idempotency-Key": f"key-{n}"})
            for n in range(12)
        ]
        assert {answer.status_code for answer in keyed} == {200}
        assert {answer.json()["line"] for answer in keyed} == {"POST /predictions/predict?a=b HTTP/1.1"}
        assert {client.get("/balance").status_code for _ in range(12)} == {200}
        # What may not be repeated is sent once: some of it was broken off.
        good.requests.clear()
        broken_off = bad.count
        plain = [client.post("/predictions/predict", json=order) for _ in range(12)]
        failed = [answer for answer in plain if answer.status_code != 200]
        assert len(failed) == bad.count - broken_off
        assert len(good.requests) == 12 - len(failed)
        assert {answer.json()["outcome"] for answer in failed} <= {"unknown"}


class _Breaking:
    """Reads a request and closes the connection."""

    def __init__(self, host: str, port: int) -> None:
        self.count = 0
        self._listener = socket.create_server((host, port))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Breaking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(65536):
                    self.count += 1


def _breaking(host: str, port: int) -> _Breaking:
    return _Breaking(host, port)


def test_replicas_are_found_as_they_come_and_go(new_nginx: NewNginx) -> None:
    port = free_port()
    with ExitStack() as stack:
        names = stack.enter_context(naming({"app.test": ["127.0.0.1"]}))
        stack.enter_context(echoing("127.0.0.1", port, "first"))
        nginx = new_nginx(
            APP_UPSTREAM=f"app.test:{port}", NGINX_RESOLVER=names.address, NGINX_RESOLVE_S="1", NGINX_RATE="0"
        )
        stack.enter_context(running(nginx))
        client = stack.enter_context(client_of(nginx))
        _wait_for_replicas(client, {"first"})
        with echoing("127.0.0.2", port, "second"):
            names.names["app.test"] = ["127.0.0.1", "127.0.0.2"]
            _wait_for_replicas(client, {"first", "second"})
            names.names["app.test"] = ["127.0.0.2"]
            _wait_for_replicas(client, {"second"})
            names.names["app.test"] = ["127.0.0.1"]
            _wait_for_replicas(client, {"first"})


def _wait_for_replicas(client: httpx.Client, expected: set[str]) -> None:
    deadline = time.monotonic() + 60
    seen: set[str] = set()
    while time.monotonic() < deadline:
        answers = [client.get("/balance") for _ in range(16)]
        # Nobody notices.
        assert {answer.status_code for answer in answers} == {200}
        seen = {answer.json()["name"] for answer in answers}
        if seen == expected:
            return
    raise TimeoutError(f"{seen} answer, and {expected} should")


def test_a_name_that_is_not_there_yet_is_no_reason_not_to_start(new_nginx: NewNginx) -> None:
    port = free_port()
    with naming({}) as names, echoing("127.0.0.1", port, "late"):
        nginx = new_nginx(APP_UPSTREAM=f"app.test:{port}", NGINX_RESOLVER=names.address, NGINX_RESOLVE_S="1")
        with running(nginx), client_of(nginx) as client:
            assert client.get("/balance").status_code == 503
            names.names["app.test"] = ["127.0.0.1"]
            deadline = time.monotonic() + 60
            while (answer := client.get("/balance")).status_code != 200:
                assert time.monotonic() < deadline, answer.text
                time.sleep(0.1)


def test_http_leads_to_https_where_there_are_certificates(secure: PrivateNginx) -> None:
    with client_of(secure) as client:
        answer = client.get("/ui/models?x=1", headers={"Host": f"localhost:{secure.port}"})
        assert answer.status_code == 308
        assert answer.headers["location"] == f"{secure.secure_url}/ui/models?x=1"
        # Whoever looks after nginx, and whoever brings certificates, come by HTTP.
        assert client.get("/nginx-health").text == "ok\n"
        challenge = secure.run / "acme" / ".well-known" / "acme-challenge" / "token"
        challenge.parent.mkdir(parents=True)
        challenge.write_text("proof")
        for each in (challenge.parent, challenge.parent.parent):
            each.chmod(0o755)
        challenge.chmod(0o644)
        assert client.get("/.well-known/acme-challenge/token").text == "proof"


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_https(secure: PrivateNginx, http2: bool) -> None:
    with trusting(secure, http2=http2) as client:
        answer = client.post("/users", json={"a": 1})
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        seen = headers_of(answer)
        assert seen["x-forwarded-proto"] == ["https"]
        assert seen["host"] == [f"localhost:{secure.secure_port}"]
        assert client.get("/large", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


def test_old_tls_is_refused(secure: PrivateNginx) -> None:
    context = ssl.create_default_context(cafile=secure.certificates / "fullchain.pem")
    with (
        socket.create_connection(("127.0.0.1", secure.secure_port)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        assert connection.version() == "TLSv1.3"
    old = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.secure_port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Cipher is (NONE)" in old.stdout


def test_redirects_name_the_port_that_the_outside_knows(new_nginx: NewNginx) -> None:
    nginx = new_nginx(HTTPS_PORT="8443")
    certificate(nginx.certificates)
    with running(nginx):
        answer = httpx.get(f"{nginx.url}/ui/x?y=1")
        assert (answer.status_code, answer.headers["location"]) == (308, "https://127.0.0.1:8443/ui/x?y=1")


def test_who_speaks_http_to_the_secure_port_is_led_there(secure: PrivateNginx) -> None:
    answer = httpx.get(f"http://localhost:{secure.secure_port}/ui/x", headers={"Host": "localhost"})
    assert (answer.status_code, answer.headers["location"]) == (308, f"{secure.secure_url}/ui/x")


def test_certificates_come_and_are_renewed_while_nginx_runs(new_nginx: NewNginx, app: EchoServer) -> None:
    nginx = new_nginx(APP_UPSTREAM=app.address)
    with running(nginx), client_of(nginx) as client:
        assert client.get("/balance").status_code == 200
        certificate(nginx.certificates)
        _wait_for_secure(nginx)
        # Connections that were open before go on as they were, and a worker of before may take one more.
        _wait_until(lambda: httpx.get(f"{nginx.url}/balance").status_code == 308, nginx)
        first = (nginx.certificates / "fullchain.pem").read_text()
        # Half of a renewal is not used, and what was there stays.
        (nginx.certificates / "fullchain.pem").write_text("no certificate")
        _wait_until(lambda: "not used" in nginx.said(), nginx)
        assert _shown_by(nginx) == first.strip()
        certificate(nginx.certificates)
        _wait_until(lambda: _shown_by(nginx) != first.strip(), nginx)
        with trusting(nginx) as believing:
            assert believing.get("/balance").status_code == 200


def _wait_for_secure(nginx: PrivateNginx) -> None:
    def is_secure() -> bool:
        with trusting(nginx) as client:
            return client.get("/balance").status_code == 200

    _wait_until(is_secure, nginx)


def _wait_until(holds: Callable[[], bool], nginx: PrivateNginx) -> None:
    """Ask until it holds. A connection that a worker took just before it ended breaks off."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError, OSError):
            if holds():
                return
        time.sleep(0.1)
    raise TimeoutError(nginx.said())


def _shown_by(nginx: PrivateNginx) -> str:
    return ssl.get_server_certificate(("127.0.0.1", nginx.secure_port)).strip()


def test_a_restart_of_nginx_ends_what_is_under_way(new_nginx: NewNginx, app: EchoServer) -> None:
    """Told to stop politely (SIGQUIT, as a container is), nginx answers what it has taken."""
    nginx = new_nginx(APP_UPSTREAM=app.address)
    nginx.start()
    app.slow_s = 1.0
    try:
        with ThreadPoolExecutor(8) as pool, client_of(nginx) as client:
            asked = [pool.submit(client.get, "/slow") for _ in range(8)]
            deadline = time.monotonic() + 60
            while sum("/slow" in line for line in app.requests) < 8 and time.monotonic() < deadline:
                time.sleep(0.01)
            nginx.stop_politely()
            assert {each.result().status_code for each in asked} == {200}
    finally:
        app.slow_s = 0.0
        nginx.remove()


@pytest.mark.parametrize(
    ("access", "statuses"),
    [
        ("everybody", {"allowed": 200, "refused": 200}),
        ("users", {"allowed": 200, "refused": 403}),
        ("operators", {"allowed": 200, "refused": 403}),
        ("nobody", {"allowed": 404, "refused": 404}),
    ],
)
def test_who_may_ask_the_services_that_ask_for_no_password(
    new_nginx: NewNginx, access: str, statuses: dict[str, int]
) -> None:
    with echoing(name="model") as model, echoing(name="app") as app:
        nginx = new_nginx(
            APP_UPSTREAM=app.address,
            MODEL_UPSTREAM=model.address,
            PREPROCESSING_UPSTREAM=model.address,
            NGINX_MODEL_ACCESS=access,
        )
        with running(nginx), client_of(nginx) as client:
            for name, answered in (("allowed", 200), ("refused", 403)):
                app.status = answered
                for path in ("/model/predict", "/model/v2/models/x/infer", "/preprocessing/preprocess"):
                    assert client.post(path, json={}).status_code == statuses[name], path
        asked = {"users": "/auth/user", "operators": "/auth/operator"}.get(access)
        assert {line.split()[1] for line in app.requests} == ({asked} if asked else set())


def test_in_production_they_are_for_operators(new_nginx: NewNginx) -> None:
    nginx = new_nginx(ENVIRONMENT="production")
    assert nginx.call("--render").returncode == 0
    assert "auth_request /-/operator;" in nginx.configuration.with_name("model.conf").read_text()


def test_the_style_of_its_pages_is_allowed_by_its_hash(nginx: PrivateNginx) -> None:
    with client_of(nginx) as client:
        policy = client.get("/model/docs", headers={"Accept": "text/html"}).headers["content-security-policy"]
    for page in (nginx.run / "pages" / "-").glob("*.html"):
        style = re.search(r"<style>(.*)</style>", page.read_text(), re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy, page.name


def test_lines_of_the_log_are_json_whatever_was_asked(nginx: PrivateNginx) -> None:
    ask_raw(nginx, b'GET /"\\\xff HTTP/1.1\r\nHost: a\r\nX-Request-ID: odd-"line\r\nConnection: close\r\n\r\n')
    line = nginx.line_of('odd-"line')
    assert line["route"] == "unmatched"
    assert json.dumps(line)
