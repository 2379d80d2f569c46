"""Routes on plain ASGI, for services with few of them that answer in microseconds.

A handler takes a `Request` and returns an `Answer`, or raises a `ForetellError`, which becomes a problem (RFC 9457)
unless the routes have another error format.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec
import structlog

from foretell.kit.asgi import BODY_SETTING, HELD, JSON, Body, ClientGone, Receive, Scope, Send, read_body
from foretell.kit.batching import Batcher
from foretell.kit.errors import ForetellError
from foretell.kit.problems import InternalError, InvalidRequest, MethodNotAllowed, NothingHere, problem_bytes
from foretell.kit.unpacking import ACCEPTED, UnknownEncoding, unpacked

log = structlog.get_logger()

Header = tuple[bytes, bytes]
Found = TypeVar("Found")

_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})

encode = msgspec.json.Encoder().encode


class Request(ABC):
    """A request for a handler. `parameters` are the parameters of the path."""

    __slots__ = ("headers", "line", "parameters", "query_string")

    def __init__(
        self, headers: Sequence[Header], query_string: bytes = b"", parameters: Mapping[str, str] = _NO_PARAMETERS
    ) -> None:
        #: Names are in lower case.
        self.headers = headers
        self.query_string = query_string
        self.parameters = parameters
        #: Additional fields for the log line of this request, set by the handler.
        self.line: Mapping[str, Any] = _NO_PARAMETERS

    def header(self, name: bytes) -> bytes | None:
        """The header of that name, in lower case; the first if there are several."""
        return next((value for key, value in self.headers if key == name), None)

    def query(self) -> dict[str, str]:
        """The parameters of the query; of several with one name the last. Raises `InvalidRequest`."""
        raw = self.query_string
        if not raw:
            return {}
        try:
            return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100))
        except ValueError:
            raise InvalidRequest([{"detail": "The query can't be read.", "parameter": ""}]) from None

    def query_value(self, name: str) -> str | None:
        """One parameter of the query; an empty one is absent. Raises `InvalidRequest`."""
        return self.query().get(name) or None

    @abstractmethod
    async def body(self) -> Body:
        """The whole body. Raises `BodyTooLarge` and `ClientGone`."""

    @abstractmethod
    def weigh(self, content: Body) -> None:
        """Before `content` is parsed as JSON, count the memory for it, until the answer is sent.

        Raises `BodyTooHeavy` and `TooMuchUnderWay`.
        """

    @abstractmethod
    def let_go(self) -> None:
        """Free the body and its parsed values before the answer is sent."""


class AsgiRequest(Request):
    """A request through ASGI."""

    __slots__ = ("_body_setting", "_held", "_max_body_bytes", "_receive", "peer")

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        max_body_bytes: int,
        parameters: Mapping[str, str] = _NO_PARAMETERS,
        body_setting: str = BODY_SETTING,
    ) -> None:
        super().__init__(scope["headers"], scope["query_string"], parameters)
        client = scope.get("client")
        #: The address of the other end of the connection.
        self.peer: str = client[0] if client else ""
        self._receive = receive
        self._max_body_bytes = max_body_bytes
        self._body_setting = body_setting
        #: None without a connection: the process calls itself.
        self._held = scope.get(HELD)

    def weigh(self, content: Body) -> None:
        """Count the memory that `content` needs when it is parsed as JSON."""
        if self._held is not None:
            self._held.weigh(content)

    def let_go(self) -> None:
        """Stop counting the body."""
        if self._held is not None:
            self._held.give_back()

    async def body(self) -> Body:
        """The whole body. Raises `BodyTooLarge` and `ClientGone`."""
        return await read_body(self._receive, self._max_body_bytes, self._body_setting)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, for handlers with their own limit. Raises `ClientGone`."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            yield message.get("body", b"")
            more = message.get("more_body", False)


class Answer(NamedTuple):
    """An answer. The headers include Content-Type and Content-Length."""

    status: int
    headers: list[Header]
    body: bytes


Handler = Callable[[Request], Awaitable[Answer]]
#: Makes the answer for the error of a request (for this path).
Explain = Callable[[ForetellError, str], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path; `{name}` in the path stands for one part of it, never empty. GET answers HEAD too."""

    method: str
    path: str
    handler: Handler


