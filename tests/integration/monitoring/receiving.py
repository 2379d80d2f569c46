"""A real HTTP server that gets notices, and answers as a test wants it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


@dataclass(frozen=True)
class Got:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        """Its body."""
        return msgspec.json.decode(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer; `hang` gives none until the receiver is closed, `drip` never comes to its end."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    hang: bool = False
    drip: bool = False


class Receiver:
    """Answers with `replies`, one after the other, and then with the last of them again and again."""

    def __init__(self, port: int = 0) -> None:
        self.replies: list[Reply] = [Reply()]
        self.got: list[Got] = []
        self.closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append(Got(self.path, headers, body))
                reply = receiver.replies.pop(0) if len(receiver.replies) > 1 else receiver.replies[0]
                if reply.hang:
                    receiver.closing.wait()
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(reply.body) + 1000 * reply.drip))
                self.end_headers()
                self.wfile.write(reply.body)
                while reply.drip and not receiver.closing.wait(0.05):
                    self.wfile.write(b".")
                    self.wfile.flush()

            def do_GET(self) -> None:
                receiver.got.append(Got(self.path, {}, b"a redirect was followed"))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Who hangs up on us is what some tests are about."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Hang up, and listen no more."""
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def receiving(*replies: Reply, port: int = 0) -> Iterator[Receiver]:
    """A receiver that answers so; without `replies`, with 200."""
    receiver = Receiver(port)
    receiver.replies = list(replies) or receiver.replies
    try:
        yield receiver
    finally:
        receiver.close()
