"""Posts to one HTTP server over one persistent connection, with a time limit for every step. Blocking."""

import http.client
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

NDJSON = "application/x-ndjson"

_LONGEST_ANSWER_BYTES = 64 * 1024


class NotReached(Exception):
    """The server is unreachable or not an HTTP server. The message says why."""


class Poster:
    """One connection to the server of `base_url` (`http://HOST:PORT` or `https://…`, with or without a path)."""

    def __init__(self, base_url: str, *, token: str, timeout_s: float) -> None:
        """`timeout_s` limits connecting, and each wait for the server afterwards. `token` may be empty."""
        parts = urlsplit(base_url)
        assert parts.hostname
        self.timeout_s = timeout_s
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._path = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPConnection | None = None

    @property
    def server(self) -> str:
        """Host and port of the server, without parts of the URL that may be secret."""
        return host_and_port(self._host, self._port)

    @property
    def local_host(self) -> str:
        """The address of this machine that the server sees; empty without a connection."""
        sock = self._connection.sock if self._connection is not None else None
        return str(sock.getsockname()[0]) if sock is not None else ""

    def post(self, path: str, body: bytes, content_type: str) -> int:
        """Send, and return the status of the answer; its body is ignored. Raises `NotReached`."""
        headers = {"Content-Type": content_type, **self._headers}
        may_be_stale = self._connection is not None
        while True:
            try:
                return self._post(path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A server may close an idle connection at any moment, and it may have been restarted.
                if not may_be_stale or isinstance(error, TimeoutError):
                    raise NotReached(str(error) or type(error).__name__) from error
                may_be_stale = False

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> int:
        connection = self._connected()
        connection.request("POST", self._path + path, body, dict(headers))
        response = connection.getresponse()
        response.read(_LONGEST_ANSWER_BYTES)
        if not response.isclosed():
            # The answer is larger than expected.
            self.close()
        return response.status

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._secure:
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=self.timeout_s, context=ssl.create_default_context()
                )
            else:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self.timeout_s)
            self._connection.connect()
        elif self._connection.sock is not None:
            self._connection.sock.settimeout(self.timeout_s)
        return self._connection

    def close(self) -> None:
        """Close the connection; the next post opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def host_and_port(host: str, port: int) -> str:
    """`HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
