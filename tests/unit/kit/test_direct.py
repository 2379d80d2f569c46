"""Hot routes past ASGI: over real connections, beside the same routes as an ASGI app."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import uvicorn
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.unit.kit.hot_routes import MAX_BODY_BYTES, PATIENCE_S, Connection, Server, post, running

from foretell.kit.connection_bounds import Bounds, Intake
from foretell.kit.direct import DirectProtocol


def _way(way: str, body: str) -> dict[str, str]:
    return {"way": way, "body": body}


async def test_requests_of_one_connection_are_answered_one_after_the_other(connection: Connection) -> None:
    for number in range(3):
        await connection.say(post("/echo", f"{number}".encode()))
        assert await connection.value() == _way("direct", str(number))


async def test_a_request_in_pieces_is_one(connection: Connection) -> None:
    for byte in post("/echo", b"in pieces"):
        await connection.say(bytes([byte]))
    assert await connection.value() == _way("direct", "in pieces")


async def test_a_chunked_body_is_put_together(connection: Connection) -> None:
    head = post("/echo", b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    await connection.say(head, b"3\r\none\r\n", b"4\r\nmore\r\n", b"0\r\n\r\n")
    assert await connection.value() == _way("direct", "onemore")


async def test_pipelined_requests_are_answered_in_their_order(connection: Connection, server: Server) -> None:
    await connection.say(
        post("/echo", b"1") + post("/wait") + post("/cold", b"3") + post("/echo", b"4") + post("/refuse", b"5")
    )
    assert await connection.value() == _way("direct", "1")
    await server.begun.wait()
    server.may_go_on.set()
    assert await connection.value() == "waited"
    assert await connection.value() == _way("asgi", "3")
    # It came before the one before it was answered: then uvicorn keeps the order, and ASGI answers.
    assert await connection.value() == _way("asgi", "4")
    assert (await connection.answer())[0] == 409
    await connection.say(post("/echo", b"6"))
    assert await connection.value() == _way("direct", "6")


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/echo?a=b", b"x"),
        post("/echo", b"x", "Traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
        post("/%65cho", b"x"),
    ],
    ids=["query", "trace", "encoded path"],
)
async def test_what_is_not_plain_goes_through_asgi(connection: Connection, request_bytes: bytes) -> None:
    await connection.say(request_bytes)
    assert await connection.value() == _way("asgi", "x")


async def test_who_wants_another_protocol_is_answered_in_this_one(connection: Connection) -> None:
    await connection.say(post("/echo", b"", "Connection: upgrade", "Upgrade: h2c"))
    assert await connection.value() == _way("asgi", "")


async def test_who_expects_to_be_told_to_go_on_is_told(connection: Connection) -> None:
    whole = post("/echo", b"at last", "Expect: 100-continue")
    await connection.say(whole.removesuffix(b"at last"))
    assert (await connection.answer())[0] == 100
    await connection.say(b"at last")
    assert await connection.value() == _way("asgi", "at last")


async def test_another_method_is_told_what_the_address_takes(connection: Connection) -> None:
    await connection.say(post("/echo", method="GET"))
    status, headers, _ = await connection.answer()
    assert (status, headers["allow"]) == (405, "post")


@pytest.mark.parametrize(("version", "headers"), [("1.0", ()), ("1.1", ("Connection: close",))])
async def test_a_connection_ends_when_the_client_wants_it_so(
    connection: Connection, version: str, headers: tuple[str, ...]
) -> None:
    await connection.say(post("/echo", b"x", *headers, version=version))
    status, answered, _ = await connection.answer()
    assert (status, answered["connection"]) == (200, "close")
    assert await connection.ended()


async def test_a_body_of_the_allowed_size_is_taken_and_a_larger_one_refused(connection: Connection) -> None:
    await connection.say(post("/echo", b"x" * MAX_BODY_BYTES))
    assert await connection.value() == _way("direct", "x" * MAX_BODY_BYTES)
    # Refused before all of it has come, and the next request of the connection is none the worse.
    too_large = post("/echo", b"x" * (3 * MAX_BODY_BYTES))
    await connection.say(too_large[: 2 * MAX_BODY_BYTES])
    status, headers, body = await connection.answer()
    assert (status, headers["content-type"], json.loads(body)["code"]) == (
        413,
        "application/problem+json",
        "body_too_large",
    )
    await connection.say(too_large[2 * MAX_BODY_BYTES :], post("/echo", b"y"))
    assert await connection.value() == _way("direct", "y")


async def test_refusals_are_explained_and_failures_are_not(connection: Connection) -> None:
    await connection.say(post("/refuse"))
    status, _, body = await connection.answer()
    assert (status, json.loads(body)["code"], json.loads(body)["instance"]) == (409, "refused", "/refuse")
    with capture_logs() as lines:
        await connection.say(post("/fail"))
        status, _, body = await connection.answer()
    assert status == 500
    assert b"unexpected" not in body
    assert [line["event"] for line in lines] == ["request_failed", "request_finished"]


async def test_the_same_stands_around_a_route_on_either_way(connection: Connection) -> None:
    for path, headers in (("/echo", ()), ("/echo?a=b", ())):
        with capture_logs() as lines:
            await connection.say(post(path, b"x", "X-Request-ID: mine", *headers))
            _, answered, _ = await connection.answer()
            async with asyncio.timeout(PATIENCE_S):
                while not lines:
                    await asyncio.sleep(0.001)
        assert answered["x-request-id"] == "mine"
        assert answered["x-content-type-options"] == "nosniff"
        [line] = lines
        fields = ("route", "http.request.method", "http.response.status_code", "prediction_id", "log_level")
        assert [line[field] for field in fields] == ["/echo", "POST", 200, "p-1", "info"]
        assert line["event.duration"] > 0
    labels = {"route": "/echo", "method": "POST", "status": "200"}
    assert (REGISTRY.get_sample_value("foretell_http_requests_total", labels) or 0) >= 2


async def test_nothing_that_is_no_http_is_answered_but_refused(connection: Connection) -> None:
    await connection.say(b"\x16\x03\x01nonsense\r\n\r\n")
    assert (await connection.answer())[0] == 400
    assert await connection.ended()


async def test_a_client_that_leaves_takes_nobody_with_it(server: Server, connection: Connection) -> None:
    _, leaving = await asyncio.open_connection("127.0.0.1", server.port)
    leaving.write(post("/wait"))
    await server.begun.wait()
    leaving.transport.abort()
    await asyncio.sleep(0.05)
    with capture_logs() as lines:
        server.may_go_on.set()
        await connection.say(post("/echo", b"still here"))
        assert await connection.value() == _way("direct", "still here")
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_who_does_not_read_is_not_read(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**16)
    asked = 40
    writer.write(post("/long") * asked)
    # More than a megabyte waits for us by now, and yet every answer comes, when we read.
    connection = Connection(reader, writer)
    for _ in range(asked):
        status, _, body = await connection.answer()
        assert (status, len(body)) == (200, 1024 * 1024 + 2)
    writer.close()


async def test_a_stop_lets_a_request_finish(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        connection = Connection(reader, writer)
        await connection.say(post("/wait"))
        await server.begun.wait()
    # The context has set `may_go_on` and then waited for the end of the server.
    assert await connection.value() == "waited"
    assert await connection.ended()
    writer.close()


@asynccontextmanager
async def impatient(server: Server, timeout_s: float) -> AsyncIterator[int]:
    """The port of a server that closes connections which rest for so long."""
    application = server.application()
    config = uvicorn.Config(
        application,
        http=partial(DirectProtocol, routes=application.direct, intake=Intake(Bounds())),  # type: ignore[arg-type]
        log_config=None,
        lifespan="off",
        timeout_keep_alive=timeout_s,  # type: ignore[arg-type]
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        serving = uvicorn.Server(config)
        task = asyncio.create_task(serving.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.may_go_on.set()
            serving.should_exit = True
            await task


async def test_a_connection_that_rests_too_long_is_closed_and_no_other() -> None:
    server = Server()
    async with impatient(server, 1.2) as port:
        resting, busy, slow = [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(3)]
        for connection in (resting, busy, slow):
            await connection.say(post("/shout", b"x"))
            assert await connection.value() == "X"
        # Its answer takes far longer than a connection may rest.
        await slow.say(post("/wait"))
        ended = asyncio.create_task(resting.ended())
        for _ in range(12):
            await busy.say(post("/shout", b"y"))
            assert await busy.value() == "Y"
            await asyncio.sleep(0.2)
        assert await ended
        server.may_go_on.set()
        assert await slow.value() == "waited"
        assert await slow.ended()
        for connection in (resting, busy, slow):
            connection.writer.close()
