"""How a server stops being heard without losing anybody who is about to be.

Two moments lose requests where a proxy or a client keeps connections: a listener that is closed resets those who have
connected and were not accepted yet; and a connection that is closed because it rests may be the one on which the next
request is on its way. So nobody new is let in first, who waits is accepted, every answer says that it is the last of
its connection, and only what then still rests is closed.
"""

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

#: To accept who has connected already takes a turn of the event loop.
_ACCEPT_S = 0.05
#: A connection that rested for so long, while others were used, is not about to be used.
_REST_S = 0.3
_LOOK_EVERY_S = 0.02

# For the system, which looks at each packet that comes to the listener: of those that ask for a connection (SYN without
# ACK, in byte 13 of TCP's header) nothing is kept, of others all. Instructions of classic BPF.
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
    """Leave those unanswered who want to connect from now on: they try again, and are refused once it is closed.

    Where the system can't do that (it is Linux that can), nothing changes.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_NEWCOMERS, len(_DROP_NEWCOMERS))
    filter_ = struct.pack("HL", len(_DROP_NEWCOMERS) // 8, ctypes.addressof(program))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


async def leave(listener: socket.socket, close: Callable[[], None], connections: Iterable[Any]) -> None:
    """Stop listening (`close` does it), and wait until connections rest that will not be used any more.

    `connections` are those of now, uvicorn's; whoever has one sees to it that answers from now on end theirs.
    """
    let_nobody_in(listener)
    await asyncio.sleep(_ACCEPT_S)
    close()
    for _ in range(round(_REST_S / _LOOK_EVERY_S)):
        if not any(_rests(each) for each in list(connections)):
            return
        await asyncio.sleep(_LOOK_EVERY_S)


def _rests(connection: Any) -> bool:
    return connection.cycle is None or connection.cycle.response_complete
