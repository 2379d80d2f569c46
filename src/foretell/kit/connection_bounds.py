"""Limits for unauthenticated connections: size of head and body, and time.

uvicorn and its parser limit neither the size of a request's head nor the time for head and body, and an incomplete
request of a closed connection stays in memory until the garbage collector runs.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from foretell.kit import memory
from foretell.kit.asgi import HELD, Body
from foretell.kit.errors import ForetellError, Outcome
from foretell.kit.joined_writes import HttpProtocol
from foretell.kit.problems import problem_bytes

#: Incomplete heads and bodies are counted from this size on; most arrive in one piece.
_SMALL_BYTES = 1024
#: Approximate memory of a list, an object, and each further value in them after JSON parsing, in addition to their
#: characters: `[[],[],…` grows to twenty times its size. One number for all of them, because the characters that begin
#: them are counted in one pass. Fewer bytes than `_LIGHT_BYTES` are ignored.
_VALUE_BYTES = 40
_LIGHT_BYTES, _PART_BYTES = 256, 64 * 1024
#: After so many pieces of a body, the pieces must have so many bytes on average.
_FREE_PIECES, _SMALLEST_PIECE_BYTES = 1000, 32
#: What is around the chunks of a body may have this part of its size, and as much as a head.
_CHUNK_SHARE = 4
#: When so much memory was freed, it is worth some milliseconds to return it to the system.
_MUCH_BYTES = 16 * 1024 * 1024
#: Interval between checks of all connections.
_LOOK_EVERY_S = 1.0


class AddressTooLong(ForetellError):
    """The address is longer than the {max_bytes} bytes that a head may have (FORETELL_MAX_HEAD_BYTES)."""

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


class PiecesTooSmall(ForetellError):
    """The body comes in pieces of a few bytes each. Send it in larger ones."""

    code = "pieces_too_small"
    status = 400


class TooManyConnections(ForetellError):
    """The service has as many connections as it may have. Try again in a moment."""

    code = "too_many_connections"
    status = 503
    retry_after_s = 2.0


class TooMuchUnderWay(ForetellError):
    """The service is at work on as many bytes as it may. Try again in a moment."""

    code = "too_much_under_way"
    status = 503
    outcome: Outcome = "not_done"
    retry_after_s = 2.0


class BodyTooHeavy(ForetellError):
    """The body would take {bytes} bytes of memory, of {allowed} (FORETELL_MAX_BYTES_UNDER_WAY). Send less at once."""

    code = "body_too_heavy"
    status = 413


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one server."""

    head_bytes: int = 64 * 1024
    #: Time from the first byte of a request, or from the connection, to the end of the head.
    head_s: float = 20.0
    #: Time from there to the end of the body; and how long a client may leave an answer unread.
    body_s: float = 120.0
    connections: int = 4096
    #: Total of incomplete heads and bodies, and of bodies of unanswered requests with their parsed values.
    bytes_under_way: int = 32 * 1024 * 1024


