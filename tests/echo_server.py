"""An HTTP server that answers with what it was asked, as it came over the connection; and in odd ways, when told to."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What `/large` answers.
LARGE = b'{"value": "' + b"the same again and again, " * 400 + b'"}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "EchoServer"

    def do_GET(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.requests.append(self.requestline)
        if self.path.startswith("/break"):
            # It was read, and nobody says what became of it.
            self.close_connection = True
            return
        if self.path.startswith("/slow"):
            time.sleep(self.server.slow_s)
        if self.path == "/events":
            self._stream()
            return
        content, kind = LARGE, "application/json"
        if not self.path.startswith("/large"):
            asked: dict[str, Any] = {
                "line": self.requestline,
                "headers": [[name.lower(), value] for name, value in self.headers.items()],
                "body": body.decode("latin-1")[:1000],
                "name": self.server.name,
                "connection": self.client_address[1],
            }
            content = json.dumps(asked).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_GET

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (b"retry: 2000\n\n", b"data: done\n\n"):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
            self.server.go_on.wait(60)
        self.wfile.write(b"0\r\n\r\n")

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class EchoServer(ThreadingHTTPServer):
    """Listens on `host`; `name` is in its answers."""

    daemon_threads = True
    #: Threads that wait at keep-alive connections end with the process.
    block_on_close = False
    request_queue_size = 256

    def __init__(self, host: str = "127.0.0.1", port: int = 0, name: str = "echo") -> None:
        super().__init__((host, port), _Handler)
        self.name = name
        self.lock = threading.Lock()
        self.requests: list[str] = []
        self.status = 200
        self.slow_s = 0.0
        #: What `/events` waits for after its first words.
        self.go_on = threading.Event()
        self.headers: dict[str, str] = {}

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.server_address[0]!s}:{self.port}"


@contextmanager
def echoing(host: str = "127.0.0.1", port: int = 0, name: str = "echo") -> Iterator[EchoServer]:
    """A server, listening inside."""
    server = EchoServer(host, port, name)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
