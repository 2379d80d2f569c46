"""Sends POST requests to addresses that users gave: only to checked addresses, and reads little of the answer.

No redirects, no cookies, no proxies, no compression. Of the answer only the status and `Retry-After` are
used.
"""

import asyncio
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple, cast

import httptools

from foretell.kit.addresses import Addresses, Destination

#: A longer answer (head and body) is cut off.
_MAX_ANSWER_BYTES = 64 * 1024
#: How long the rest of an answer may take after its status.
_REST_TIMEOUT_S = 1.0
_CONNECT_TIMEOUT_S = 5.0
#: How many connections are kept open, and for how long; after that names are resolved and checked again.
_KEPT_PER_ORIGIN = 8
_MOST_KEPT = 512
_IDLE_S = 15.0
_LONGEST_KEPT_S = 300.0

Headers = Sequence[tuple[str, str]]


class Answer(NamedTuple):
    """The used parts of an answer."""

    status: int
    retry_after_s: float | None


class NotAnswered(Exception):
    """There was no answer. `reason` is a word: refused, timeout, unreachable, tls, reset, malformed."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time on it."""

    def __init__(self) -> None:
        self.opened_at = time.monotonic()
        self.idle_since = self.opened_at
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._status: asyncio.Future[Answer] | None = None
        self._whole: asyncio.Future[None] | None = None
        self._bytes = 0
        self._retry_after_s: float | None = None
        self._informational = False
        self._keep_alive = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._status is None:
            # Bytes without a request.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("malformed")
        else:
            if self._bytes > _MAX_ANSWER_BYTES:
                self._fail("malformed")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("reset")

    def _fail(self, reason: str) -> None:
        self.close()
        if self._status is not None and not self._status.done():
            self._status.set_exception(NotAnswered(reason))
        if self._whole is not None and not self._whole.done():
            self._whole.set_result(None)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            self._retry_after_s = float(value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._informational = 100 <= status < 200 and status != 101
        if self._informational:
            return
        self._keep_alive = self._parser.should_keep_alive() and status != 101
        if self._status is not None and not self._status.done():
            self._status.set_result(Answer(status, self._retry_after_s))

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            return
        if self._whole is not None and not self._whole.done():
            self._whole.set_result(None)

    # What we do.

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether it can be used for another request."""
        return self.is_open and self._keep_alive

    async def post(self, request: Sequence[bytes]) -> Answer:
        """Send a request and wait for the status of its answer. Raises `NotAnswered`."""
        loop = asyncio.get_running_loop()
        self._status, self._whole = loop.create_future(), loop.create_future()
        self._bytes, self._retry_after_s, self._keep_alive = 0, None, False
        if self._transport is None or self._transport.is_closing():
            raise NotAnswered("reset")
        self._transport.writelines(request)
        try:
            answer = await self._status
            if not self._whole.done() and self._keep_alive:
                await asyncio.wait((self._whole,), timeout=_REST_TIMEOUT_S)
            if not self._whole.done():
                self.close()
            return answer
        finally:
            if not self._status.done():
                # The exchange is incomplete.
                self.close()
            elif not self._status.cancelled():
                self._status.exception()
            self._status = None
            self.idle_since = time.monotonic()

    def close(self) -> None:
        """Close it at once, without sending the rest."""
        if self._transport is not None:
            self._transport.abort()


class Outgoing:
    """Sends POST requests, and keeps connections open for a moment. For one event loop."""

    def __init__(self, addresses: Addresses, *, timeout_s: float) -> None:
        """`timeout_s` bounds each post as a whole."""
        self._addresses = addresses
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None
        self._idle: OrderedDict[tuple[bool, str, int], deque[_Connection]] = OrderedDict()
        self._kept = 0

    async def post(self, destination: Destination, headers: Headers, body: bytes) -> Answer:
        """Post a body. Raises `NotAnswered`, and `AddressRefused` if no resolved address is allowed."""
        request = (_head(destination, headers, len(body)), body)
        try:
            async with asyncio.timeout(self._timeout_s):
                kept = self._take(destination)
                if kept is not None:
                    try:
                        return await self._post(kept, destination, request)
                    except NotAnswered as error:
                        # A server may close a kept connection at any moment, so send it again: the message has an id.
                        if error.reason != "reset":
                            raise
                return await self._post(await self._connect(destination), destination, request)
        except TimeoutError:
            raise NotAnswered("timeout") from None

    async def _post(self, connection: _Connection, destination: Destination, request: Sequence[bytes]) -> Answer:
        try:
            answer = await connection.post(request)
        except BaseException:
            connection.close()
            raise
        self._give_back(connection, destination)
        return answer

    async def _connect(self, destination: Destination) -> _Connection:
        loop = asyncio.get_running_loop()
        # Resolved and checked for every new connection, which then uses a checked address.
        addresses = await self._addresses.of(destination)
        reason = "unreachable"
        for address in addresses:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    if destination.secure:
                        _, connection = await loop.create_connection(
                            _Connection,
                            address,
                            destination.port,
                            ssl=self._context(),
                            server_hostname=destination.host,
                        )
                    else:
                        _, connection = await loop.create_connection(_Connection, address, destination.port)
            except ssl.SSLError:
                reason = "tls"
            except ConnectionRefusedError:
                reason = "refused"
            except TimeoutError:
                reason = "timeout"
            except OSError:
                reason = "unreachable"
            else:
                return connection
        raise NotAnswered(reason)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _take(self, destination: Destination) -> _Connection | None:
        idle = self._idle.get(destination.origin)
        while idle:
            connection = idle.pop()
            self._kept -= 1
            at = time.monotonic()
            if (
                connection.is_open
                and at - connection.idle_since < _IDLE_S
                and at - connection.opened_at < _LONGEST_KEPT_S
            ):
                return connection
            connection.close()
        self._idle.pop(destination.origin, None)
        return None

    def _give_back(self, connection: _Connection, destination: Destination) -> None:
        if not connection.is_reusable:
            connection.close()
            return
        idle = self._idle.setdefault(destination.origin, deque())
        self._idle.move_to_end(destination.origin)
        idle.append(connection)
        self._kept += 1
        if len(idle) > _KEPT_PER_ORIGIN:
            idle.popleft().close()
            self._kept -= 1
        while self._kept > _MOST_KEPT:
            _, oldest = self._idle.popitem(last=False)
            self._kept -= len(oldest)
            for each in oldest:
                each.close()

    def tidy(self) -> None:
        """Close connections that were idle for too long."""
        at = time.monotonic()
        for origin in list(self._idle):
            idle = self._idle[origin]
            while idle and at - idle[0].idle_since >= _IDLE_S:
                idle.popleft().close()
                self._kept -= 1
            if not idle:
                del self._idle[origin]

    def close(self) -> None:
        """Close every connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        self._kept = 0


def _head(destination: Destination, headers: Headers, length: int) -> bytes:
    lines = [
        f"POST {destination.target} HTTP/1.1",
        f"Host: {destination.host_header}",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
