"""Middleware of all routes: the request id, the trace, one log line, and the two HTTP metrics."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from itertools import count
from os import urandom
from time import perf_counter
from typing import Any, cast

import structlog
from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from foretell.kit import metrics, tracing
from foretell.kit.asgi import ASKED_WITHIN, Application, Headers, Message, Receive, Scope, Send, respond
from foretell.kit.direct import DirectRoute, DirectRoutes, Exchange, Respond
from foretell.kit.routing import Answer, Begin, HotRoute, Paths, Pending

log = structlog.get_logger()

#: The routes of `kit.asgi.Operations`.
OPERATIONS = ("/health", "/health/live", "/health/ready", "/metrics")

_ID_HEADER = b"x-request-id"
_STREAM = b"text/event-stream"
_LONGEST_ID = 128
_TRACEPARENT_HEADER = b"traceparent"
_TRACESTATE_HEADER = b"tracestate"
_UNMATCHED = "unmatched"
#: nginx's status for a client that left before it was answered.
_CLIENT_GONE = 499
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FAILED = (
    b'{"type":"about:blank","title":"Internal Server Error","status":500,"code":"internal_error",'
    b'"detail":"Something went wrong on our side. It was logged under the X-Request-ID of this answer."}'
)


_Count = Callable[[float], None]
_WriteLine = Callable[..., None]
# The variable that `bind_contextvars` uses; setting it directly is faster.
_REQUEST_ID: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}http.request.id")


class RequestLog:
    """Gives every request an id, returns it in the answer, logs one line (`request_finished`) and counts.

    An `X-Request-ID` of the request is kept if it is printable and at most 128 characters long. Paths, queries and
    bodies are never logged, because they may contain secrets; the template of the route is logged instead. An exception
    from `app` is logged, and answered with 500 unless the answer has begun.

    With a `traceparent`, the request and all its work belong to that trace (`kit/tracing.py`). If spans are recorded,
    the request is a span; without a `traceparent` it begins a trace, unless `begins_traces` is False.

    Routers put the route into the scope; `paths` (paths and templates) name requests that have none there: those of
    plain ASGI apps, and those that are refused before a router sees them. Lines of `quiet_routes`, which machines call
    regularly, are logged as `debug`, unless there was an error. Path parameters in `named_parameters` are logged with
    their values.

    `hot` are routes that `app` has, too; `direct` answers them without ASGI, with the same middleware.
    """

    def __init__(
        self,
        app: Application,
        *,
        paths: Iterable[str] = (),
        quiet_routes: Iterable[str] = OPERATIONS,
        named_parameters: Iterable[str] = (),
        begins_traces: bool = True,
        hot: Iterable[HotRoute] = (),
    ) -> None:
        self._app = app
        self._named_parameters = tuple(named_parameters)
        self._begins_traces = begins_traces
        self._paths = Paths((path, path) for path in (*paths, *OPERATIONS))
        self._quiet_routes = frozenset(quiet_routes)
        self._notes: dict[tuple[str, str, int], tuple[_Count, _WriteLine | None]] = {}
        self._direct = DirectRoutes(
            (route.path, DirectRoute(self._respond_to(route), route.max_body_bytes)) for route in hot
        )
        # Ids need only be unique, not secret: a random prefix and a counter.
        self._prefix = urandom(10).hex()
        self._number = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or ASKED_WITHIN in scope:
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id, has_trace = self._look_at(scope["headers"])
        header = (_ID_HEADER, request_id.encode())
        status = 0
        complete = False
        #: For a stream, the time until it began: its whole duration depends on the client and must not raise alerts.
        began_after_s: float | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status, complete, began_after_s
            if message["type"] == "http.response.start":
                status = message["status"]
                if _is_stream(message):
                    began_after_s = perf_counter() - started
                message["headers"] = [*message.get("headers", ()), header]
            elif not message.get("more_body"):
                complete = True
            await send(message)

        bound = _REQUEST_ID.set(request_id)
        span = self._begin(scope, has_trace) if has_trace or tracing.recording() else None
        entered = None if span is None else tracing.enter(span.context)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if status and not complete:
                # A part of the answer was sent, so only a broken connection can report the error. The server logs it.
                raise
            log.exception("request_failed")
            if not status:
                await respond(send_with_id, 500, _FAILED, b"application/problem+json")
        finally:
            took_s = perf_counter() - started if began_after_s is None else began_after_s
            self._finish(scope, status or _CLIENT_GONE, took_s)
            _REQUEST_ID.reset(bound)
            if span is not None and entered is not None:
                tracing.leave(entered)
                self._end(span, scope, status)

    @property
    def direct(self) -> DirectRoutes:
        """The hot routes without ASGI, with the same middleware; none while every request is a span."""
        return DirectRoutes() if tracing.recording() else self._direct

    def _respond_to(self, route: HotRoute) -> Respond:
        if route.batched is not None:
            return partial(self._answer_from_batch, route, route.batched.begin)
        return lambda exchange: self._answer_directly(route, exchange, route.answer(exchange))

    async def _answer_directly(self, route: HotRoute, exchange: Exchange, answering: Awaitable[Answer]) -> None:
        started = perf_counter()
        request_id, _ = self._look_at(exchange.headers)
        # The task has its own context, so nothing needs to be reset.
        _REQUEST_ID.set(request_id)
        try:
            answer = await answering
        except Exception as error:
            answer = route.explained(error, exchange)
        exchange.send(answer, (_ID_HEADER, request_id.encode()))
        self._note(route.path, "POST", answer.status, perf_counter() - started, exchange.line)

    def _answer_from_batch(self, route: HotRoute, begin: Begin, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """The same without a task: the item is added to its batch, and the answer is sent when the batch is done."""
        started = perf_counter()
        request_id, _ = self._look_at(exchange.headers)

        def receive(outcome: Any) -> None:
            # Set for the log lines of this request; the next one of the batch has another id.
            bound = _REQUEST_ID.set(request_id)
            try:
                answer = outcome if isinstance(outcome, BaseException) else make_answer(outcome)
            except Exception as error:
                answer = error
            if isinstance(answer, BaseException):
                answer = route.explained(answer, exchange)
            exchange.send(answer, (_ID_HEADER, request_id.encode()))
            self._note(route.path, "POST", answer.status, perf_counter() - started, exchange.line)
            _REQUEST_ID.reset(bound)

        try:
            begun = begin(exchange, exchange.whole_body())
            if not isinstance(begun, Pending):
                return self._answer_directly(route, exchange, begun)
            batcher, item, make_answer = begun
            batcher.enqueue_for(receive, item)
        except Exception as error:
            receive(error)
        return None

    def _look_at(self, headers: Headers) -> tuple[str, bool]:
        """The request's own id, or a new one; and whether it may have a trace."""
        given: bytes | None = None
        has_trace = False
        for name, value in headers:
            if name == _ID_HEADER:
                given = value if given is None else given
            elif name == _TRACEPARENT_HEADER:
                has_trace = True
        if given is not None and 0 < len(given) <= _LONGEST_ID:
            text = given.decode("latin-1")
            if text.isascii() and text.isprintable():
                return text, has_trace
        return f"{self._prefix}{next(self._number):08x}", has_trace

    def _begin(self, scope: Scope, has_trace: bool) -> tracing.Span | None:
        """The span of a request; None if it belongs to no trace and begins none."""
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        # The path is left out, because it may contain secrets.
        attributes = {"http.request.method": method, "url.scheme": scope.get("scheme", "http")}
        if has_trace:
            headers = scope["headers"]
            parent = tracing.parse(_texts(headers, _TRACEPARENT_HEADER), _texts(headers, _TRACESTATE_HEADER))
            if parent is not None:
                return tracing.begin(_span_name(method), "server", parent, attributes)
        if not self._begins_traces or scope["path"] in OPERATIONS:
            return None
        return tracing.begin_trace(_span_name(method), "server", attributes)

    def _end(self, span: tracing.Span, scope: Scope, status: int) -> None:
        route = self._route(scope)
        method = _span_name(scope["method"] if scope["method"] in _METHODS else "_OTHER")
        attributes: dict[str, str | int] = {}
        if route != _UNMATCHED:
            attributes["http.route"] = route
            method = f"{method} {route}"
        if status:
            attributes["http.response.status_code"] = status
        span.end(name=method, attributes=attributes, error=str(status) if status >= 500 else "")

    def _route(self, scope: Scope) -> str:
        """The template (`/predictions/{id}`): there are few templates, whatever clients request."""
        matched = scope.get("route")
        named = getattr(matched, "path_format", None) or getattr(matched, "path", None)
        if named:
            return cast("str", named)
        found = self._paths.find(scope["path"])
        return found[0] if found else _UNMATCHED

    def _finish(self, scope: Scope, status: int, duration_s: float) -> None:
        fields: dict[str, Any] = {}
        if self._named_parameters and (parameters := scope.get("path_params")):
            fields.update((name, parameters[name]) for name in self._named_parameters if name in parameters)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._note(self._route(scope), method, status, duration_s, fields)

    def _note(self, route: str, method: str, status: int, duration_s: float, fields: Mapping[str, Any]) -> None:
        notes = self._notes.get((route, method, status))
        if notes is None:
            notes = self._notes[route, method, status] = self._notes_for(route, method, status)
        count, write_line = notes
        count(duration_s)
        if write_line is not None:
            write_line("request_finished", **{"event.duration": int(duration_s * 1e9)}, **fields)

    def _notes_for(self, route: str, method: str, status: int) -> tuple[_Count, _WriteLine | None]:
        """The functions that count, time and log such a request (or None); cached, to avoid a look-up per request."""
        bound = log.bind(route=route, **{"http.request.method": method, "http.response.status_code": status})
        level = logging.DEBUG if status < 400 and route in self._quiet_routes else logging.INFO
        write_line = partial(bound.log, level) if bound.is_enabled_for(level) else None
        if route in OPERATIONS:
            # Health checks are not requests of users, and "not ready" is not a failure, so no rate includes them.
            return _count_nothing, write_line
        return metrics.HTTP_REQUESTS.counting(route, method, str(status)), write_line


def _is_stream(start: Message) -> bool:
    """Whether this begins server-sent events, which last as long as the client is connected."""
    return any(name == b"content-type" and value.startswith(_STREAM) for name, value in start.get("headers", ()))


def _count_nothing(duration_s: float) -> None:
    """Do nothing."""


def _texts(headers: Headers, wanted: bytes) -> list[str]:
    return [value.decode("latin-1").strip(" \t") for name, value in headers if name == wanted]


def _span_name(method: str) -> str:
    return "HTTP" if method == "_OTHER" else method
