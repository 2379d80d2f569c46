"""Routes on plain ASGI: who answers, and what becomes of errors."""

import json
from typing import Any

import httpx
import pytest

from foretell.kit.asgi import Operations
from foretell.kit.errors import ForetellError, Overloaded
from foretell.kit.problems import Failed
from foretell.kit.routing import Answer, Request, Route, Routes, bytes_answer, json_answer


class Secret(ForetellError):
    """The password is swordfish."""


class ModelFailed(Failed):
    """The model failed."""

    code = "model_error"


async def _echo(request: Request) -> Answer:
    body = (await request.body()).decode()
    return json_answer({"parameters": dict(request.parameters), "query": request.query(), "body": body})


def _raising(error: Exception) -> Any:
    async def handler(request: Request) -> Answer:
        raise error

    return handler


def _client(*routes: Route, **options: Any) -> httpx.AsyncClient:
    app = Routes(routes, max_body_bytes=10, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://foretell")


async def _ask(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with client:
        response = await client.request(method, path, **options)
        return response.status_code, response.json()


async def test_a_path_without_names_comes_before_one_with() -> None:
    async def special(request: Request) -> Answer:
        return json_answer("special")

    client = _client(Route("GET", "/models/{name}", _echo), Route("GET", "/models/special", special))
    assert await _ask(client, "GET", "/models/special") == (200, "special")


async def test_names_query_and_body_reach_the_handler() -> None:
    client = _client(Route("POST", "/a/{x}/b/{y}", _echo))
    assert await _ask(client, "POST", "/a/1%202/b/ä?q=1&q=2&e=", content=b"hello") == (
        200,
        {"parameters": {"x": "1 2", "y": "ä"}, "query": {"q": "2", "e": ""}, "body": "hello"},
    )


@pytest.mark.parametrize("path", ["/a//b/2", "/a/1/b", "/a/1/c/2", "/", "/a/1/b/2/"])
async def test_what_fits_no_route_is_not_there(path: str) -> None:
    status, problem = await _ask(_client(Route("GET", "/a/{x}/b/{y}", _echo)), "GET", path)
    assert (status, problem["code"], problem["instance"]) == (404, "not_found", path)


async def test_another_method_is_told_what_the_address_takes() -> None:
    async with _client(Route("GET", "/a", _echo), Route("POST", "/a", _echo)) as client:
        response = await client.delete("/a")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_get_answers_head() -> None:
    async with _client(Route("GET", "/a", _echo)) as client:
        assert (await client.head("/a")).status_code == 200


async def test_a_body_beyond_the_bound_is_refused() -> None:
    status, problem = await _ask(_client(Route("POST", "/a", _echo)), "POST", "/a", content=b"x" * 11)
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(Overloaded(), 503, "overloaded"), (ModelFailed(), 500, "model_error"), (ValueError("x"), 500, "internal_error")],
)
async def test_errors_become_problems(error: Exception, status: int, code: str) -> None:
    async with _client(Route("GET", "/a", _raising(error))) as client:
        response = await client.get("/a")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert ("retry-after" in response.headers) is (status == 503)


async def test_an_error_that_is_not_meant_to_be_told_says_nothing() -> None:
    _, problem = await _ask(_client(Route("GET", "/a", _raising(Secret()))), "GET", "/a")
    assert "swordfish" not in json.dumps(problem)


async def test_errors_can_be_explained_otherwise() -> None:
    client = _client(
        Route("GET", "/a", _raising(Overloaded())),
        explain=lambda error, path: bytes_answer(f"{path} {error.code}".encode(), b"text/plain", 400),
    )
    async with client:
        response = await client.get("/a")
    assert (response.status_code, response.text) == (400, "/a overloaded")


async def test_a_part_answers_where_there_is_no_route() -> None:
    operations = Operations("tested", instance="1", version="1")
    client = _client(Route("GET", "/a", _echo), parts=[operations])
    status, answer = await _ask(client, "GET", "/health/live")
    assert (status, answer["status"]) == (200, "alive")


@pytest.mark.parametrize("query", ["a=%FF", "&".join(f"a{number}=" for number in range(200))])
async def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    status, problem = await _ask(_client(Route("POST", "/a", _echo)), "POST", f"/a?{query}")
    assert (status, problem["code"]) == (422, "invalid_request")


async def test_the_template_is_left_for_the_log() -> None:
    scope = {"type": "http", "path": "/a/1", "method": "GET", "headers": [], "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        pass

    await Routes([Route("GET", "/a/{x}", _echo)], max_body_bytes=1)(scope, receive, send)
    assert scope["route"].path_format == "/a/{x}"  # type: ignore[attr-defined]
