"""Puts load on an app: N clients, each with one connection and one request at a time.

It uses transports directly, because it runs on the measured machine, where a general HTTP client would take more time
than the service.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit


@dataclass(slots=True)
class Load:
    """The results. Latencies in seconds, one per answered request, in the order of the answers."""

    duration_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    broken_connections: int = 0

    def percentile_s(self, percent: float) -> float:
        """The latency that `percent` of the requests did not exceed."""
        if not self.latencies_s:
            return float("nan")
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @property
    def per_second(self) -> float:
        """Requests answered with 200 or 202, a second."""
        return (self.statuses.get(200, 0) + self.statuses.get(202, 0)) / self.duration_s if self.duration_s else 0.0


class _Client(asyncio.Protocol):
    """Sends one request after the other until the time is over."""

    def __init__(
        self, load: Load, next_request: Callable[[], bytes], until: float, done: asyncio.Event, interval_s: float
    ) -> None:
        self._load = load
        self._next_request = next_request
        self._until = until
        self._done = done
        self._interval_s = interval_s
        self._due_at = 0.0
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked with isinstance, because uvloop's transports do not inherit from asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._due_at = time.perf_counter()
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if time.perf_counter() >= self._until or self._transport.is_closing():
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._next_request())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        length_at = head.find(b"content-length:")
        line_end = head.find(b"\r\n", length_at)
        length = int(head[length_at + 15 : line_end if line_end >= 0 else None])
        if len(self._buffer) < head_end + 4 + length:
            return
        self._buffer = self._buffer[head_end + 4 + length :]
        status = int(head[9:12])
        load = self._load
        load.latencies_s.append(time.perf_counter() - self._sent_at)
        load.statuses[status] = load.statuses.get(status, 0) + 1
        self._due_at += self._interval_s
        pause_s = self._due_at - time.perf_counter()
        if self._interval_s and pause_s > 0:
            asyncio.get_running_loop().call_later(pause_s, self._send)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None or time.perf_counter() < self._until:
            self._load.broken_connections += 1
        self._done.set()


async def put_load(
    url: str,
    *,
    clients: int,
    seconds: float,
    next_request: Callable[[], bytes],
    per_second: float | None = None,
) -> Load:
    """Let `clients` send the results of `next_request` (whole HTTP/1.1 requests) to `url` for `seconds`.

    Each sends its next request after its answer or, with `per_second`, at even intervals that give this total rate.
    Every answer must have a Content-Length. Unanswered requests at the end are waited for.
    """
    address = urlsplit(url)
    load = Load()
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    until = begun + seconds
    endings = [asyncio.Event() for _ in range(clients)]
    interval_s = clients / per_second if per_second else 0.0
    for done in endings:
        if interval_s:
            await asyncio.sleep(interval_s / clients)
        await loop.create_connection(
            lambda done=done: _Client(load, next_request, until, done, interval_s),  # type: ignore[misc]
            address.hostname or "127.0.0.1",
            address.port or 80,
        )
    async with asyncio.timeout(seconds + 60):
        for done in endings:
            await done.wait()
    load.duration_s = time.perf_counter() - begun
    return load


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A whole HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
