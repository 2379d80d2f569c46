"""What a connection may take before anybody was asked for a password: a head, a body and time, all within bounds.

uvicorn and its parser bound neither the size of a request's head nor the time that head and body may take, and what a
client had sent when it hung up stays in memory until the garbage collector comes.
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

#: What is not there as a whole is counted from this size on; most heads and bodies come in one piece.
_SMALL_BYTES = 1024
#: What a list, an object, and each further value in them take in memory once they are read from JSON, about, besides
#: the characters that they are written in: `[[],[],…` grows to twenty times its size. One number for all of them, since
#: the signs that begin them are counted in one pass. Fewer bytes than `_LIGHT_BYTES` never matter.
_VALUE_BYTES = 40
_LIGHT_BYTES, _PART_BYTES = 256, 64 * 1024
#: So many pieces of a body may be small; then they must have so many bytes on average.
_FREE_PIECES, _SMALLEST_PIECE_BYTES = 1000, 32
#: When so much was let go, it is worth some milliseconds to give it back to the system.
_MUCH_BYTES = 16 * 1024 * 1024
#: How often connections are looked at.
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
    """The bounds of one server."""

    head_bytes: int = 64 * 1024
    #: From the first byte of a request, or of a connection, to the end of its head.
    head_s: float = 20.0
    #: From there to the end of its body; and how long a client may leave an answer unread.
    body_s: float = 120.0
    connections: int = 4096
    #: Heads and bodies that are being received, and bodies that are being answered with what they became, together.
    bytes_under_way: int = 32 * 1024 * 1024


class Intake:
    """What all connections of one server take together."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.bytes_under_way = 0
        #: Of what was under way, since memory was last given back to the system.
        self.let_go_bytes = 0
        #: Whether answers end their connections, since the server is about to stop.
        self.leaving = False
        #: The event loop's time at the last look: asking the clock for each request would cost more than its bounds.
        self.moment = asyncio.get_running_loop().time()
        self._connections: set[Any] = set()

    async def watch(self) -> None:
        """Close connections that are over their time, for ever."""
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
        """Have each connection end with its next answer."""
        self.leaving = True
        for connection in self._connections:
            if connection.cycle is not None:
                connection.cycle.keep_alive = False

    def add(self, connection: "BoundedProtocol") -> bool:
        """Take a connection in; False when there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.bounds.connections

    def discard(self, connection: "BoundedProtocol") -> None:
        """A connection is gone."""
        self._connections.discard(connection)


class Held:
    """What one request holds of the bytes under way: from its first bytes until its answer is out."""

    __slots__ = ("_bytes", "_intake")

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        #: Below zero once it was given back: what still comes is not kept.
        self._bytes = 0

    def grow_to(self, size: int) -> None:
        """So many bytes have come. Raises `TooMuchUnderWay`, `BodyTooHeavy`."""
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
        """`content` is about to be read as JSON. Raises `TooMuchUnderWay`, `BodyTooHeavy`."""
        for start in range(0, len(content) if len(content) > _LIGHT_BYTES else 0, _PART_BYTES):
            # In parts, since each is copied, and the first may be too much already.
            part = content[start : start + _PART_BYTES]
            self.grow(_VALUE_BYTES * (len(part) - len(part.translate(None, b"[{,"))))

    def give_back(self) -> None:
        """The answer is out, or nobody will ever begin with it."""
        if self._bytes > 0:
            self._intake.bytes_under_way -= self._bytes
            self._intake.let_go_bytes += self._bytes
        self._bytes = -1


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
        #: How many pieces of the body came after the first.
        self.pieces = 0
        #: What the request that is being received holds of the bytes under way, if it is not small.
        self.held: Held | None = None
        self._unread_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if not self.intake.add(self):
            self.refuse(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and so is what it had sent of a request that nobody will answer."""
        self.intake.discard(self)
        if self.held is not None:
            # It is not complete, so nobody has begun with it.
            self.held.give_back()
            self.held = None
        super().connection_lost(exc)
        self._drop_unfinished()
        for waiting, _ in self.pipeline:
            # Nobody will begin with these either.
            cast(Any, waiting.scope)[HELD].give_back()
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
        if self.phase != RESTING:
            self._count_unfinished()

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

    def count_piece(self) -> None:
        """One more piece of a body that comes in several. Raises `PiecesTooSmall`, which ends the parsing.

        Each costs us some work, whatever is in it; and the sender's chunks are the pieces.
        """
        self.pieces += 1
        if self.pieces > _FREE_PIECES and self.body_bytes < self.pieces * _SMALLEST_PIECE_BYTES:
            self._refusal = PiecesTooSmall()
            raise self._refusal

    def _count_unfinished(self) -> None:
        """More is to come of a head or a body."""
        in_head = self.phase == HEAD
        there = self.head_bytes if in_head else self.body_bytes
        if there <= _SMALL_BYTES or self.transport.is_closing():
            return
        if in_head and there > self.bounds.head_bytes:
            self.refuse(self._too_large())
        else:
            self.held = self.held or Held(self.intake)
            try:
                self.held.grow_to(there)
            except (TooMuchUnderWay, BodyTooHeavy) as error:
                self.refuse(error)
        if in_head and self._refusal is not None:
            # It has what came of the head, and nothing more is parsed.
            self.parser = None  # type: ignore[assignment]

    def _exact_head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_large(self) -> ForetellError:
        limit = self.bounds.head_bytes
        # Before the first header, all that came is the address.
        is_address = not self.headers or len(self.url) > limit
        return AddressTooLong(max_bytes=limit) if is_address else HeadTooLarge(max_bytes=limit)

    def send_400_response(self, msg: str) -> None:
        """The parser gave up: because of us, or because it can't read the request."""
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self.refuse(self._refusal)

    def refuse(self, error: ForetellError) -> None:
        """Say `error` and close the connection."""
        # Without the frames in which it was raised: what came lies in one of them, and would stay there with us.
        self._refusal = error.with_traceback(None)
        self._drop_unfinished()
        status, headers, body = problem_bytes(error)
        head = [STATUS_LINE[status], *(b"%b: %b\r\n" % each for each in self.server_state.default_headers)]
        head += [b"%b: %b\r\n" % each for each in headers]
        self.transport.write(b"".join([*head, b"connection: close\r\n\r\n", body]))
        self.transport.close()

    def _drop_unfinished(self) -> None:
        """Keep nothing of a request that is not complete."""
        cycle: Any = self.cycle
        if self.phase == BODY and cycle is not None:
            # An exchange of kit/direct.py has it under another name than a cycle of uvicorn's.
            setattr(cycle, "content" if hasattr(cycle, "content") else "body", bytearray())
        self.headers = []

    def on_response_complete(self) -> None:
        """An answer is out. What nobody has read of its request's body goes, since the connection may stay for long."""
        cycle: Any = self.cycle
        if cycle is not None and cycle.response_complete and getattr(cycle, "body", None):
            cycle.body = bytearray()
        super().on_response_complete()

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
