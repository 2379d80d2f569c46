"""A client that only posts JSON: one that can do everything takes longer for a request than all services together."""

import asyncio
import json
import select
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx


@dataclass(frozen=True)
class Answer:
    """What the server said; names of headers are in lower case."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        return json.loads(self.content)


class Connection:
    """A connection to the server at `url`, made when it is needed and made anew when it is gone."""

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout_s: float) -> None:
        """`headers` go with every request. `timeout_s` is how long a request may take, connecting included."""
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._headers = {"host": address.netloc, "content-type": "application/json", **headers}
        self._timeout_s = timeout_s
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        """Raises what httpx would: `ConnectError`, `ReadError`, `RemoteProtocolError`, `ReadTimeout`."""
        content = json.dumps(body).encode()
        lines = {**self._headers, **headers, "content-length": str(len(content))}
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(head.encode() + content)
        except TimeoutError as error:
            self._leave()
            raise httpx.ReadTimeout(f"no answer for {self._timeout_s:g} s") from error
        except BaseException:
            self._leave()
            raise

    async def close(self) -> None:
        """Close it, if it is there."""
        if self._stream is not None:
            _, writer = self._stream
            self._leave()
            with suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, request: bytes) -> Answer:
        if self._stream is not None and not _is_open(*self._stream):
            self._leave()
        if self._stream is None:
            try:
                self._stream = await asyncio.open_connection(self._host, self._port)
            except OSError as error:
                raise httpx.ConnectError(str(error)) from error
        reader, writer = self._stream
        try:
            writer.write(request)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            parted = (line.partition(":") for line in lines if line)
            headers = {name.lower(): value.strip() for name, _, value in parted}
            content = await reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise httpx.RemoteProtocolError("the server closed the connection without an answer") from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        if headers.get("connection", "").lower() == "close":
            self._leave()
        return Answer(int(first.split(" ")[1]), headers, content)

    def _leave(self) -> None:
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None


def _is_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the server still waits for a request: nothing can be read, and no end was."""
    if reader.at_eof() or writer.is_closing():
        return False
    waiting = select.poll()
    waiting.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
    return not waiting.poll(0)
