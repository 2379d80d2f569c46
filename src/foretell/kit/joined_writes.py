"""Writes the head and the body of an answer together.

uvicorn writes one after the other, and uvloop passes each write to the system at once. These system calls, and
the two packets, are a large part of the cost of a small answer.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class JoinedWrites:
    """A transport that delays a write until the next one, or until the end of this iteration of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None
        self._will_flush = False

    def write(self, data: bytes) -> None:
        """Write it, now or soon."""
        if not data:
            # The end of an answer without a body. Since Python 3.12 asyncio's own loop would keep it as something that
            # is still to be sent: it would try for ever, and the connection would never close.
            self._write_held()
            return
        held = self._held
        if held is not None:
            self._held = None
            self._transport.writelines((held, data))
            return
        self._held = data
        if not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def write_whole(self, data: bytes) -> None:
        """Write a complete answer now."""
        self._write_held()
        self._transport.write(data)

    def _flush(self) -> None:
        self._will_flush = False
        self._write_held()

    def _write_held(self) -> None:
        held = self._held
        if held is not None:
            self._held = None
            self._transport.write(held)

    def close(self) -> None:
        """Close the connection once everything is written."""
        self._write_held()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.joined = JoinedWrites(transport, asyncio.get_running_loop())
        super().connection_made(cast(asyncio.Transport, self.joined))
