"""A TCP relay before a server: cuts connections at once, which tools of the server take seconds for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from yarl import URL


class Relay:
    """Passes every connection to `host:port` on."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> int:
        """Reset all connections on both sides; returns how many there were. New ones are passed on as before."""
        ends = len(self._writers)
        for writer in self._writers:
            writer.transport.abort()
        return ends // 2

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        try:
            their_reader, their_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, their_writer}
        self._writers |= both
        try:
            await asyncio.gather(_copy(reader, their_writer), _copy(their_reader, writer))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay before the server of `url`, and the URL that leads through it."""
    server_url = URL(url)
    relay = Relay(server_url.host or "", server_url.port or 0)
    server = await asyncio.start_server(relay.pass_on, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield relay, str(server_url.with_host("127.0.0.1").with_port(port))
    finally:
        server.close()
        while relay.cut():
            await asyncio.sleep(0.01)
