"""Unpacks compressed bodies (`Content-Encoding`) while they are read, so that all limits apply to them.

A body is unpacked piece by piece, so that a small body can't fill the memory: the reader stops at its limit.
"""

import asyncio
import zlib
from typing import Any

from foretell.kit.asgi import HELD, Application, Message, Receive, Scope, Send
from foretell.kit.errors import ForetellError

#: How much is unpacked at once.
_PIECE_BYTES = 64 * 1024
#: zlib's parameters for the encodings. `deflate` is zlib's format, but some clients send it without its header.
_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_HEADLESS = -15
#: The accepted encodings, for `Accept-Encoding` (RFC 9110, 15.5.16).
ACCEPTED = b"gzip, deflate"


class UnknownEncoding(ForetellError):
    """The body is compressed with {encoding}. Taken are gzip and deflate, or the body as it is."""

    code = "unknown_encoding"
    status = 415


class BrokenEncoding(ForetellError):
    """The body is not what its Content-Encoding says."""

    code = "broken_encoding"
    status = 422


def unpacked(scope: Scope, receive: Receive) -> Receive:
    """A `receive` that gives the unpacked body of this request; removes the encoding from the scope.

    It raises `UnknownEncoding`, `BrokenEncoding`, and the errors of `Held.grow`.
    """
    values = [value for name, value in scope["headers"] if name == b"content-encoding"]
    if not values:
        return receive
    encoding = b",".join(values).strip().lower()
    if encoding in (b"", b"identity"):
        return receive
    # The unpacked length is unknown.
    dropped = (b"content-encoding", b"content-length")
    scope["headers"] = [each for each in scope["headers"] if each[0] not in dropped]
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:

        async def refuse() -> Message:
            raise UnknownEncoding(encoding=encoding[:40].decode("latin-1"))

        return refuse
    return _Unpacking(receive, bits, scope.get(HELD)).receive


class Unpacking:
    """An ASGI app that passes unpacked bodies to another one."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, unpacked(scope, receive) if scope["type"] == "http" else receive, send)


class _Unpacking:
    def __init__(self, receive: Receive, bits: int, held: Any) -> None:
        self._receive = receive
        self._bits = bits
        self._held = held
        self._decoder = zlib.decompressobj(bits)
        self._packed = b""
        #: Whether the decoder has input, but has given no output yet.
        self._begun = False
        self._first = True
        #: Whether the decoder may give more output without more input.
        self._full = False
        self._ended = False
        self._said = False

    async def receive(self) -> Message:
        """The next piece."""
        while not self._said:
            piece = self._next()
            if piece:
                if self._held is not None:
                    self._held.grow(len(piece))
                # A small body may have very many pieces: let other tasks run in between.
                await asyncio.sleep(0)
                return {"type": "http.request", "body": piece, "more_body": True}
            if self._ended:
                if self._begun:
                    raise BrokenEncoding
                self._said = True
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._packed += message.get("body", b"")
            self._ended = not message.get("more_body")
        return await self._receive()

    def _next(self) -> bytes:
        """Up to one piece; empty if more input is needed."""
        while (self._packed or self._full) and self._has_its_head():
            piece = self._unpack()
            self._full = len(piece) == _PIECE_BYTES
            if self._decoder.eof:
                # Several gzip members in a row are one body, by gzip's specification.
                self._packed = self._decoder.unused_data
                self._begun = self._full = False
                if self._packed and self._bits != _WINDOW_BITS[b"gzip"]:
                    raise BrokenEncoding
                self._decoder = zlib.decompressobj(self._bits)
            else:
                self._packed = self._decoder.unconsumed_tail
                self._begun = True
            if piece:
                return piece
        return b""

    def _unpack(self) -> bytes:
        try:
            return self._decoder.decompress(self._packed, _PIECE_BYTES)
        except zlib.error:
            raise BrokenEncoding from None

    def _has_its_head(self) -> bool:
        """Whether there is enough input to decide which `deflate` it is; then decides."""
        if self._first and self._bits == _WINDOW_BITS[b"deflate"]:
            if len(self._packed) < 2 and not self._ended:
                return False
            # RFC 1950: the method is 8, and the first two bytes are a multiple of 31.
            if self._packed[0] & 15 != 8 or int.from_bytes(self._packed[:2]) % 31:
                self._bits = _HEADLESS
                self._decoder = zlib.decompressobj(_HEADLESS)
        self._first = False
        return True
