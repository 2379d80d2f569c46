"""Models on another server: what is sent, what is read, and what becomes of servers that are away or talk nonsense."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, PackageBroken, load_package
from foretell.inference.registry import Registry
from foretell.inference.runtimes import load_runtime

MANIFEST = """
name = "remote"
version = "1.0.0"
title = {{ en = "Remote", ru = "Удалённая" }}
description = {{ en = "Elsewhere", ru = "В другом месте" }}
runtime = "remote"
price_credits = 1
timeout_s = 3
max_batch = 8
[options]
url = "{url}"
model = "a model/1"
timeout_s = 0.5
{more}
inputs = [
  {{ tensor = "name", datatype = "BYTES", features = ["name"], flat = true }},
  {{ tensor = "numbers", datatype = "FP32", features = ["a", "b"] }},
]
outputs = [
  {{ field = "sum", tensor = "sums", decimals = 2 }},
  {{ field = "second", tensor = "table", column = 1 }},
  {{ field = "row", tensor = "table" }},
]
"""
SCHEMA = {
    "type": "object",
    "required": ["name", "a", "b"],
    "properties": {"name": {"type": "string"}, "a": {"type": "number"}, "b": {"type": "number"}},
}

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


class Server:
    """A server of the Open Inference Protocol; `answer` makes its answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.connections = 0
        self.answer: Answer = _sums
        #: Whether it ends each connection after an answer, without saying so.
        self.hangs_up = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append((self.path, dict(self.headers), body))
                status, content = server.answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = self.close_connection or server.hangs_up

            def log_message(self, *_: Any) -> None:
                """Not to the terminal."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/prefix/"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _sums(body: dict[str, Any]) -> tuple[int, bytes]:
    flat = body["inputs"][1]["data"]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    outputs = [
        {"name": "sums", "datatype": "FP64", "shape": [len(pairs)], "data": [a + b for a, b in pairs]},
        {"name": "table", "datatype": "FP64", "shape": [len(pairs), 2], "data": [[a, b] for a, b in pairs]},
    ]
    return 200, json.dumps({"model_name": "m", "outputs": outputs}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


Remote = Callable[..., ModelPackage]


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    """A package of a model at `url`."""

    def make(url: str, more: str = "") -> ModelPackage:
        (tmp_path / "model.toml").write_text(MANIFEST.format(url=url, more=more))
        (tmp_path / "features.schema.json").write_text(json.dumps(SCHEMA))
        (tmp_path / "output.schema.json").write_text('{"type": "object"}')
        return load_package(tmp_path)

    return make


ROWS = [{"name": "ё", "a": 1, "b": 2.001}, {"name": "x", "a": 5, "b": 6}]


def test_a_batch_is_one_request(server: Server, remote: Remote) -> None:
    runtime = load_runtime(remote(server.url))
    assert runtime.predict(ROWS) == [
        {"sum": 3.0, "second": 2.001, "row": [1.0, 2.001]},
        {"sum": 11.0, "second": 6.0, "row": [5.0, 6.0]},
    ]
    ((path, headers, body),) = server.requests
    assert path == "/prefix/v2/models/a%20model%2F1/infer"
    assert headers["Content-Type"] == "application/json"
    assert body["inputs"] == [
        {"name": "name", "shape": [2], "datatype": "BYTES", "data": ["ё", "x"]},
        {"name": "numbers", "shape": [2, 2], "datatype": "FP32", "data": [1.0, 2.001, 5.0, 6.0]},
    ]
    assert body["outputs"] == [{"name": "sums"}, {"name": "table"}]
    runtime.predict(ROWS[:1])
    assert server.connections == 1


def test_version_and_token_are_sent(server: Server, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    package = remote(server.url, 'model_version = "3"\ntoken_variable = "REMOTE_TOKEN"')
    with pytest.raises(PackageBroken, match="REMOTE_TOKEN is not set"):
        load_runtime(package)
    monkeypatch.setenv("REMOTE_TOKEN", "let me in")
    load_runtime(package).predict(ROWS)
    ((path, headers, _),) = server.requests
    assert path.endswith("/versions/3/infer")
    assert headers["Authorization"] == "Bearer let me in"


def _outcomes(package: ModelPackage) -> list[Any]:
    with capture_logs():
        return list(Engine(Registry([package])).predict(package, ROWS, "features"))


AWAY = [Failure("model_error", "The model cannot be reached just now.")] * 2


def test_a_server_that_is_down_fails_the_rows_and_nothing_else(remote: Remote) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        package = remote(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert _outcomes(package) == AWAY


def test_a_server_that_never_answers_is_waited_for_once_a_batch(remote: Remote) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert _outcomes(remote(f"http://127.0.0.1:{silent.getsockname()[1]}")) == AWAY
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize(
    "answer",
    [
        (503, b"{}"),
        (404, b'{"error": "unknown model"}'),
        (302, b""),
        (200, b"<html>"),
        (
            200,
            b'{"outputs": [{"name": "sums", "shape": [2], "data": [1]}, {"name": "table", "shape": [1], "data": [1]}]}',
        ),
    ],
)
def test_an_answer_that_no_row_can_help_fails_all_after_one_request(
    server: Server, remote: Remote, answer: tuple[int, bytes]
) -> None:
    server.answer = lambda body: answer
    assert _outcomes(remote(server.url)) == AWAY
    assert len(server.requests) == 1


def test_only_the_row_that_the_server_refuses_fails(server: Server, remote: Remote) -> None:
    server.answer = lambda body: (400, b'{"error": "5"}') if 5.0 in body["inputs"][1]["data"] else _sums(body)
    good, bad = _outcomes(remote(server.url))
    assert good["sum"] == 3.0
    assert bad == Failure("model_error", "The model failed on this input.")


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew(server: Server, remote: Remote) -> None:
    runtime = load_runtime(remote(server.url))
    server.hangs_up = True
    assert runtime.predict(ROWS) == runtime.predict(ROWS) == runtime.predict(ROWS)
    assert (len(server.requests), server.connections) == (3, 3)


@pytest.mark.parametrize("url", ["triton:8000", "ftp://triton", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none(remote: Remote, url: str) -> None:
    with pytest.raises(PackageBroken, match="no address"):
        load_runtime(remote(url))
