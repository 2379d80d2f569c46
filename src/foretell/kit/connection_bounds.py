"""What a connection may take before anybody was asked for a password: a head, a body and time, all within bounds.

uvicorn and its parser bound neither the size of a request's head nor the time that head and body may take, and what a
client had sent when it hung up stays in memory until the garbage collector comes.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from foretell.kit.errors import ForetellError
from foretell.kit.joined_writes import HttpProtocol
from foretell.kit.problems import problem_bytes

#: Bodies of up to this are not counted: they come in one piece and are answered at once.
SMALL_BODY_BYTES = 64 * 1024
#: How often connections are looked at.
_LOOK_EVERY_S = 1.0


class AddressTooLong(ForetellError):
    """The address is longer than the {max_bytes} bytes that a request's head may have."""

    code = "address_too_long"
    status = 414


class HeadTooLarge(ForetellError):
    """The head of the request is larger than the {max_bytes} bytes that are allowed (FORETELL_MAX_HEAD_BYTES)."""

    code = "head_too_large"
    status = 431


class SeveralHosts(ForetellError):
    """The request has more than one Host header."""

    code = "several_hosts"
    status = 400


class TooSlow(ForetellError):
    """The request did not come within {seconds} s."""

    code = "request_too_slow"
    status = 408


class TooManyConnections(ForetellError):
    """The service has as many connections as it may have. Try again in a moment."""

    code = "too_many_connections"
    status = 503
    retry_after_s = 2.0


class TooMuchUnderWay(ForetellError):
    """The service is taking in as many large bodies as it may. Try again in a moment."""

    code = "too_much_under_way"
    status = 503
    retry_after_s = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one server."""

    head_bytes: int = 64 * 1024
    #: From the first byte of a request, or of a connection, to the end of its head.
    head_s: float = 20.0
    #: From there to the end of its body; and how long a client may leave an answer unread.
    body_s: float = 120.0
    connections: int = 4096
    #: Bodies that are being received, together, those of up to 64 KiB aside.
    bytes_under_way: int = 32 * 1024 * 1024


class Intake:
    """What all connections of one server take together."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.bytes_under_way = 0
        #: The event loop's time at the last look: asking the clock for each request would cost more than its bounds.
        self.moment = asyncio.get_running_loop().time()
        self._connections: set[Any] = set()

    async def watch(self) -> None:
        """Close connections that are over their time, for ever."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self.bounds.head_s, self.bounds.body_s))
            self.moment = asyncio.get_running_loop().time()
            for connection in list(self._connections):
                connection.close_if_overdue(self.moment)

    def add(self, connection: "BoundedProtocol") -> bool:
        """Take a connection in; False when there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.bounds.connections

    def discard(self, connection: "BoundedProtocol") -> None:
        """A connection is gone."""
        self._connections.discard(connection)


#: What a connection is receiving. Plain numbers: an enumeration takes as long as all the rest of it.
RESTING, HEAD, BODY = range(3)


class BoundedProtocol(HttpProtocol):
    """uvicorn's protocol, within the bounds of an `Intake`."""

    def __init__(self, *args: Any, intake: Intake, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.intake = intake
        self.bounds = intake.bounds
        #: Why the connection is being closed, once it is.
        self._refusal: ForetellError | None = None
        #: What is being received: a head is from the first byte of a connection on, later from that of each request.
        self.phase = HEAD
        self.receiving_since = self.intake.moment
        #: Bytes that came while a head was not complete.
        self.head_bytes = 0
        self.hosts = 0
        self.body_bytes = 0
        #: How much of the body is counted among what is under way.
        self._counted_bytes = 0
        self._unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if not self.intake.add(self):
            self.refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and so is what it had sent of a request that nobody will answer."""
        self.intake.discard(self)
        self.forget_body()
        super().connection_lost(exc)
        cycle: Any = self.cycle
        if self.phase == BODY and cycle is not None:
            cycle.content = cycle.body = b""
        # Whoever is at the request holds it; we would only keep it alive, and it us.
        self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Some bytes came. As uvicorn's, without upgrades; to call that would be one more call for each request."""
        if self._refusal is not None:
            return
        if self.phase != BODY:
            self.head_bytes += len(data)
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
            return
        if self.phase == HEAD and self.head_bytes > self.bounds.head_bytes:
            self.refuse(self._too_large())

    # A subclass calls these where it gets to know of it; what most requests need of them stands there, not here.

    def check_head(self) -> None:
        """The head is complete, and perhaps too large or wrong. Raises what it is, which ends the parsing."""
        too_large = self.head_bytes > self.bounds.head_bytes and self._exact_head_bytes() > self.bounds.head_bytes
        if too_large:
            self._refusal = self._too_large()
        elif self.hosts > 1:
            self._refusal = SeveralHosts()
        if self._refusal is not None:
            raise self._refusal

    def count_body(self) -> None:
        """More than a small body is there, `body_bytes` of it. Raises `TooMuchUnderWay`, which ends the parsing."""
        counted = self.body_bytes - self._counted_bytes
        self._counted_bytes += counted
        self.intake.bytes_under_way += counted
        if self.intake.bytes_under_way > self.bounds.bytes_under_way:
            self._refusal = TooMuchUnderWay()
            raise self._refusal

    def forget_body(self) -> None:
        """The body is complete, or will never be."""
        self.intake.bytes_under_way -= self._counted_bytes
        self.body_bytes = self._counted_bytes = 0

    def _exact_head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_large(self) -> ForetellError:
        limit = self.bounds.head_bytes
        # Before the first header, all that came is the address.
        return HeadTooLarge(max_bytes=limit) if self.headers else AddressTooLong(max_bytes=limit)

    def send_400_response(self, msg: str) -> None:
        """The parser gave up: because of us, or because it can't read the request."""
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self.refuse(self._refusal)

    def refuse(self, error: ForetellError) -> None:
        """Say `error` and close the connection."""
        self._refusal = error
        status, headers, body = problem_bytes(error)
        head = [STATUS_LINE[status], *(b"%b: %b\r\n" % each for each in self.server_state.default_headers)]
        head += [b"%b: %b\r\n" % each for each in headers]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", body]))
        self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client has read what waited for it."""
        super().resume_writing()
        self._unread_since = None

    def close_if_overdue(self, moment: float) -> None:
        """Close the connection when a request, or the reading of an answer, takes too long."""
        if self._unread_since is not None and moment - self._unread_since > self.bounds.body_s:
            self.transport.abort()
        if self.phase == RESTING or self.transport.is_closing() or self.flow.read_paused:
            return
        in_head = self.phase == HEAD
        limit_s = self.bounds.head_s if in_head else self.bounds.head_s + self.bounds.body_s
        if moment - self.receiving_since <= limit_s:
            return
        if in_head and not self.head_bytes:
            # Who has said nothing is told nothing.
            self.transport.close()
        elif self.cycle is not None and getattr(self.cycle, "response_started", False):
            self.transport.abort()
        else:
            self.refuse(TooSlow(seconds=limit_s))
