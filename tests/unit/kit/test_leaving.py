"""A server that stops is heard out by those who are about to ask."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from tests.ports import free_port

from foretell.kit import leaving
from foretell.kit.asgi import Receive, Scope, Send, respond
from foretell.kit.leaving import let_nobody_in
from foretell.kit.lifecycle import serve_http
from foretell.kit.settings import ServiceSettings

_ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the system can't do that")
def test_who_has_connected_is_accepted_and_nobody_after() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as early:
            let_nobody_in(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
            # What an open connection sends still comes.
            early.sendall(b"hello")
            listener.settimeout(10)
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(10)
                assert accepted.recv(100) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)


@asynccontextmanager
async def _served(
    answering: asyncio.Event | None = None,
) -> AsyncIterator[tuple[int, asyncio.Event, "asyncio.Task[None]"]]:
    """A server that answers once `answering` is set."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if answering is not None:
            await answering.wait()
        await respond(send, 200, b"{}", b"application/json")

    stopping = asyncio.Event()
    settings = ServiceSettings(port=free_port())
    serving = asyncio.create_task(serve_http(answer, settings, stopping))
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", settings.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                break
        yield settings.port, stopping, serving
    finally:
        stopping.set()
        await serving


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert await reader.readexactly(2) == b"{}"
    return head.lower()


async def test_a_connection_that_is_kept_may_ask_once_more_and_is_told_that_it_was_the_last_time() -> None:
    async with _served() as (port, stopping, serving):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_ASK)
        assert b"connection: close" not in await _answer(reader)
        stopping.set()
        # uvicorn looks ten times a second whether it should end; the next request comes meanwhile or after that.
        for _ in range(20):
            await asyncio.sleep(0.02)
            writer.write(_ASK)
            if b"connection: close" in await _answer(reader):
                break
        else:
            pytest.fail("nobody said that it was the last answer")
        assert await reader.read() == b""
        writer.close()
        await asyncio.wait_for(serving, 20)


async def test_as_long_as_connections_are_used_the_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_REST_S", 2.0)
    monkeypatch.setattr(leaving, "_LONGEST_S", 60.0)
    async with _served() as (port, stopping, serving):
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        stopping.set()
        with suppress(ConnectionRefusedError):
            while True:
                _, newcomer = await asyncio.open_connection("127.0.0.1", port)
                newcomer.close()
        # The last one asks when all have rested for longer than a single one may.
        for reader, writer in kept:
            await asyncio.sleep(0.8)
            writer.write(_ASK)
            assert b"connection: close" in await _answer(reader)
            writer.close()
        await asyncio.wait_for(serving, 20)


async def test_who_asks_while_it_stops_is_answered_and_who_rests_is_let_go() -> None:
    answering = asyncio.Event()
    async with _served(answering) as (port, stopping, serving):
        resting, resting_writer = await asyncio.open_connection("127.0.0.1", port)
        asking, asking_writer = await asyncio.open_connection("127.0.0.1", port)
        asking_writer.write(_ASK)
        stopping.set()
        # When this one is let go, the server has stopped listening.
        assert await asyncio.wait_for(resting.read(), 20) == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        answering.set()
        assert b"connection: close" in await _answer(asking)
        assert await asyncio.wait_for(asking.read(), 20) == b""
        for writer in (resting_writer, asking_writer):
            writer.close()
        await asyncio.wait_for(serving, 20)
