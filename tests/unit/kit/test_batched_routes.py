"""Hot routes that answer from a batch: the same directly and by way of ASGI."""

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.unit.kit.hot_routes import MAX_BODY_BYTES, PATIENCE_S, Connection, Server, post, running

_EITHER_WAY = pytest.mark.parametrize("path", ["/shout", "/shout?a=b"], ids=["direct", "asgi"])


@_EITHER_WAY
async def test_answers_from_a_batch_are_the_same_on_either_way(connection: Connection, path: str) -> None:
    await connection.say(post(path, b"hello", "X-Request-ID: mine"))
    status, headers, body = await connection.answer()
    assert (status, json.loads(body), headers["x-request-id"]) == (200, "HELLO", "mine")
    assert (headers["content-type"], headers["x-content-type-options"]) == ("application/json", "nosniff")


@_EITHER_WAY
@pytest.mark.parametrize("body", [b"", b"refuse"], ids=["before the batch", "in the batch"])
async def test_refusals_of_a_batched_route_are_explained(connection: Connection, path: str, body: bytes) -> None:
    await connection.say(post(path, body))
    status, _, answered = await connection.answer()
    assert (status, json.loads(answered)["code"], json.loads(answered)["instance"]) == (409, "refused", "/shout")


@_EITHER_WAY
@pytest.mark.parametrize("body", [b"\xff", b"all fail", b"break"], ids=["begin", "batch", "answer"])
async def test_failures_of_a_batched_route_are_logged_and_not_explained(
    connection: Connection, path: str, body: bytes
) -> None:
    with capture_logs() as lines:
        await connection.say(post(path, body))
        status, _, answered = await connection.answer()
        async with asyncio.timeout(PATIENCE_S):
            while len(lines) < 2:
                await asyncio.sleep(0.001)
    assert (status, json.loads(answered)["code"]) == (500, "internal_error")
    assert b"unexpected" not in answered
    assert [line["event"] for line in lines] == ["request_failed", "request_finished"]
    assert lines[0]["exc_info"]


@pytest.mark.parametrize("body", [b"", b"twice over"], ids=["of a batch", "not of one item"])
async def test_a_template_is_answered_directly_if_its_path_is_plain(connection: Connection, body: bytes) -> None:
    for path, way, name in (
        ("/people/ann/greet", "direct", "ANN"),
        ("/people/..-x_y~1/greet", "direct", "..-X_Y~1"),
        ("/people/a%6en/greet", "asgi", "ANN"),
        ("/people/a%2Fn/greet", "asgi", None),
        ("/people/ann/greet?loud=1", "asgi", "ANN"),
        ("/people//greet", "asgi", None),
        ("/people/ann/greet/", "asgi", None),
    ):
        await connection.say(post(path, body))
        status, _, answered = await connection.answer()
        if name is None:
            assert (status, json.loads(answered)["code"]) == (404, "not_found")
        else:
            assert (status, json.loads(answered)) == (200, [way, *[name] * max(1, len(body.split()))])


async def test_a_template_is_one_route_in_the_log_and_its_problems_name_the_address(connection: Connection) -> None:
    for query in ("", "?a=b"):
        for body, status, code in ((b"refuse me", 409, "refused"), (b"break me", 500, "internal_error")):
            with capture_logs() as lines:
                await connection.say(post(f"/people/ann/greet{query}", body))
                answered, _, problem = await connection.answer()
                async with asyncio.timeout(PATIENCE_S):
                    while not lines or lines[-1]["event"] != "request_finished":
                        await asyncio.sleep(0.001)
            assert (answered, json.loads(problem)["code"]) == (status, code)
            assert json.loads(problem)["instance"] == "/people/ann/greet"
            assert lines[-1]["route"] == "/people/{name}/greet"


async def test_a_body_that_is_too_large_is_refused_before_the_batch(connection: Connection, server: Server) -> None:
    await connection.say(post("/shout", b"x" * (MAX_BODY_BYTES + 1)), post("/shout", b"next"))
    assert (await connection.answer())[0] == 413
    assert await connection.value() == "NEXT"
    assert server.batches == [["next"]]


async def test_who_comes_together_shares_a_batch_and_gets_what_is_theirs(server: Server) -> None:
    connections = [Connection(*await asyncio.open_connection("127.0.0.1", server.port)) for _ in range(3)]
    waiting = Connection(*await asyncio.open_connection("127.0.0.1", server.port))
    await waiting.say(post("/shout", b"wait"))
    await server.begun.wait()
    for number, connection in enumerate(connections):
        await connection.say(post("/shout", b"%d" % number, f"X-Request-ID: {number}"))
    async with asyncio.timeout(PATIENCE_S):
        while server.batcher.waiting < 3:
            await asyncio.sleep(0.001)
    late = Connection(*await asyncio.open_connection("127.0.0.1", server.port))
    await late.say(post("/shout", b"too many"))
    status, headers, body = await late.answer()
    assert (status, json.loads(body)["code"], "retry-after" in headers) == (503, "overloaded", True)
    # One leaves while it waits; the others are none the worse.
    connections[1].writer.transport.abort()
    await asyncio.sleep(0.05)
    server.may_go_on.set()
    assert await waiting.value() == "WAIT"
    for number in (0, 2):
        status, headers, body = await connections[number].answer()
        assert (status, headers["x-request-id"], json.loads(body)) == (200, str(number), str(number))
    assert server.batches == [["wait"], ["0", "1", "2"]]
    for connection in (*connections, waiting, late):
        connection.writer.close()


async def test_a_stop_lets_a_batch_finish(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", server.port))
        await connection.say(post("/shout", b"wait"))
        await server.begun.wait()
    assert await connection.value() == "WAIT"
    assert await connection.ended()
    connection.writer.close()
