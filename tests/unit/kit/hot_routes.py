"""Routes on a port that say how they were reached, and a connection on which bytes are said to them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from foretell.kit.batching import Batcher
from foretell.kit.direct import Exchange
from foretell.kit.errors import ForetellError
from foretell.kit.lifecycle import serve_http
from foretell.kit.request_log import RequestLog
from foretell.kit.routing import Answer, Batched, Handler, Pending, Request, Route, Routes, json_answer
from foretell.kit.settings import ServiceSettings

MAX_BODY_BYTES = 100_000
PATIENCE_S = 20


class Refused(ForetellError):
    """It was refused."""

    code = "refused"
    status = 409


class Server:
    """Routes that say how they were reached, on a port."""

    def __init__(self) -> None:
        self.port = 0
        self.begun = asyncio.Event()
        #: How many requests wait for `may_go_on`.
        self.at_work = 0
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
        return await self._until_told()

    async def _until_told(self) -> Answer:
        self.begun.set()
        self.at_work += 1
        await self.may_go_on.wait()
        self.at_work -= 1
        return json_answer("waited")

    async def weigh(self, request: Request) -> Answer:
        """Takes its time, with what the body becomes."""
        request.weigh(await request.body())
        return await self._until_told()

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
            "/weigh": self.weigh,
            "/refuse": self.refuse,
            "/fail": self.fail,
        }
        handlers["/long"] = self.long
        handlers["/shout"] = Batched(self.shout)
        handlers["/people/{name}/greet"] = Batched(self.greet)
        routes = Routes(
            [
                *(Route("POST", path, handler) for path, handler in handlers.items()),
                Route("POST", "/cold", self.echo),
                Route("POST", "/weigh-cold", self.weigh),
            ],
            max_body_bytes=MAX_BODY_BYTES,
        )
        return RequestLog(routes, named_parameters=["prediction_id"], hot=[routes.hot(path) for path in handlers])


@asynccontextmanager
async def running(tmp_path: Path, **bounds: Any) -> AsyncIterator[Server]:
    """A server on a port; `bounds` are settings of it."""
    server, stopping = Server(), asyncio.Event()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.port = probe.getsockname()[1]
    application = server.application()
    settings = ServiceSettings(data_dir=tmp_path, port=server.port, stop_grace_s=5, **bounds)
    serving = asyncio.create_task(serve_http(application, settings, stopping, application.direct))
    try:
        async with asyncio.timeout(PATIENCE_S):
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
        async with asyncio.timeout(PATIENCE_S):
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
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read() == b""


def post(path: str, body: bytes = b"", *headers: str, version: str = "1.1", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
