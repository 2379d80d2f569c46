"""Two writes of one turn leave together; a lone one leaves at the end of its turn; nothing is lost or turned around."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from foretell.kit.joined_writes import JoinedWrites


class Wire:
    """A transport that remembers what was written, call by call."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.written.append(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> str:
        return name


def _joined(wire: Wire) -> JoinedWrites:
    return JoinedWrites(cast(Any, wire), asyncio.get_running_loop())


async def test_head_and_body_leave_together() -> None:
    wire = Wire()
    joined = _joined(wire)
    joined.write(b"head ")
    joined.write(b"body")
    await asyncio.sleep(0)
    assert wire.written == [b"head body"]


async def test_an_empty_body_is_not_written() -> None:
    wire = Wire()
    joined = _joined(wire)
    joined.write(b"head")
    joined.write(b"")
    joined.write(b"")
    assert wire.written == [b"head"]


async def test_a_connection_closes_after_an_answer_without_a_body() -> None:
    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            joined = JoinedWrites(cast(asyncio.Transport, transport), asyncio.get_running_loop())
            joined.write(b"head")
            joined.write(b"")
            joined.close()

    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        assert await asyncio.wait_for(reader.read(), 20) == b"head"
    finally:
        writer.transport.abort()
        server.close()


async def test_a_head_whose_body_comes_later_does_not_wait_for_it() -> None:
    wire = Wire()
    joined = _joined(wire)
    joined.write(b"head")
    assert wire.written == []
    await asyncio.sleep(0)
    assert wire.written == [b"head"]
    joined.write(b"event")
    await asyncio.sleep(0)
    assert wire.written == [b"head", b"event"]


async def test_what_is_held_leaves_before_the_connection_is_closed() -> None:
    wire = Wire()
    joined = _joined(wire)
    joined.write(b"last words")
    joined.close()
    assert (wire.written, wire.closed) == ([b"last words"], True)


async def test_everything_else_is_the_transports() -> None:
    assert _joined(Wire()).get_extra_info("peername") == "peername"


@given(st.lists(st.tuples(st.binary(min_size=1), st.booleans())))
def test_the_order_is_kept_however_turns_end(writes: list[tuple[bytes, bool]]) -> None:
    async def write_all() -> list[bytes]:
        wire = Wire()
        joined = _joined(wire)
        for data, turn_ends in writes:
            joined.write(data)
            if turn_ends:
                await asyncio.sleep(0)
        joined.close()
        return wire.written

    assert b"".join(asyncio.run(write_all())) == b"".join(data for data, _ in writes)
