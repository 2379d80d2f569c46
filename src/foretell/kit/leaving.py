"""Stops a listening server without losing requests.

With a proxy or client that keeps connections open, a stop can lose requests in two ways: closing the listener resets
connections that are not accepted yet, and an idle connection may be closed while the next request is on its way. So
the server first ignores new connections, accepts the waiting ones, closes each connection with its next answer, and
then closes only connections that stay idle.
"""

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

#: Accepting the waiting connections takes an iteration of the event loop.
_ACCEPT_S = 0.05
#: If no idle connection was used for so long, none is probably about to be used.
_REST_S = 0.3
#: How long connections that are used now and then are waited for.
_LONGEST_S = 3.0
_LOOK_EVERY_S = 0.02

# A classic BPF program for the packets of the listener: it drops requests for new connections (SYN without ACK, in
# byte 13 of the TCP header) and keeps all others.
_SO_ATTACH_FILTER = 26
_DROP_NEWCOMERS = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte with the flags
        (0x54, 0, 0, 0x12),  # SYN and ACK of them
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # keep nothing
        (0x06, 0, 0, 0xFFFFFFFF),  # keep it
    )
)


def let_nobody_in(listener: socket.socket) -> None:
    """Ignore new connections from now on: clients try again, and are refused when the listener is closed.

    Only Linux can do this; elsewhere it does nothing.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_NEWCOMERS, len(_DROP_NEWCOMERS))
    filter_ = struct.pack("HL", len(_DROP_NEWCOMERS) // 8, ctypes.addressof(program))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


async def leave(listener: socket.socket, close: Callable[[], None], connections: Iterable[Any]) -> None:
    """Stop listening (by `close`), and wait until the remaining connections are idle and will not be used any more.

    `connections` are uvicorn's current ones; the protocol must close each connection with its next answer.
    """
    let_nobody_in(listener)
    await asyncio.sleep(_ACCEPT_S)
    close()
    now = asyncio.get_running_loop().time
    latest, rested_at, resting = now() + _LONGEST_S, now(), sys.maxsize
    while now() < min(latest, rested_at + _REST_S):
        before, resting = resting, sum(map(_rests, list(connections)))
        if not resting:
            return
        if resting < before:
            # Somebody still uses them: the others may be next.
            rested_at = now()
        await asyncio.sleep(_LOOK_EVERY_S)


def _rests(connection: Any) -> bool:
    return connection.cycle is None or connection.cycle.response_complete
