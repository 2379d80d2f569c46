"""A receiver of webhooks on the loopback: real HTTP, answers as it is told, and keeps what it got."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

#: The setting by which services may send to it.
ALLOWED = "127.0.0.0/8"


@dataclass(frozen=True)
class Received:
    """One request, headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """What it answers is decided by `answer`, asked for every request: a status, `hang`, `reset`, or whole bytes."""

    url: str
    requests: list[Received] = field(default_factory=list)
    answer: Callable[[Received], int | str | bytes] = lambda _: 204
    connections: int = 0
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, count: int, *, timeout_s: float = 30.0) -> list[Received]:
        """All that came, once it is at least so much."""
        async with asyncio.timeout(timeout_s), self._came:
            await self._came.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (head := await _head(reader)) is not None:
                path, headers = head
                body = await reader.readexactly(int(headers["content-length"]))
                received = Received(path, headers, body)
                answer = self.answer(received)
                async with self._came:
                    self.requests.append(received)
                    self._came.notify_all()
                if answer == "hang":
                    await self._ended.wait()
                    return
                if answer == "reset":
                    writer.transport.abort()
                    return
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    writer.write(f"HTTP/1.1 {answer} Said\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = text.strip().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return first.split(" ")[1], {name.lower(): value for name, _, value in pairs}


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens inside, on a free port."""
    receiver = Receiver("")
    server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        receiver._ended.set()
        server.close()
        # Connections that are kept would keep it.
        await asyncio.sleep(0)