def json_answer(value: Any, status: int = 200, headers: Iterable[Header] = ()) -> Answer:
    """`value` as JSON."""
    return bytes_answer(encode(value), JSON, status, headers)


def bytes_answer(body: bytes, content_type: bytes, status: int = 200, headers: Iterable[Header] = ()) -> Answer:
    """`body` as it is."""
    return Answer(status, [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers], body)


def problem_answer(error: ForetellError, path: str) -> Answer:
    """`error` as a problem; 405 lists the allowed methods in `Allow`, 415 the encodings in `Accept-Encoding`."""
    status, headers, body = problem_bytes(error, path)
    return Answer(status, [*headers, *allowed(error)], body)


def allowed(error: ForetellError) -> list[Header]:
    """The headers with allowed methods or encodings, which are required in every error format."""
    if isinstance(error, UnknownEncoding):
        return [(b"accept-encoding", ACCEPTED)]
    return [(b"allow", error.details["allowed"].encode())] if isinstance(error, MethodNotAllowed) else []


class Pending(NamedTuple):
    """An answer that is made from the outcome of one item of a batch."""

    batcher: Batcher[Any, Any]
    item: Any
    #: Makes the answer. May raise a `ForetellError`.
    answer: Callable[[Any], Answer]


#: Starts the work for a request and its body: returns one item of a batch, or a coroutine that makes the answer. Both
#: may raise a `ForetellError`.
Begin = Callable[[Request, Body], Pending | Coroutine[Any, Any, Answer]]


class Batched:
    """A handler that for most requests only waits for one item in a batch.

    It can be used as an ordinary handler. `RequestLog.direct` answers many such requests from one batch without a task
    for each, because a task would cost more than the item.
    """

    def __init__(self, begin: Begin) -> None:
        self.begin = begin

    async def __call__(self, request: Request) -> Answer:
        """Answer one request."""
        begun = self.begin(request, await request.body())
        if not isinstance(begun, Pending):
            return await begun
        return begun.answer(await begun.batcher.enqueue(begun.item))


