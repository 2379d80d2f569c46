"""Bodies that come compressed, within the bounds of those that do not."""

import gzip
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from foretell.kit.asgi import BodyTooLarge, ClientGone, Message, Receive, Scope, read_body
from foretell.kit.unpacking import BrokenEncoding, UnknownEncoding, unpacked

_BODY = b'{"carrier": "AA", "distance": 550.0}' * 40


def _headless(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def _scope(encoding: str) -> Scope:
    return {"type": "http", "headers": [(b"content-encoding", encoding.encode()), (b"content-length", b"5")]}


def _receiving(parts: list[bytes]) -> Receive:
    left = list(parts)

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


def _parts(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", _headless),
        # One after the other, they are one.
        ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
    ],
)
async def test_a_body_is_read_as_it_was(encoding: str, pack: Callable[[bytes], bytes], size: int) -> None:
    scope = _scope(encoding)
    assert await read_body(unpacked(scope, _receiving(_parts(pack(_BODY), size))), 10_000) == _BODY
    assert scope["headers"] == []


async def test_pieces_without_end_come_out_whole() -> None:
    body = random.Random(1).randbytes(300_000)
    received = unpacked(_scope("gzip"), _receiving(_parts(gzip.compress(body), 65_536)))
    assert await read_body(received, 300_000) == body


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
async def test_what_is_not_compressed_is_left_as_it_is(encoding: str) -> None:
    receive = _receiving([b"as it is"])
    assert unpacked(_scope(encoding), receive) is receive


async def test_a_small_body_that_becomes_a_large_one_is_refused_before_it_does() -> None:
    made: list[int] = []

    class Held:
        def grow(self, size: int) -> None:
            made.append(size)

    scope: dict[str, Any] = {**_scope("gzip"), "foretell.held": Held()}
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    with pytest.raises(BodyTooLarge):
        await read_body(unpacked(scope, _receiving([bomb])), 1_000_000)
    assert sum(made) < 1_200_000


async def test_what_is_held_may_be_too_much() -> None:
    class Full:
        def grow(self, size: int) -> None:
            raise BodyTooLarge(max_bytes=1)

    scope: dict[str, Any] = {**_scope("gzip"), "foretell.held": Full()}
    with pytest.raises(BodyTooLarge):
        await read_body(unpacked(scope, _receiving([gzip.compress(_BODY)])), 10_000)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "x" * 200])
async def test_what_nobody_here_unpacks_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(UnknownEncoding) as refused:
        await read_body(unpacked(_scope(encoding), _receiving([b"x"])), 10_000)
    assert encoding[:40] in refused.value.message
    assert "gzip and deflate" in refused.value.message


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(_BODY)[:-3]),
        ("gzip", gzip.compress(_BODY)[:20]),
        ("gzip", gzip.compress(_BODY) + b"and more"),
        ("gzip", zlib.compress(_BODY)),
        ("deflate", b"\xffneither of both"),
        ("deflate", zlib.compress(_BODY)[:-1]),
        ("deflate", zlib.compress(_BODY) + b"more"),
    ],
    # A gzip tells when it was made: as a name, it would be another one in each process that collects the tests.
    ids=["no gzip", "its end is missing", "half of it", "something behind it", "a zlib", "neither", "cut", "more"],
)
async def test_what_is_not_what_it_says_is_refused(encoding: str, content: bytes) -> None:
    for size in (1, 10**6):
        with pytest.raises(BrokenEncoding):
            await read_body(unpacked(_scope(encoding), _receiving(_parts(content, size))), 10_000)


async def test_a_client_that_hangs_up_is_noticed() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": gzip.compress(_BODY)[:20], "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    with pytest.raises(ClientGone):
        await read_body(unpacked(_scope("gzip"), receive), 10_000)
