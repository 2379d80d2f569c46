"""Hot routes past ASGI: over real connections, beside the same routes as an ASGI app."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from foretell.kit.batching import Batcher
from foretell.kit.direct import DirectProtocol, Exchange
from foretell.kit.errors import ForetellError
from foretell.kit.lifecycle import serve_http
from foretell.kit.request_log import RequestLog
from foretell.kit.routing import Answer, Batched, Handler, Pending, Request, Route, Routes, json_answer
from foretell.kit.settings import ServiceSettings

_LIMIT = 100_000
_PATIENCE_S = 20


class Refused(ForetellError):
    """It was refused."""

    code = "refused"
    status = 409


class Server:
    """Routes that say how they were reached, on a port."""

    def __init__(self) -> None:
        self.port = 0
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.batches: list[list[str]] = []
        self.batcher: Batcher[str, str] = Batcher(self._shout, max_batch=100, max_waiting=3, gather=True)

    async def _shout(self, words: list[str]) -> list[str | Exception]:
        self.batches.append(words)
        if "wait" in words:
            self.begun.set()
            await self.may_go_on.wait()
        if "all fail" in words:
            raise RuntimeError("the unexpected")
        return [Refused() if word == "refuse" else word.upper() for word in words]

    def shout(self, request: Request, body: bytes) -> Pending:
        """In capitals, as one of a batch."""
        if not body:
            raise Refused

        def answer(word: str) -> Answer:
            if word == "BREAK":
                raise RuntimeError("the unexpected")
            return json_answer(word)

        return Pending(self.batcher, body.decode(), answer)

    async def echo(self, request: Request) -> Answer:
        """What came, and which way."""
        body = await request.body()
        way = "direct" if isinstance(request, Exchange) else "asgi"
        request.line = {"prediction_id": "p-1"}
        return json_answer({"way": way, "body": body.decode()})

    async def wait(self, request: Request) -> Answer:
        """Takes its time."""
        await request.body()
        self.begun.set()
        await self.may_go_on.wait()
        return json_answer("waited")

    async def refuse(self, request: Request) -> Answer:
        """Never says yes."""
        raise Refused

    async def fail(self, request: Request) -> Answer:
        """Broken."""
        raise RuntimeError("the unexpected")

    async def long(self, request: Request) -> Answer:
        """A megabyte."""
        return json_answer("x" * 1024 * 1024)

    def greet(self, request: Request, body: bytes) -> Pending | Coroutine[Any, Any, Answer]:
        """By name; with a body of words, as many times."""
        way = "direct" if isinstance(request, Exchange) else "asgi"
        name = request.parameters["name"]
        if b" " in body:
            return self._greet_often(name, body.split(), way)
        return Pending(self.batcher, name, lambda word: json_answer([way, word]))

    async def _greet_often(self, name: str, words: list[bytes], way: str) -> Answer:
        await asyncio.sleep(0)
        if b"break" in words:
            raise RuntimeError("the unexpected")
        if b"refuse" in words:
            raise Refused
        return json_answer([way, *[await self.batcher.submit(name) for _ in words]])

    def application(self) -> RequestLog:
        """All of it; `/cold` is not among the hot ones."""
        handlers: dict[str, Handler] = {
            "/echo": self.echo,
            "/wait": self.wait,
            "/refuse": self.refuse,
            "/fail": self.fail,
        }
        handlers["/long"] = self.long
        handlers["/shout"] = Batched(self.shout)
        handlers["/people/{name}/greet"] = Batched(self.greet)
        routes = Routes(
            [*(Route("POST", path, handler) for path, handler in handlers.items()), Route("POST", "/cold", self.echo)],
            max_body_bytes=_LIMIT,
        )
        return RequestLog(routes, named_parameters=["prediction_id"], hot=[routes.hot(path) for path in handlers])


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[Server]:
    server, stopping = Server(), asyncio.Event()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.port = probe.getsockname()[1]
    application = server.application()
    settings = ServiceSettings(data_dir=tmp_path, port=server.port, stop_grace_s=5)
    serving = asyncio.create_task(serve_http(application, settings, stopping, application.direct))
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break
        yield server
    finally:
        server.may_go_on.set()
        stopping.set()
        await serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as server:
        yield server


class Connection:
    """One connection, on which bytes are said and answers read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(_PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def value(self) -> object:
        status, _, body = await self.answer()
        assert status == 200, body
        return json.loads(body)

    async def ended(self) -> bool:
        """Whether the other side closes it, with nothing left to say."""
        async with asyncio.timeout(_PATIENCE_S):
            return await self.reader.read() == b""


@pytest.fixture
async def connection(server: Server) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    yield Connection(reader, writer)
    writer.close()


def post(path: str, body: bytes = b"", *headers: str, version: str = "1.1", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


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
    await connection.say(post("/echo", b"x" * _LIMIT))
    assert await connection.value() == _way("direct", "x" * _LIMIT)
    # Refused before all of it has come, and the next request of the connection is none the worse.
    too_large = post("/echo", b"x" * (3 * _LIMIT))
    await connection.say(too_large[: 2 * _LIMIT])
    status, headers, body = await connection.answer()
    assert (status, headers["content-type"], json.loads(body)["code"]) == (
        413,
        "application/problem+json",
        "body_too_large",
    )
    await connection.say(too_large[2 * _LIMIT :], post("/echo", b"y"))
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
            async with asyncio.timeout(_PATIENCE_S):
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
        async with asyncio.timeout(_PATIENCE_S):
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
                async with asyncio.timeout(_PATIENCE_S):
                    while not lines or lines[-1]["event"] != "request_finished":
                        await asyncio.sleep(0.001)
            assert (answered, json.loads(problem)["code"]) == (status, code)
            assert json.loads(problem)["instance"] == "/people/ann/greet"
            assert lines[-1]["route"] == "/people/{name}/greet"


async def test_a_body_that_is_too_large_is_refused_before_the_batch(connection: Connection, server: Server) -> None:
    await connection.say(post("/shout", b"x" * (_LIMIT + 1)), post("/shout", b"next"))
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
    async with asyncio.timeout(_PATIENCE_S):
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


@asynccontextmanager
async def impatient(server: Server, timeout_s: float) -> AsyncIterator[int]:
    """The port of a server that closes connections which rest for so long."""
    application = server.application()
    config = uvicorn.Config(
        application,
        http=partial(DirectProtocol, routes=application.direct),  # type: ignore[arg-type]
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
    async with impatient(server, 0.4) as port:
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
            await asyncio.sleep(0.1)
        assert await ended
        server.may_go_on.set()
        assert await slow.value() == "waited"
        assert await slow.ended()
        for connection in (resting, busy, slow):
            connection.writer.close()
