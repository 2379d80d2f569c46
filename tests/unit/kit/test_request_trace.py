"""A request as part of a trace: what its log lines say, and its span where spans are recorded."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from structlog.testing import capture_logs
from tests.tracers import CALLER_ID, TRACE_ID, TRACEPARENT, Notebook, noted

from foretell.kit import tracing
from foretell.kit.asgi import Application, Receive, Scope, Send, respond
from foretell.kit.request_log import RequestLog
from foretell.kit.tracing import TraceContext

log = structlog.get_logger()


def _api() -> FastAPI:
    router = APIRouter()

    @router.get("/things/{thing_id}")
    async def show(thing_id: str) -> dict[str, Any]:
        context = tracing.current()
        bound = structlog.contextvars.get_contextvars()
        return {name: bound.get(name) for name in ("trace.id", "span.id")} | {
            "traceparent": context and context.traceparent,
            "tracestate": context and context.tracestate,
        }

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    api = FastAPI()
    api.include_router(router)
    return api


async def _get(
    path: str,
    headers: list[tuple[str, str]] | None = None,
    app: Application | None = None,
    method: str = "GET",
    **options: Any,
) -> httpx.Response:
    surrounded = RequestLog(app or _api(), paths=["/plain"], **options)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(surrounded), base_url="http://test") as client:
        return await client.request(method, path, headers=headers or [])


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert tracing.current() is None
    assert structlog.contextvars.get_contextvars() == {}


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    with noted() as notebook:
        yield notebook


async def test_a_trace_that_came_is_what_everything_belongs_to() -> None:
    seen = (
        await _get("/things/1", [("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")])
    ).json()
    assert seen == {
        "trace.id": TRACE_ID,
        "span.id": CALLER_ID,
        "traceparent": TRACEPARENT,
        "tracestate": "a=1,b=2",
    }


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("tracestate", "a=1")],
        [("traceparent", "nonsense")],
        [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        [("traceparent", "~" * 55)],
    ],
)
async def test_without_a_trace_there_is_none(headers: list[tuple[str, str]]) -> None:
    assert set((await _get("/things/1", headers)).json().values()) == {None}


async def test_the_line_of_the_request_names_the_trace() -> None:
    class Bound:
        """What is bound when a line is written, which `capture_logs` leaves out."""

        lines: list[dict[str, Any]] = []  # noqa: RUF012

        def __call__(self, logger: Any, method: str, event: Any) -> Any:
            self.lines.append({**structlog.contextvars.get_contextvars(), **event})
            raise structlog.DropEvent

    structlog.configure(processors=[Bound()])
    await _get("/things/1", [("traceparent", TRACEPARENT), ("x-request-id", "order-66")])
    await _get("/broken", [("traceparent", TRACEPARENT)])
    assert [line["event"] for line in Bound.lines] == ["request_finished", "request_failed", "request_finished"]
    assert {line["trace.id"] for line in Bound.lines} == {TRACE_ID}
    assert Bound.lines[0]["http.request.id"] == "order-66"


async def test_a_request_is_a_span_below_its_callers(notebook: Notebook) -> None:
    seen = (await _get("/things/secret?token=secret", [("traceparent", TRACEPARENT), ("tracestate", "a=1")])).json()
    (span,) = notebook.spans
    assert (span.name, span.kind, span.parent) == (
        "GET /things/{thing_id}",
        "server",
        TraceContext(TRACEPARENT, "a=1"),
    )
    assert span.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": "/things/{thing_id}",
        "http.response.status_code": 200,
    }
    assert (span.ended, span.error) == (True, "")
    # What goes on from here goes on from the span.
    assert seen["traceparent"] == span.context.traceparent
    assert (seen["trace.id"], seen["span.id"]) == (TRACE_ID, span.context.span_id)


async def test_a_request_that_comes_alone_begins_a_trace(notebook: Notebook) -> None:
    seen = (await _get("/things/1")).json()
    (span,) = notebook.spans
    assert span.parent is None
    assert seen["trace.id"] == span.context.trace_id


async def test_who_begins_no_traces_is_part_of_others_all_the_same(notebook: Notebook) -> None:
    assert (await _get("/things/1", begins_traces=False)).json()["trace.id"] is None
    assert notebook.spans == []
    await _get("/things/1", [("traceparent", TRACEPARENT)], begins_traces=False)
    assert notebook.named("GET /things/{thing_id}").context.trace_id == TRACE_ID


async def test_those_that_ask_all_day_begin_no_traces(notebook: Notebook) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"", b"text/plain")

    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        await _get(path, app=app)
    assert notebook.spans == []


async def test_what_fails_says_so(notebook: Notebook) -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("hunter2")

    await _get("/plain", app=gone)
    span = notebook.named("GET /plain")
    assert (span.error, span.attributes["http.response.status_code"]) == ("500", 500)
    assert "hunter2" not in str(notebook)
    await _get("/nowhere", method="BREW")
    other = notebook.named("HTTP")
    # That there is nothing there is the caller's mistake, and no failure of the service.
    assert (other.error, other.attributes["http.request.method"]) == ("", "_OTHER")
    assert "http.route" not in other.attributes


async def test_parameters_that_are_to_be_named_stand_in_the_line() -> None:
    with capture_logs() as lines:
        await _get("/things/66", named_parameters=["thing_id"])
        await _get("/things/66")
        await _get("/nowhere", named_parameters=["thing_id"])
    assert [line.get("thing_id") for line in lines] == ["66", None, None]
