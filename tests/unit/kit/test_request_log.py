"""Request ids, the line per request, and the metrics."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from prometheus_client import REGISTRY
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from foretell.kit.asgi import Application, Receive, Scope, Send, respond
from foretell.kit.request_log import RequestLog

log = structlog.get_logger()


def _api() -> FastAPI:
    router = APIRouter()

    @router.get("/things/{thing_id}")
    async def show(thing_id: str) -> dict[str, str]:
        return structlog.contextvars.get_contextvars()

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    @router.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("broken")

        return StreamingResponse(parts())

    api = FastAPI()
    api.include_router(router)
    return api


async def _get(path: str, app: Application | None = None, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(RequestLog(app or _api(), paths=["/plain"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers=headers)


@pytest.fixture
def lines() -> Any:
    with capture_logs() as captured:
        yield captured


async def test_an_id_that_came_is_kept_bound_and_answered() -> None:
    response = await _get("/things/1", **{"X-Request-ID": "order 66"})
    assert response.headers["x-request-id"] == "order 66"
    assert response.json() == {"http.request.id": "order 66"}
    assert structlog.contextvars.get_contextvars() == {}


@pytest.mark.parametrize("given", ["", "x" * 129, "\x7f", "é", "a\tb"])
async def test_an_id_that_could_do_harm_is_replaced(given: str) -> None:
    app = RequestLog(_api())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = _scope("/things/1", headers=[(b"x-request-id", given.encode("latin-1"))])
    await app(scope, _nothing, send)
    answered = dict(sent[0]["headers"])[b"x-request-id"].decode()
    assert answered != given
    assert answered.isalnum()


async def test_made_ids_differ() -> None:
    app = _api()
    assert len({(await _get("/things/1", app)).headers["x-request-id"] for _ in range(5)}) == 5


async def test_the_line_says_the_template_and_neither_path_nor_query(lines: list[dict[str, Any]]) -> None:
    await _get("/things/secret?token=secret")
    (line,) = lines
    assert [line[name] for name in ("event", "route", "http.request.method", "http.response.status_code")] == [
        "request_finished",
        "/things/{thing_id}",
        "GET",
        200,
    ]
    assert isinstance(line["event.duration"], int)
    assert "secret" not in str(line)


async def test_addresses_that_lead_nowhere_share_one_label(lines: list[dict[str, Any]]) -> None:
    def count() -> float:
        labels = {"route": "unmatched", "method": "GET", "status": "404"}
        return REGISTRY.get_sample_value("foretell_http_requests_total", labels) or 0.0

    before = count()
    for number in range(3):
        await _get(f"/nothing/{number}")
    assert count() == before + 3
    assert {line["route"] for line in lines} == {"unmatched"}


async def test_a_method_that_nobody_knows_shares_one_label() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 405, b"", b"text/plain")

    await RequestLog(app)(_scope("/plain", method="BREW"), _nothing, _ignore)
    labels = {"route": "unmatched", "method": "OTHER", "status": "405"}
    assert REGISTRY.get_sample_value("foretell_http_requests_total", labels)


async def test_paths_of_plain_apps_are_their_own_template(lines: list[dict[str, Any]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"", b"text/plain")

    await _get("/plain", app)
    await _get("/health/live", app)
    assert [(line["route"], line["log_level"]) for line in lines] == [("/plain", "info"), ("/health/live", "debug")]


async def test_who_asks_for_health_counts_in_no_rate() -> None:
    async def not_ready(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 503, b"", b"text/plain")

    def count(route: str) -> float | None:
        labels = {"route": route, "method": "GET", "status": "503"}
        return REGISTRY.get_sample_value("foretell_http_requests_total", labels)

    for path in ("/health/ready", "/plain"):
        await _get(path, not_ready)
    assert (count("/health/ready"), count("/plain")) == (None, 1)


async def test_an_error_is_logged_once_and_answered_with_500(lines: list[dict[str, Any]]) -> None:
    response = await _get("/broken")
    assert response.status_code == 500
    assert [line["event"] for line in lines] == ["request_failed", "request_finished"]


async def test_an_error_of_a_plain_app_is_answered_too(lines: list[dict[str, Any]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("hunter2")

    response = await _get("/plain", app)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "hunter2" not in response.text
    assert response.headers["x-request-id"]


async def test_half_an_answer_breaks_the_connection(lines: list[dict[str, Any]]) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        await _get("/half")
    assert lines[-1]["event"] == "request_finished"


async def test_a_client_that_left_is_counted_as_such(lines: list[dict[str, Any]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    await RequestLog(app)(_scope("/things/1"), _nothing, _ignore)
    assert lines[0]["http.response.status_code"] == 499


def _scope(path: str, method: str = "GET", headers: list[tuple[bytes, bytes]] | None = None) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers or [],
    }


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def _ignore(message: Any) -> None:
    pass


async def test_a_quiet_route_is_heard_only_when_something_was_wrong(lines: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 422 if scope["query_string"] else 200, b"", b"text/plain")

    quiet = RequestLog(app, paths=["/plain"], quiet_routes=["/plain"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(quiet), base_url="http://test") as client:
        await client.get("/plain")
        await client.get("/plain?wrong")
    assert [(line["log_level"], line["http.response.status_code"]) for line in lines] == [("debug", 200), ("info", 422)]


async def test_of_a_stream_the_time_until_it_began_counts(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("foretell.kit.request_log.perf_counter", lambda: now[0])

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        now[0] += 0.5
        kind = (b"content-type", b"text/event-stream; charset=utf-8")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        now[0] += 3600
        await send({"type": "http.response.body", "body": b"data: 1\n\n"})

    await _get("/plain", stream)
    (line,) = [line for line in lines if line["event"] == "request_finished"]
    assert line["event.duration"] == 500_000_000
