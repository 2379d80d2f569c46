"""Heads, bodies, time and connections have bounds, on hot routes and through ASGI; what is refused is said once."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kit.hot_routes import Connection, Server, post, running
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from foretell.kit.asgi import Message, read_body
from foretell.kit.direct import Exchange
from foretell.kit.routing import Answer, Request

WAYS = pytest.mark.parametrize("path", ["/echo", "/cold"], ids=["direct", "asgi"])
HEAD_BYTES = 4096


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


async def refused(connection: Connection, status: int, code: bytes) -> None:
    """The next answer is this refusal, and the last one."""
    answered, headers, body = await connection.answer()
    assert (answered, headers["connection"]) == (status, "close")
    assert code in body
    assert await connection.ended()


@WAYS
@pytest.mark.parametrize("lines", [1, 50])
async def test_a_head_has_a_bound_and_one_below_it_is_taken(tmp_path: Path, path: str, lines: int) -> None:
    async with running(tmp_path, max_head_bytes=HEAD_BYTES) as server, connected(server) as connection:
        await connection.say(post(path, b"fits", "X: " + "x" * (HEAD_BYTES - 200)))
        assert (await connection.answer())[0] == 200
        await connection.say(post(path, b"does not", *(["X: " + "x" * (HEAD_BYTES // lines)] * lines)))
        await refused(connection, 431, b"head_too_large")


@WAYS
@pytest.mark.parametrize(
    "around",
    [b"0\r\n" + b"X: yyyy\r\n" * 200, b"0\r\nX: " + b"y" * 2000, b"1;" + b"e" * 2000],
    ids=["trailers", "a trailer", "an extension"],
)
async def test_what_is_around_a_body_in_chunks_has_a_bound(tmp_path: Path, path: str, around: bytes) -> None:
    beginning = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with running(tmp_path, max_head_bytes=HEAD_BYTES) as server, connected(server) as connection:
        await connection.say(beginning)
        # What comes in one piece with the head is within the bound of a piece.
        await asyncio.sleep(0.1)
        await connection.say(b"2\r\nin\r\n" + around, *[around.split(b"\r\n", 1)[-1]] * 10)
        await refused(connection, 431, b"head_too_large")


@WAYS
async def test_fields_after_a_body_are_not_headers(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    echo = Server.echo

    async def remember(self: Server, request: Request) -> Answer:
        answer = await echo(self, request)
        seen.extend(name for name, _ in request.headers)
        return answer

    monkeypatch.setattr(Server, "echo", remember)
    beginning = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-First: 1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with running(tmp_path) as server, connected(server) as connection:
        for _ in range(2):
            await connection.say(beginning + b"2\r\nin\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
            assert (await connection.answer())[0] == 200
    assert seen.count(b"x-first") == 2
    assert b"x-forwarded-for" not in seen


async def test_a_head_without_an_end_is_refused_as_it_comes(tmp_path: Path) -> None:
    async with running(tmp_path, max_head_bytes=HEAD_BYTES) as server:
        for beginning, status, code in (
            (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: ", 431, b"head_too_large"),
            (b"POST /", 414, b"address_too_long"),
        ):
            async with connected(server) as connection:
                await connection.say(beginning, b"x" * HEAD_BYTES, b"x" * 1000)
                await refused(connection, status, code)
        async with connected(server) as connection:
            await connection.say(post("/echo", b"others go on"))
            assert (await connection.answer())[0] == 200


@WAYS
async def test_two_hosts_are_one_too_many(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as server, connected(server) as connection:
        await connection.say(post(path, b"whose?", "Host: other"))
        await refused(connection, 400, b"several_hosts")


@WAYS
async def test_a_slow_sender_is_not_waited_for(tmp_path: Path, path: str) -> None:
    async with running(tmp_path, head_timeout_s=0.2, body_timeout_s=0.2) as server:
        async with connected(server) as silent:
            assert await silent.ended()
        async with connected(server) as slow:
            await slow.say(b"POST /echo HTTP/1.1\r\nHost: ")
            await refused(slow, 408, b"request_too_slow")
        async with connected(server) as slow:
            await slow.say(post(path, b"0123456789")[:-5])
            await refused(slow, 408, b"request_too_slow")


@WAYS
async def test_an_answer_that_takes_long_is_waited_for(tmp_path: Path, path: str) -> None:
    async with running(tmp_path, head_timeout_s=0.1, body_timeout_s=0.1) as server, connected(server) as connection:
        await connection.say(post("/wait"))
        await server.begun.wait()
        await asyncio.sleep(0.5)
        server.may_go_on.set()
        assert await connection.value() == "waited"
        # A rest between two requests is no slowness.
        await asyncio.sleep(0.5)
        await connection.say(post(path, b"again"))
        assert (await connection.answer())[0] == 200


async def test_connections_have_a_bound(tmp_path: Path) -> None:
    async with running(tmp_path, max_connections=3) as server:

        async def ask(connection: Connection) -> int:
            await connection.say(post("/echo", b"in"))
            return (await connection.answer())[0]

        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(connected(server)) for _ in range(6)]
            statuses = [await ask(connection) for connection in opened]
            # The connection with which the test saw that the server listens may still have been there.
            assert statuses.count(200) in (2, 3)
            assert set(statuses) == {200, 503}
        while True:
            async with connected(server) as connection:
                if await ask(connection) == 200:
                    break


@WAYS
async def test_large_bodies_under_way_have_a_bound_together(tmp_path: Path, path: str) -> None:
    # The routes take 100,000 bytes; eleven such bodies are more than the bound.
    body = b"x" * 99_000
    async with running(tmp_path, max_bytes_under_way=1024 * 1024) as server:
        uploads = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(11)]
        answers = [asyncio.create_task(reader.read()) for reader, _ in uploads]
        for _, writer in uploads:
            writer.write(post(path, body)[:-10])
            await writer.drain()
        done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert {b"too_much_under_way" in task.result() for task in done} == {True}
        async with connected(server) as small:
            await small.say(post(path, b"small ones pass"))
            assert (await small.answer())[0] == 200
        for _, writer in uploads:
            writer.close()
        await asyncio.gather(*answers, return_exceptions=True)
        async with connected(server) as whole:
            await whole.say(post(path, body))
            assert (await whole.answer())[0] == 200


@pytest.mark.parametrize("path", ["/wait", "/weigh"])
async def test_a_body_counts_until_its_answer_is_out(tmp_path: Path, path: str) -> None:
    # One is at work with nine tenths of what is allowed, be it by what it sent or by what that becomes.
    async with running(tmp_path, max_bytes_under_way=1024 * 1024) as server, connected(server) as working:
        body = b"x" * 95_000 if path == "/wait" else b"[" * 24_000
        uploads = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10 if path == "/wait" else 1)]
        for _, writer in uploads:
            # In two pieces, the first of which is read before the second comes: one whole piece is not counted.
            writer.write(post(path, body)[:-10])
            await writer.drain()
        await working.say(post("/echo", b"meanwhile"))
        assert (await working.answer())[0] == 200
        for _, writer in uploads:
            writer.write(body[-10:])
            await writer.drain()
        while server.at_work < len(uploads):
            await asyncio.sleep(0.01)
        await working.say(post("/weigh", b"[" * 6_000))
        assert (await working.answer())[0] == 503
        # Whoever hangs up has their work done all the same: it still counts.
        for _, writer in uploads:
            writer.close()
        await working.say(post("/weigh", b"[" * 6_000))
        assert (await working.answer())[0] == 503
        server.may_go_on.set()
        while server.at_work:
            await asyncio.sleep(0.01)
        await working.say(post("/weigh", b"[" * 6_000))
        assert (await working.answer())[0] == 200


@WAYS
async def test_what_would_take_more_than_is_allowed_by_itself_is_no_matter_of_time(tmp_path: Path, path: str) -> None:
    way = "/weigh" if path == "/echo" else "/weigh-cold"
    async with running(tmp_path, max_bytes_under_way=1024 * 1024) as server, connected(server) as connection:
        server.may_go_on.set()
        for character in (b"[", b"{", b","):
            await connection.say(post(way, character * 30_000))
            status, _, body = await connection.answer()
            assert (status, b"body_too_heavy" in body) == (413, True), body
        await connection.say(post(way, b"x" * 90_000))
        assert (await connection.answer())[0] == 200


async def test_heads_that_are_not_complete_count_too(tmp_path: Path) -> None:
    async with running(tmp_path, max_bytes_under_way=1024 * 1024) as server:
        begun = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        answers = [asyncio.create_task(reader.read()) for reader, _ in begun]
        for _, writer in begun:
            writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 60_000)
            await writer.drain()
        done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert {b"too_much_under_way" in task.result() for task in done} == {True}
        for _, writer in begun:
            writer.close()
        await asyncio.gather(*answers, return_exceptions=True)


async def test_what_a_client_sent_before_it_hung_up_is_let_go_at_once(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        async with running(tmp_path) as server:
            for _ in range(5):
                async with connected(server) as connection:
                    await connection.say(post("/echo", b"x" * 90_000)[:-10])
            while kept := [each for each in gc.get_objects() if isinstance(each, Exchange) and len(each.content)]:
                # Without a collection: what is still referenced would wait for one.
                await asyncio.sleep(0.01)
            assert kept == []
    finally:
        gc.enable()


@WAYS
async def test_a_connection_that_stays_open_keeps_no_body_whose_answer_is_out(tmp_path: Path, path: str) -> None:
    def kept() -> list[Any]:
        bodies = [each.content for each in gc.get_objects() if isinstance(each, Exchange)]
        bodies += [each.body for each in gc.get_objects() if isinstance(each, RequestResponseCycle)]
        return [body for body in bodies if len(body)]

    way = "/weigh" if path == "/echo" else "/weigh-cold"
    async with running(tmp_path, max_bytes_under_way=1024 * 1024) as server, connected(server) as connection:
        server.may_go_on.set()
        # Refused, answered, and refused before anybody has read it.
        for target, body, expected in (
            (way, b"[" * 30_000, 413),
            (path, b"x" * 90_000, 200),
            ("/nowhere", b"x" * 90_000, 404),
        ):
            await connection.say(post(target, body))
            assert (await connection.answer())[0] == expected
            while kept():
                await asyncio.sleep(0.01)


async def test_a_body_in_small_pieces_takes_no_more_room_than_it_has() -> None:
    pieces = [b"ab"] * 1000

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    assert await read_body(receive, 2000) == b"ab" * 1000
