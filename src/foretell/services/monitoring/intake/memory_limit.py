"""A memory limit for incoming bodies, granted in the order of the requests."""

import asyncio
from collections import deque

from foretell.kit.errors import Overloaded


class MemoryLimit:
    """A limited number of bytes.

    A request that finds no free memory waits for a short time. This slows down senders that are too fast, and costs
    less than refusing bodies that they would send again.
    """

    def __init__(self, max_bytes: int, *, wait_s: float, max_waiting: int = 1_000) -> None:
        """`wait_s` is how long a request waits, `max_waiting` how many may wait."""
        self._free_bytes = self._max_bytes = max_bytes
        self._wait_s = wait_s
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken_bytes(self) -> int:
        """The bytes in use."""
        return self._max_bytes - self._free_bytes

    def take_now(self, size: int) -> None:
        """Reserve bytes at once, or raise `Overloaded`."""
        if self._waiting or size > self._free_bytes:
            raise Overloaded
        self._free_bytes -= size

    async def take(self, size: int) -> None:
        """Reserve bytes; wait for them if necessary. Raises `Overloaded`."""
        if not self._waiting and size <= self._free_bytes:
            self._free_bytes -= size
            return
        if len(self._waiting) >= self._max_waiting or size > self._max_bytes:
            raise Overloaded
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # The bytes were granted at the same time as the time-out.
                self.give_back(size)
            else:
                # Requests behind this one may need less.
                turn.cancel()
                self._serve()
            if isinstance(error, TimeoutError):
                raise Overloaded from None
            raise

    def give_back(self, size: int) -> None:
        """Release bytes."""
        self._free_bytes += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done():
                if size > self._free_bytes:
                    return
                self._free_bytes -= size
                turn.set_result(None)
            self._waiting.popleft()