@dataclass(frozen=True, slots=True)
class HotRoute:
    """POST to a path that must be fast (`kit/direct.py`). `answer` raises only `ClientGone`.

    `path` may be a template, as for a `Route`.
    """

    path: str
    answer: Handler
    max_body_bytes: int
    #: The same in two steps, if the handler supports it.
    batched: Batched | None = None
    explain: Explain = problem_answer

    def explained(self, error: BaseException, request: Request) -> Answer:
        """The answer for an error of this route."""
        return explained(error, self.path.format(**request.parameters), self.explain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same route as an ASGI app."""
        request = AsgiRequest(scope, unpacked(scope, receive), self.max_body_bytes)
        try:
            answer = await self.answer(request)
        except ClientGone:
            return
        _name_in_line(scope, request)
        await send_answer(send, answer)


async def answered(handler: Handler, request: Request, path: str, explain: Explain = problem_answer) -> Answer:
    """The answer of `handler`, or the answer for its error. Raises `ClientGone`."""
    try:
        return await handler(request)
    except ClientGone:
        raise
    except Exception as error:
        return explained(error, path, explain)


def explained(error: BaseException, path: str, explain: Explain = problem_answer) -> Answer:
    """The answer for an error. An unexpected error is logged, and its text is not in the answer."""
    if not isinstance(error, ForetellError):
        log.error("request_failed", exc_info=error)
        return explain(InternalError(), path)
    if error.status == 500:
        log.error("request_failed", exc_info=error)
    return explain(error, path)


async def send_answer(send: Send, answer: Answer) -> None:
    """`answer` through ASGI."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def _name_in_line(scope: Scope, request: Request) -> None:
    if request.line:
        # The request log reads path parameters from the scope.
        scope["path_params"] = request.line


async def _nothing_here(request: Request) -> Answer:
    raise NothingHere


class Part(Protocol):
    """An ASGI app that answers for some paths: `kit.asgi.Operations`, `kit.swagger.Documentation`."""

    def handles(self, path: str) -> bool:
        """Whether a request for `path` belongs here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it."""


class Routes:
    """Calls the handler of a request's route, else the part that handles its path; otherwise answers 404."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        max_body_bytes: int,
        body_setting: str = BODY_SETTING,
        explain: Explain = problem_answer,
        parts: Iterable[Part] = (),
    ) -> None:
        """`body_setting` is the setting of `max_body_bytes`; empty if it is fixed."""
        self._max_body_bytes = max_body_bytes
        self._body_setting = body_setting
        self._explain = explain
        self._parts = tuple(parts)
        self._places: dict[str, _Place] = {}
        for route in routes:
            place = self._places.setdefault(route.path, _Place(route.path))
            place.handlers[route.method] = route.handler
        self._tree = Paths((place.path_format, place) for place in self._places.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        receive = unpacked(scope, receive)
        place, parameters = self._tree.find(path) or (None, _NO_PARAMETERS)
        if place is None:
            for part in self._parts:
                if part.handles(path):
                    await part(scope, receive, send)
                    return
        handler: Handler
        if place is None:
            handler = _nothing_here
        else:
            # The request log reads the template here.
            scope["route"] = place
            handler = place.handlers.get(scope["method"]) or self._other_method(place, scope["method"])
        request = AsgiRequest(scope, receive, self._max_body_bytes, parameters, self._body_setting)
        try:
            answer = await answered(handler, request, path, self._explain)
        except ClientGone:
            return
        _name_in_line(scope, request)
        await send_answer(send, answer)

    @property
    def paths(self) -> Iterable[str]:
        """The paths and templates of all routes."""
        return self._places.keys()

    def hot(self, path: str) -> HotRoute:
        """The route of POST to this path or template, for answers without ASGI."""
        handler = self._places[path].handlers["POST"]

        async def answer(request: Request) -> Answer:
            return await answered(handler, request, path.format(**request.parameters), self._explain)

        batched = handler if isinstance(handler, Batched) else None
        return HotRoute(path, answer, self._max_body_bytes, batched, self._explain)

    def _other_method(self, place: "_Place", method: str) -> Handler:
        if method == "HEAD" and "GET" in place.handlers:
            return place.handlers["GET"]
        allowed = sorted({*place.handlers, *(["HEAD"] if "GET" in place.handlers else [])})

        async def refuse(request: Request) -> Answer:
            raise MethodNotAllowed(method=method, allowed=", ".join(allowed))

        return refuse


class _Place:
    """One path with the handlers of its methods."""

    def __init__(self, path: str) -> None:
        #: The template, under the attribute name that frameworks use.
        self.path_format = path
        self.handlers: dict[str, Handler] = {}


class Paths(Generic[Found]):
    """Finds the value for a path among paths and templates: `{name}` matches one part of a path, never empty."""

    def __init__(self, places: Iterable[tuple[str, Found]]) -> None:
        self._exact: dict[str, Found] = {}
        #: By the number of their parts: the fixed parts with their places, the names with theirs, and what lies there.
        self._templates: dict[int, list[tuple[list[tuple[int, str]], list[tuple[int, str]], Found]]] = {}
        for path, found in places:
            if "{" not in path:
                self._exact[path] = found
                continue
            steps = path.split("/")
            names = [(place, step[1:-1]) for place, step in enumerate(steps) if step.startswith("{")]
            fixed = [(place, step) for place, step in enumerate(steps) if not step.startswith("{")]
            self._templates.setdefault(len(steps), []).append((fixed, names, found))

    def find(self, path: str) -> tuple[Found, Mapping[str, str]] | None:
        """The value and the path parameters, or None."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, _NO_PARAMETERS
        if not self._templates:
            return None
        steps = path.split("/")
        for fixed, names, found in self._templates.get(len(steps), ()):
            if all(steps[place] == step for place, step in fixed):
                parameters = {name: steps[place] for place, name in names}
                if all(parameters.values()):
                    return found, parameters
        return None
