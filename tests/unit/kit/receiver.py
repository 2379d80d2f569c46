"""What stands for the monitoring service in these tests: a real HTTP server that keeps what it is sent."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 30.0


class Receiver:
    """Answers `status` to every post; while it holds, it takes requests and answers none of them."""

    def __init__(self) -> None:
        self.status = 200
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.going_on = threading.Event()
        self.going_on.set()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver.connections += 1
                receiver._sockets.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.going_on.wait(PATIENCE_S)
                if receiver.status == 200:
                    receiver.posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # A client that is gone, or our own end.

        self._sockets: list[Any] = []
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """End as one that is killed does: connections break."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            for connection in self._sockets:
                connection.close()
            self._server = None

    def lines(self) -> list[str]:
        """Every line that came, in the order of its coming."""
        return [line for path, _, body in list(self.posts) if path == "/logs" for line in body.decode().splitlines()]

    def heartbeats(self) -> list[dict[str, Any]]:
        """Every heartbeat that came."""
        return [json.loads(body) for path, _, body in list(self.posts) if path == "/heartbeats"]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.going_on.set()
        receiver.stop()


def await_true(condition: Callable[[], Any]) -> Any:
    """Wait until `condition()` is true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result
