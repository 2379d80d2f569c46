"""Log lines that wait to be sent elsewhere, within a bound."""

import threading
from collections import deque
from typing import NamedTuple


class Chunk(NamedTuple):
    """Whole lines, as they were written."""

    data: bytes
    lines: int


class LogBuffer:
    """Keeps chunks of lines up to `max_bytes`; then the oldest chunks go, and their lines are counted as `dropped`.

    What was taken counts as kept until it is done or put back, so that the bound holds whatever happens.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._chunks: deque[Chunk] = deque()
        self._waiting_bytes = 0
        self._taken_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """How much waits and is not taken."""
        return self._waiting_bytes

    @property
    def kept_bytes(self) -> int:
        """How much is kept, with what is taken and not done."""
        return self._waiting_bytes + self._taken_bytes

    def add(self, data: bytes, lines: int) -> None:
        """Keep whole lines, and drop the oldest ones if there are too many now."""
        with self._lock:
            self._chunks.append(Chunk(data, lines))
            self._waiting_bytes += len(data)
            self._make_room()

    def _make_room(self) -> None:
        while self._chunks and self._waiting_bytes + self._taken_bytes > self._max_bytes:
            oldest = self._chunks.popleft()
            self._waiting_bytes -= len(oldest.data)
            self.dropped += oldest.lines

    def take(self, max_bytes: int) -> list[Chunk]:
        """The oldest chunks, as many as fit into `max_bytes` but at least one; none when nothing waits."""
        with self._lock:
            taken: list[Chunk] = []
            size = 0
            while self._chunks and (not taken or size + len(self._chunks[0].data) <= max_bytes):
                taken.append(self._chunks.popleft())
                size += len(taken[-1].data)
            self._waiting_bytes -= size
            self._taken_bytes += size
        return taken

    def done(self, taken: list[Chunk], *, dropped: bool = False) -> None:
        """What was taken need not be kept any more: it was sent, or it is `dropped` since nobody wants it."""
        with self._lock:
            self._taken_bytes -= sum(len(chunk.data) for chunk in taken)
            if dropped:
                self.dropped += sum(chunk.lines for chunk in taken)

    def put_back(self, taken: list[Chunk]) -> None:
        """What was taken could not be sent: it waits again, before all others."""
        with self._lock:
            size = sum(len(chunk.data) for chunk in taken)
            self._taken_bytes -= size
            self._waiting_bytes += size
            self._chunks.extendleft(reversed(taken))
