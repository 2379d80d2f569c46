"""A bound on bodies that others read."""

from typing import Any

import pytest

from foretell.kit.asgi import BodyTooLarge, Message, Receive, Scope, Send, read_body
from foretell.kit.body_limit import BodyLimit


class Sender:
    """A client that sends `chunks`, and counts how many were taken."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks
        self.taken = 0

    async def receive(self) -> Message:
        chunk = self._chunks[self.taken]
        self.taken += 1
        return {"type": "http.request", "body": chunk, "more_body": self.taken < len(self._chunks)}


async def _read(sender: Sender, headers: list[tuple[bytes, bytes]] | None = None) -> bytes:
    read = b""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal read
        # The app itself would take anything.
        read = await read_body(receive, 10**9)

    async def send(message: Any) -> None:
        pass

    await BodyLimit(app, max_bytes=10)({"type": "http", "headers": headers or []}, sender.receive, send)
    return read


async def test_a_body_within_the_limit_passes_whole() -> None:
    assert await _read(Sender([b"12345", b"", b"67890"])) == b"1234567890"


async def test_reading_ends_where_the_limit_is() -> None:
    sender = Sender([b"123456"] * 100)
    with pytest.raises(BodyTooLarge, match="10 bytes"):
        await _read(sender)
    assert sender.taken == 2


async def test_a_length_beyond_the_limit_is_believed_at_once() -> None:
    sender = Sender([b"1", b"2"])
    with pytest.raises(BodyTooLarge):
        await _read(sender, [(b"content-length", b"11")])
    assert sender.taken <= 1


@pytest.mark.parametrize("length", [b"-1", b"ten", b"", b"9" * 5000])
async def test_a_length_that_is_none_is_passed_over(length: bytes) -> None:
    assert await _read(Sender([b"1"]), [(b"content-length", length)]) == b"1"
