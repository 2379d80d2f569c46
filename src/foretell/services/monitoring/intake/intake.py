"""Receives bodies within a memory limit, and answers after their records are stored.

Bodies wait undecoded, because decoded objects would take many times the memory. All bodies that arrive while others are
stored are the next batch (`kit/batching.py`).
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from foretell.kit.asgi import BodyTooLarge
from foretell.kit.batching import Batcher
from foretell.kit.errors import ForetellError
from foretell.kit.routing import AsgiRequest, Request
from foretell.services.monitoring import measures
from foretell.services.monitoring.intake.memory_limit import MemoryLimit
from foretell.services.monitoring.intake.reading import Reading
from foretell.services.monitoring.settings import BODY_SETTING, MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.writing import Writer

Read = Callable[[bytes, int], Reading]

_MAX_BODIES = 256
#: Bytes of bodies that are decoded at the same time.
_MAX_OBJECTS_BYTES = 4 * 1024 * 1024
#: How long a sender waits for memory before it gets 503.
_WAIT_S = 1.5
#: A body must arrive within this time, plus a second for each `_BODY_BYTES_PER_S`, because it reserves memory.
_BODY_TIMEOUT_S = 5.0
_BODY_BYTES_PER_S = 1024 * 1024


class BodyTooSlow(ForetellError):
    """The body was not complete within {timeout_s:.0f} s."""

    code = "body_too_slow"
    status = 408


class _Item(NamedTuple):
    body: bytes
    read: Read


class Intake:
    """Receives and stores all records, which share the memory limit and the database."""

    def __init__(self, database: MonitoringDatabase, settings: MonitoringSettings) -> None:
        self._writer = Writer(database)
        self._max_body_bytes = settings.monitoring_max_body_bytes
        self._max_records = settings.monitoring_max_records
        self._memory = MemoryLimit(max(settings.monitoring_max_waiting_bytes, self._max_body_bytes), wait_s=_WAIT_S)
        self._batcher: Batcher[_Item, Reading] = Batcher(self._store, max_batch=_MAX_BODIES)
        # In a thread, so that decoding does not block the event loop; only one, to limit memory.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")
        measures.WAITING_BYTES.set_function(lambda: self._memory.taken_bytes)

    async def take(self, request: Request, read: Read) -> Reading:
        """Store what `read` finds in the body, and return it. Raises `Overloaded`, and what `read` raises."""
        announced = self._announced(request)
        await self._memory.take(announced)
        # From here on, `MemoryLimit` limits the memory.
        request.let_go()
        taken = [announced]
        try:
            body = await self._body(request, announced, taken)
            return await self._batcher.submit(_Item(body, read))
        finally:
            self._memory.give_back(sum(taken))

    def _announced(self, request: Request) -> int:
        """The Content-Length, or 0. Raises `BodyTooLarge`."""
        announced = int(request.header(b"content-length") or 0)
        if announced > self._max_body_bytes:
            raise BodyTooLarge(max_bytes=self._max_body_bytes, setting=BODY_SETTING)
        return announced

    async def _body(self, request: Request, announced: int, taken: list[int]) -> bytes:
        """Read the body. Bytes beyond the announced length reserve more memory at once, which is added to `taken`."""
        assert isinstance(request, AsgiRequest), "no route of ours is answered past ASGI"
        timeout_s = _BODY_TIMEOUT_S + announced / _BODY_BYTES_PER_S
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(timeout_s):
                async for chunk in request.chunks():
                    size += len(chunk)
                    if size > self._max_body_bytes:
                        raise BodyTooLarge(max_bytes=self._max_body_bytes, setting=BODY_SETTING)
                    beyond = size - sum(taken)
                    if beyond > 0:
                        self._memory.take_now(beyond)
                        taken.append(beyond)
                    parts.append(chunk)
        except TimeoutError:
            raise BodyTooSlow(timeout_s=timeout_s) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _store(self, items: list[_Item]) -> Sequence[Reading | BaseException]:
        outcomes: list[Reading | BaseException] = []
        start = 0
        while start < len(items):
            end, size = start, 0
            while end < len(items) and (end == start or size + len(items[end].body) <= _MAX_OBJECTS_BYTES):
                size += len(items[end].body)
                end += 1
            outcomes += await self._store_together(items[start:end])
            start = end
        return outcomes

    async def _store_together(self, items: Sequence[_Item]) -> list[Reading | BaseException]:
        loop = asyncio.get_running_loop()
        readings = await loop.run_in_executor(self._thread, self._read, items)
        good = [reading for reading in readings if isinstance(reading, Reading)]
        logs = [row for reading in good for row in reading.logs]
        samples = [row for reading in good for row in reading.samples]
        try:
            await self._writer.write(logs, samples)
        except ForetellError as error:
            return [error if isinstance(reading, Reading) else reading for reading in readings]
        measures.LOGS_STORED.inc(len(logs))
        measures.SAMPLES_STORED.inc(len(samples))
        measures.RECORDS_REFUSED.inc(sum(reading.refused for reading in good))
        return readings

    def _read(self, items: Sequence[_Item]) -> list[Reading | BaseException]:
        readings: list[Reading | BaseException] = []
        for item in items:
            try:
                readings.append(item.read(item.body, self._max_records))
            except Exception as error:
                readings.append(error)
        return readings

    async def close(self) -> None:
        """Store the waiting bodies and end the thread."""
        await self._batcher.drain()
        self._thread.shutdown()
