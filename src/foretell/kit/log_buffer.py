"""A bounded buffer of log lines that wait to be sent."""

import threading
from collections import deque
from typing import NamedTuple


class Chunk(NamedTuple):
    """Whole lines, as they were written."""

    data: bytes
    lines: int


class LogBuffer:
    """Stores chunks of lines up to `max_bytes`; beyond it the oldest are dropped, and their lines counted as `dropped`.

    Taken chunks count until `done` or `put_back`, so that the limit always holds.
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
        """Bytes that wait and are not taken."""
        return self._waiting_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes that are stored, including taken ones."""
        return self._waiting_bytes + self._taken_bytes

    def add(self, data: bytes, lines: int) -> None:
        """Store whole lines, and drop the oldest ones if there are too many."""
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
        """The oldest chunks, up to `max_bytes` but at least one; none if the buffer is empty."""
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
        """Free taken chunks: they were sent, or `dropped` because the server refuses them."""
        with self._lock:
            self._taken_bytes -= sum(len(chunk.data) for chunk in taken)
            if dropped:
                self.dropped += sum(chunk.lines for chunk in taken)

    def put_back(self, taken: list[Chunk]) -> None:
        """Return taken chunks that could not be sent to the front of the buffer."""
        with self._lock:
            size = sum(len(chunk.data) for chunk in taken)
            self._taken_bytes -= size
            self._waiting_bytes += size
            self._chunks.extendleft(reversed(taken))
