"""Answers the hot routes directly from the connection, without ASGI.

uvicorn makes a scope, an event and a task for every request, and an answer passes through two messages and three
functions: twice the time that the parser and the system need. Here the handler of a hot route is called as soon as the
last byte of the request has arrived, and its answer is written in one piece. uvicorn still handles connections, parsing
and the order of pipelined requests. Requests that are not plain (`_LOOKED_AT`) go through ASGI to the same handler.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from foretell.kit.asgi import HELD, Body, BodyTooLarge
from foretell.kit.connection_bounds import BODY, HEAD, RESTING, BoundedProtocol, Held
from foretell.kit.routing import Answer, Header, Paths, Request

#: Requests with these headers go through ASGI: the middleware there continues traces, refuses other origins and
#: unpacks compressed bodies. `Host` is in the list because it must not occur twice.
_LOOKED_AT = frozenset({b"expect", b"upgrade", b"traceparent", b"origin", b"host", b"content-encoding"})


class _Deaf:
    """Replaces the event by which uvicorn wakes an ASGI app; here no app waits."""

    def set(self) -> None:
        """Do nothing."""


_DEAF = _Deaf()


class Exchange(Request):
    """One complete request and its answer. It takes the place of uvicorn's request cycle."""

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
        #: Remaining bytes of the body's limit; negative if the body is too large.
        self.room = max_body_bytes
        #: Grows in place if the body has several parts: a list of small parts would be many times as large.
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
        """The same without waiting, since it is complete. Raises `BodyTooLarge`."""
        if self.room < 0:
            raise BodyTooLarge(max_bytes=self._max_body_bytes)
        return self.content

    def weigh(self, content: Body) -> None:
        """Count the memory that `content` needs when it is parsed as JSON."""
        if self.held is None:
            self.held = Held(self._protocol.intake)
        self.held.weigh(content)

    def let_go(self) -> None:
        """Free the body and stop counting it."""
        self.content = b""
        if self.held is not None:
            self.held.give_back()

    def send(self, answer: Answer, *headers: Header) -> None:
        """Write the answer with additional `headers`, unless the client has gone."""
        self.response_complete = True
        # The connection keeps this object until its next request, so free the body now.
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


#: Answers one request with `Exchange.send`, in the returned coroutine or later. Never raises.
Respond = Callable[[Exchange], Coroutine[Any, Any, None] | None]


class DirectRoute:
    """POST to one path or template. `respond` may read bodies of up to `max_body_bytes`."""

    __slots__ = ("max_body_bytes", "respond")

    def __init__(self, respond: Respond, max_body_bytes: int) -> None:
        self.respond = respond
        self.max_body_bytes = max_body_bytes


#: Addresses without a query or escapes such as `%20`; only these are matched with paths here.
_is_plain = re.compile(rb"[A-Za-z0-9._~/-]+").fullmatch


class DirectRoutes:
    """Finds the route of an address, and its parameters."""

    def __init__(self, routes: Iterable[tuple[str, DirectRoute]] = ()) -> None:
        """By path or template."""
        routes = list(routes)
        self._paths = Paths(routes)
        #: Routes that are not templates, by the bytes of the path.
        self._addresses = {path.encode(): self._paths.find(path) for path, _ in routes if "{" not in path}

    def find(self, address: bytes) -> tuple[DirectRoute, Mapping[str, str]] | None:
        """None if the address has no route here, or is not plain."""
        found = self._addresses.get(address)
        return self._paths.find(address.decode("ascii")) if found is None and _is_plain(address) else found


class DirectProtocol(BoundedProtocol):
    """uvicorn's protocol; plain requests for `routes` are answered without ASGI."""

    def __init__(self, *args: Any, routes: DirectRoutes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._routes = routes
        self._route: DirectRoute | None = None
        self._plain = True
        #: Whether the last answer was sent and no further request has begun.
        self._resting = False
        self._resting_since = 0.0
        self._patience: asyncio.TimerHandle | None = None
        headers = self.server_state.default_headers
        self.default_head = b"".join(b"%b: %b\r\n" % header for header in headers)

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins. Its scope is created only if it goes through ASGI."""
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
        """One header of the request. Fields after a body in chunks are ignored, as RFC 9110 (6.5.1) allows."""
        if self.phase == BODY:
            return
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
        """The head is complete: decide whether the request goes through ASGI."""
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
                # Refused at once; the rest is neither stored nor counted.
                self.held = self.held or Held(self.intake)
                self.held.give_back()
                exchange.content = b""
                self._respond(exchange)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self.phase = RESTING
        self.body_bytes = self.raw_bytes = self.pieces = 0
        held, self.held = self.held, None
        if self._route is None:
            # For ASGI, `Held` is in the scope, and is returned there.
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
            # When uvicorn stops, it waits for the connection, which stays open until the answer is sent.
            return
        # uvicorn also waits for these tasks when it stops.
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
            # Read no more requests while the client does not read its answers.
            self.flow.pause_reading()

    # One timer per connection that checks how long it has been idle. uvicorn sets a new timer for every request,
    # which takes longer than parsing it.

    def _rest(self) -> None:
        self._resting = True
        self._resting_since = self.loop.time()
        if self._patience is None:
            self._patience = self.loop.call_later(self.timeout_keep_alive, self._look_whether_resting)

    def _look_whether_resting(self) -> None:
        self._patience = None
        if not self._resting:
            # The next answer starts another timer.
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
