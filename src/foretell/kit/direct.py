"""Answers the hot routes straight from the connection, past ASGI.

uvicorn makes a scope, an event and a task for every request, and an answer goes through two messages and three
functions: twice the time that the parser and the system need. A route on which speed depends gets its request here as
soon as its last byte is there, and its answer is written as one piece of bytes. Connections, parsing and the order of
pipelined requests stay uvicorn's. So does every request that is anything but plain (`_LOOKED_AT`): the same handler
answers it as an ASGI app.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from foretell.kit.asgi import HELD, Body, BodyTooLarge
from foretell.kit.connection_bounds import BODY, HEAD, RESTING, BoundedProtocol, Held
from foretell.kit.routing import Answer, Header, Paths, Request

#: Headers that ask for more than an answer, and the one that must not be there twice. A trace is followed, another
#: page's origin refused, and what is compressed unpacked, by whoever surrounds the ASGI app.
_LOOKED_AT = frozenset({b"expect", b"upgrade", b"traceparent", b"origin", b"host", b"content-encoding"})


class _Deaf:
    """Where uvicorn rings for a waiting ASGI app, and nobody waits."""

    def set(self) -> None:
        """Do nothing."""


_DEAF = _Deaf()


class Exchange(Request):
    """One request, read as a whole, and its answer. For uvicorn's protocol it is what a cycle of ASGI is."""

    __slots__ = (
        "_max_body_bytes", "_protocol", "content", "disconnected", "held", "keep_alive", "message_event",
        "response_complete", "room",
    )  # fmt: skip

    def __init__(
        self, protocol: "DirectProtocol", keep_alive: bool, max_body_bytes: int, parameters: Mapping[str, str]
    ) -> None:
        super().__init__(protocol.headers, parameters=parameters)
        self._protocol = protocol
        self._max_body_bytes = max_body_bytes
        #: How many more bytes the body may have; below zero it is too large.
        self.room = max_body_bytes
        #: Grows in place once it comes in several parts: a list of small ones would be many times as large.
        self.content: Body = b""
        self.held: Held | None = None
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = _DEAF

    async def body(self) -> Body:
        """The whole body. Raises `BodyTooLarge`."""
        return self.whole_body()

    def whole_body(self) -> Body:
        """The same, without waiting: it is there. Raises `BodyTooLarge`."""
        if self.room < 0:
            raise BodyTooLarge(max_bytes=self._max_body_bytes)
        return self.content

    def weigh(self, content: Body) -> None:
        """Count what `content` becomes in memory once it is read as JSON."""
        if self.held is None:
            self.held = Held(self._protocol.intake)
        self.held.weigh(content)

    def let_go(self) -> None:
        """Keep and count the body no more."""
        self.content = b""
        if self.held is not None:
            self.held.give_back()

    def send(self, answer: Answer, *headers: Header) -> None:
        """Write the answer, and `headers` with it, unless the client has gone."""
        self.response_complete = True
        # The connection keeps us until its next request, and counts the body no more.
        self.content = b""
        if self.held is not None:
            self.held.give_back()
        if self.disconnected:
            return
        parts = [STATUS_LINE[answer.status], self._protocol.default_head]
        for name, value in (*answer.headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", answer.body)
        self._protocol.write_answer(b"".join(parts), keep_alive=self.keep_alive)


#: Answers one request with `Exchange.send`: a coroutine does, or whatever it has set going. Never raises.
Respond = Callable[[Exchange], Coroutine[Any, Any, None] | None]


class DirectRoute:
    """POST to one path or template. `respond` may read bodies of up to `max_body_bytes`."""

    __slots__ = ("max_body_bytes", "respond")

    def __init__(self, respond: Respond, max_body_bytes: int) -> None:
        self.respond = respond
        self.max_body_bytes = max_body_bytes


#: What an address may hold to be taken for a path. Whatever means something else than itself (a query, `%20`) does not.
_is_plain = re.compile(rb"[A-Za-z0-9._~/-]+").fullmatch


class DirectRoutes:
    """Finds the route of an address, with the parameters in it."""

    def __init__(self, routes: Iterable[tuple[str, DirectRoute]] = ()) -> None:
        """By path or template."""
        routes = list(routes)
        self._paths = Paths(routes)
        #: Those that are no templates, by the bytes that come.
        self._addresses = {path.encode(): self._paths.find(path) for path, _ in routes if "{" not in path}

    def find(self, address: bytes) -> tuple[DirectRoute, Mapping[str, str]] | None:
        """None for what is not here, or perhaps not here."""
        found = self._addresses.get(address)
        return self._paths.find(address.decode("ascii")) if found is None and _is_plain(address) else found


class DirectProtocol(BoundedProtocol):
    """uvicorn's protocol, which leaves plain requests for `routes` to those."""

    def __init__(self, *args: Any, routes: DirectRoutes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._routes = routes
        self._route: DirectRoute | None = None
        self._plain = True
        #: Whether the last answer is out and no further request has begun.
        self._resting = False
        self._resting_since = 0.0
        self._patience: asyncio.TimerHandle | None = None
        headers = self.server_state.default_headers
        self.default_head = b"".join(b"%b: %b\r\n" % header for header in headers)

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins. Its scope is made when it turns out to need one."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._route = None
        self._plain = True
        self._resting = False
        self.phase = HEAD
        self.receiving_since = self.intake.moment
        self.hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the request."""
        name = name.lower()
        if name in _LOOKED_AT:
            if name == b"host":
                self.hosts += 1
            else:
                self._plain = False
            self.expect_100_continue = self.expect_100_continue or (
                name == b"expect" and value.lower() == b"100-continue"
            )
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The request's head is there: now it is known who answers."""
        self.phase = BODY
        if self.head_bytes > self.bounds.head_bytes or self.hosts > 1:
            self.check_head()
        self.head_bytes = 0
        if (
            self._plain
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and (found := self._routes.find(self.url)) is not None
        ):
            self._route, parameters = found
            keep_alive = self.parser.should_keep_alive() and not self.intake.leaving
            exchange = Exchange(self, keep_alive, self._route.max_body_bytes, parameters)
            self.cycle = cast(Any, exchange)
            return
        self._make_scope()
        super().on_headers_complete()
        if self.intake.leaving:
            self.cycle.keep_alive = False

    def _make_scope(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers += headers
        if self.held is None:
            self.held = Held(self.intake)
        cast(Any, self.scope)[HELD] = self.held

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.body_bytes += len(body)
        if self._route is None:
            self.count_piece()
            super().on_body(body)
            return
        exchange = cast(Exchange, self.cycle)
        if exchange.room >= 0:
            exchange.room -= len(body)
            if not exchange.content:
                exchange.content = body
            else:
                self.count_piece()
                if type(exchange.content) is bytes:
                    exchange.content = bytearray(exchange.content)
                exchange.content += body
            if exchange.room < 0:
                # Refused at once; what still comes is neither kept nor counted.
                self.held = self.held or Held(self.intake)
                self.held.give_back()
                exchange.content = b""
                self._respond(exchange)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self.phase = RESTING
        self.body_bytes = self.pieces = 0
        held, self.held = self.held, None
        if self._route is None:
            # Whoever answers through ASGI has it in the scope, and gives it back.
            super().on_message_complete()
            return
        exchange = cast(Exchange, self.cycle)
        if exchange.room >= 0:
            exchange.held = held
            self._respond(exchange)

    def _respond(self, exchange: Exchange) -> None:
        assert self._route is not None
        work = self._route.respond(exchange)
        if work is None:
            # When uvicorn stops, it waits for the connection, which stays open until its answer is out.
            return
        # For these tasks it waits too.
        task = self.loop.create_task(work)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    # What an exchange calls

    def write_answer(self, data: bytes, *, keep_alive: bool) -> None:
        """Write a whole answer; then the next request of this connection may begin."""
        self.joined.write_whole(data)
        if not keep_alive:
            self.transport.close()
        if self.pipeline or self.transport.is_closing():
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
            self._rest()
        if self.flow.write_paused and not self.transport.is_closing():
            # Who does not read their answers sends no more requests.
            self.flow.pause_reading()

    # One timer for a connection, that looks how long it has been resting; uvicorn's is made anew for every request,
    # which takes longer than to parse one.

    def _rest(self) -> None:
        self._resting = True
        self._resting_since = self.loop.time()
        if self._patience is None:
            self._patience = self.loop.call_later(self.timeout_keep_alive, self._look_whether_resting)

    def _look_whether_resting(self) -> None:
        self._patience = None
        if not self._resting:
            # The next answer begins a rest, and another timer.
            return
        left_s = self._resting_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._patience = self.loop.call_later(left_s, self._look_whether_resting)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """The client has read what waited for it."""
        super().resume_writing()
        self.flow.resume_reading()
