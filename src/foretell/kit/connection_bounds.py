"""What a connection may take before anybody was asked for a password: a head, a body and time, all within bounds.

uvicorn and its parser bound neither the size of a request's head nor the time that head and body may take, and what a
client had sent when it hung up stays in memory until the garbage collector comes.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from foretell.kit.errors import ForetellError
from foretell.kit.joined_writes import HttpProtocol
from foretell.kit.problems import problem_bytes

#: Bodies of up to this are not counted: they come in one piece and are answered at once.
_SMALL_BODY_BYTES = 64 * 1024
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
        self._connections: set[Any] = set()

    async def watch(self) -> None:
        """Close connections that are over their time, for ever."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self.bounds.head_s, self.bounds.body_s))
            moment = asyncio.get_running_loop().time()
            for connection in list(self._connections):
                connection.close_if_overdue(moment)

    def add(self, connection: "BoundedProtocol") -> bool:
        """Take a connection in; False when there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.bounds.connections

    def discard(self, connection: "BoundedProtocol") -> None:
        """A connection is gone."""
        self._connections.discard(connection)


class BoundedProtocol(HttpProtocol):
    """uvicorn's protocol, within the bounds of an `Intake`."""

    def __init__(self, *args: Any, intake: Intake, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._intake = intake
        self._bounds = intake.bounds
        #: Why the connection is being closed, once it is.
        self._refusal: ForetellError | None = None
        self._in_head = True
        #: Whether the last byte of a request is still to come.
        self._receiving = True
        self._receiving_since = self.loop.time()
        #: Bytes that came while a head was not complete.
        self._head_bytes = 0
        self._hosts = 0
        self._body_bytes = 0
        #: How much of the body is counted among what is under way.
        self._counted_bytes = 0
        self._unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if not self._intake.add(self):
            self.refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and so is what it had sent of a request that nobody will answer."""
        self._intake.discard(self)
        self._forget_body()
        super().connection_lost(exc)
        cycle: Any = self.cycle
        if self._receiving and cycle is not None:
            cycle.content = cycle.body = b""
        # Whoever is at the request holds it; we would only keep it alive, and it us.
        self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        if self._refusal is not None:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self._bounds.head_bytes:
            self.refuse(self._too_large())

    def begin_request(self) -> None:
        """The first byte of a request is there."""
        self._receiving = True
        self._receiving_since = self.loop.time()
        self._hosts = 0

    def end_head(self) -> None:
        """The head is complete. Raises what is wrong with it, which ends the parsing."""
        self._in_head = False
        if self._head_bytes > self._bounds.head_bytes and self._exact_head_bytes() > self._bounds.head_bytes:
            self._refusal = self._too_large()
        elif self._hosts > 1:
            self._refusal = SeveralHosts()
        self._head_bytes = 0
        if self._refusal is not None:
            raise self._refusal

    def end_request(self) -> None:
        """The last byte of a request is there."""
        self._in_head = True
        self._receiving = False
        if self._body_bytes:
            self._forget_body()

    def count_body(self, length: int) -> None:
        """A part of a body is there. Raises `TooMuchUnderWay`, which ends the parsing."""
        self._body_bytes += length
        if self._body_bytes <= _SMALL_BODY_BYTES:
            return
        counted = self._body_bytes - self._counted_bytes
        self._counted_bytes += counted
        self._intake.bytes_under_way += counted
        if self._intake.bytes_under_way > self._bounds.bytes_under_way:
            self._refusal = TooMuchUnderWay()
            raise self._refusal

    def _forget_body(self) -> None:
        self._intake.bytes_under_way -= self._counted_bytes
        self._body_bytes = self._counted_bytes = 0

    def _exact_head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_large(self) -> ForetellError:
        limit = self._bounds.head_bytes
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
        if self._unread_since is not None and moment - self._unread_since > self._bounds.body_s:
            self.transport.abort()
        if not self._receiving or self.transport.is_closing() or self.flow.read_paused:
            return
        limit_s = self._bounds.head_s if self._in_head else self._bounds.head_s + self._bounds.body_s
        if moment - self._receiving_since <= limit_s:
            return
        if self._in_head and not self._head_bytes:
            # Who has said nothing is told nothing.
            self.transport.close()
        elif self.cycle is not None and getattr(self.cycle, "response_started", False):
            self.transport.abort()
        else:
            self.refuse(TooSlow(seconds=limit_s))