class Intake:
    """The total use of all connections of one server."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.bytes_under_way = 0
        #: Bytes freed since memory was last returned to the system.
        self.let_go_bytes = 0
        #: Whether each answer closes its connection, because the server is about to stop.
        self.leaving = False
        #: The event loop's time at the last check; reading the clock for each request would cost more than the checks.
        self.moment = asyncio.get_running_loop().time()
        self._connections: set[Any] = set()

    async def watch(self) -> None:
        """Close overdue connections; runs forever."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self.bounds.head_s, self.bounds.body_s))
            if self.let_go_bytes > _MUCH_BYTES:
                self.let_go_bytes = 0
                memory.give_back()
            self.moment = asyncio.get_running_loop().time()
            self._close_overdue()

    def _close_overdue(self) -> None:
        for connection in list(self._connections):
            connection.close_if_overdue(self.moment)

    def leave(self) -> None:
        """Close each connection after its next answer."""
        self.leaving = True
        for connection in self._connections:
            if connection.cycle is not None:
                connection.cycle.keep_alive = False

    def add(self, connection: "BoundedProtocol") -> bool:
        """Count a connection; False if there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.bounds.connections

    def discard(self, connection: "BoundedProtocol") -> None:
        """A connection is gone."""
        self._connections.discard(connection)


class Held:
    """The bytes that one request uses, from its first byte until its answer is sent."""

    __slots__ = ("_bytes", "_intake")

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        #: Negative after `give_back`: later bytes are not counted.
        self._bytes = 0

    def grow_to(self, size: int) -> None:
        """So many bytes have arrived in all. Raises `TooMuchUnderWay`, `BodyTooHeavy`."""
        if self._bytes >= 0:
            self.grow(size - self._bytes)

    def grow(self, size: int) -> None:
        """So many more bytes are, or will be, in memory. Raises `TooMuchUnderWay`, `BodyTooHeavy`."""
        if self._bytes < 0:
            return
        allowed = self._intake.bounds.bytes_under_way
        if self._bytes + size > allowed:
            raise BodyTooHeavy(bytes=self._bytes + size, allowed=allowed)
        if self._intake.bytes_under_way + size > allowed:
            raise TooMuchUnderWay
        self._bytes += size
        self._intake.bytes_under_way += size

    def weigh(self, content: Body) -> None:
        """Count the memory for parsing `content` as JSON. Raises `TooMuchUnderWay`, `BodyTooHeavy`."""
        for start in range(0, len(content) if len(content) > _LIGHT_BYTES else 0, _PART_BYTES):
            # In parts, because each is copied, and the first may already exceed the limit.
            part = content[start : start + _PART_BYTES]
            self.grow(_VALUE_BYTES * (len(part) - len(part.translate(None, b"[{,"))))

    def give_back(self) -> None:
        """The answer was sent, or the request will not be handled."""
        if self._bytes > 0:
            self._intake.bytes_under_way -= self._bytes
            self._intake.let_go_bytes += self._bytes
        self._bytes = -1


#: What a connection is receiving. Plain numbers, because an enumeration would double the cost.
RESTING, HEAD, BODY = range(3)


class BoundedProtocol(HttpProtocol):
    """uvicorn's protocol with the limits of an `Intake`."""

    def __init__(self, *args: Any, intake: Intake, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.intake = intake
        self.bounds = intake.bounds
        #: Why the connection is being closed, if it is.
        self._refusal: ForetellError | None = None
        #: What is being received. The first head begins with the connection, later ones with their first byte.
        self.phase = HEAD
        self.receiving_since = self.intake.moment
        #: Bytes received while the head was incomplete.
        self.head_bytes = 0
        self.hosts = 0
        self.body_bytes = 0
        #: The same with what is around its chunks: their sizes and extensions, and the fields after the last one.
        #: Without what came together with the head.
        self.raw_bytes = 0
        #: The number of pieces of the body after the first.
        self.pieces = 0
        #: The counted bytes of the request that is being received, if it is not small.
        self.held: Held | None = None
        self._unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if not self.intake.add(self):
            self.refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed; free its incomplete request."""
        self.intake.discard(self)
        if self.held is not None:
            # It is incomplete, so no handler has it.
            self.held.give_back()
            self.held = None
        super().connection_lost(exc)
        self._drop_unfinished()
        for waiting, _ in self.pipeline:
            # Pipelined requests that were not started.
            cast(Any, waiting.scope)[HELD].give_back()
        # The handler has its own reference; ours would only make a cycle.
        self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived. Copied from uvicorn without upgrades, to save a call for each request."""
        if self._refusal is not None:
            return
        if self.phase != BODY:
            self.head_bytes += len(data)
        else:
            self.raw_bytes += len(data)
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
        if self.phase != RESTING:
            self._count_unfinished()

    # Subclasses call these at the right moment; the checks for most requests are inlined there.

    def check_head(self) -> None:
        """Check a complete head. Raises an error, which ends the parsing, if it is too large or invalid."""
        too_large = self.head_bytes > self.bounds.head_bytes and self._exact_head_bytes() > self.bounds.head_bytes
        if too_large:
            self._refusal = self._too_large()
        elif self.hosts > 1:
            self._refusal = SeveralHosts()
        if self._refusal is not None:
            raise self._refusal

    def count_piece(self) -> None:
        """Count another piece of a body. Raises `PiecesTooSmall`, which ends the parsing.

        Each piece costs some work, whatever its size, and the client chooses the size of its chunks.
        """
        self.pieces += 1
        if self.pieces > _FREE_PIECES and self.body_bytes < self.pieces * _SMALLEST_PIECE_BYTES:
            self._refusal = PiecesTooSmall()
            raise self._refusal

    def _count_unfinished(self) -> None:
        """Count an incomplete head or body."""
        in_head = self.phase == HEAD
        there = self.head_bytes if in_head else max(self.body_bytes, self.raw_bytes)
        if there <= _SMALL_BYTES or self.transport.is_closing():
            return
        if in_head and there > self.bounds.head_bytes:
            self.refuse(self._too_large())
        elif there - self.body_bytes > self.bounds.head_bytes + self.body_bytes // _CHUNK_SHARE and not in_head:
            self.refuse(HeadTooLarge(max_bytes=self.bounds.head_bytes))
        else:
            self.held = self.held or Held(self.intake)
            try:
                self.held.grow_to(there)
            except (TooMuchUnderWay, BodyTooHeavy) as error:
                self.refuse(error)
        if in_head and self._refusal is not None:
            # Frees the part of the head; nothing more is parsed.
            self.parser = None  # type: ignore[assignment]

    def _exact_head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_large(self) -> ForetellError:
        limit = self.bounds.head_bytes
        # Before the first header, everything received is the address.
        is_address = not self.headers or len(self.url) > limit
        return AddressTooLong(max_bytes=limit) if is_address else HeadTooLarge(max_bytes=limit)

    def send_400_response(self, msg: str) -> None:
        """The parser stopped: because of our error, or because the request is invalid."""
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self.refuse(self._refusal)

    def refuse(self, error: ForetellError) -> None:
        """Answer with `error` and close the connection."""
        # Without the traceback, because its frames would keep the received bytes in memory.
        self._refusal = error.with_traceback(None)
        self._drop_unfinished()
        status, headers, body = problem_bytes(error)
        head = [STATUS_LINE[status], *(b"%b: %b\r\n" % each for each in self.server_state.default_headers)]
        head += [b"%b: %b\r\n" % each for each in headers]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", body]))
        self.transport.close()

    def _drop_unfinished(self) -> None:
        """Free an incomplete request."""
        cycle: Any = self.cycle
        if self.phase == BODY and cycle is not None:
            # The attribute has different names in kit/direct.py and in uvicorn's cycle.
            setattr(cycle, "content" if hasattr(cycle, "content") else "body", bytearray())
        self.headers = []

    def on_response_complete(self) -> None:
        """An answer was sent. Free an unread body, since the connection may stay open for long."""
        cycle: Any = self.cycle
        if cycle is not None and cycle.response_complete and getattr(cycle, "body", None):
            cycle.body = bytearray()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client has read its answer."""
        super().resume_writing()
        self._unread_since = None

    def close_if_overdue(self, moment: float) -> None:
        """Close the connection if receiving a request, or sending an answer, takes too long."""
        if self._unread_since is not None and moment - self._unread_since > self.bounds.body_s:
            self.transport.abort()
        if self.phase == RESTING or self.transport.is_closing() or self.flow.read_paused:
            return
        in_head = self.phase == HEAD
        limit_s = self.bounds.head_s if in_head else self.bounds.head_s + self.bounds.body_s
        if moment - self.receiving_since <= limit_s:
            return
        if in_head and not self.head_bytes:
            # No byte was received, so send no error.
            self.transport.close()
        elif self.cycle is not None and getattr(self.cycle, "response_started", False):
            self.transport.abort()
        else:
            self.refuse(TooSlow(seconds=limit_s))
