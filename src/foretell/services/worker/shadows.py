"""Shadow versions: run on tasks that were just answered; their outputs are compared with the answers and discarded.

A shadow's outputs reach neither the broker nor the database, so no user sees them or pays for them. Shadows run in a
separate process, one envelope at a time; envelopes that arrive meanwhile are skipped. So a shadow that is slow, hangs
or crashes affects only its own comparisons.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import structlog

from foretell.contracts.messages import Result, TaskEnvelope, encode
from foretell.inference.differences import differs
from foretell.services.worker.measures import SHADOW_DIFFERENCE, SHADOW_TASKS
from foretell.services.worker.shadow_process import LENGTH_BYTES, decode_replies, framed

log = structlog.get_logger()

COMMAND = (sys.executable, "-P", "-m", "foretell.services.worker.shadow_process")
#: After a shadow hangs or crashes, no shadow runs for this long.
_PAUSE_S = 60.0
#: How long the process may take to start, in addition to its first answer. For a model that is not loaded yet, it
#: answers at once.
_START_S = 120.0


class Shadows:
    """Runs and compares the shadows of one worker."""

    def __init__(
        self,
        versions_of: Callable[[str], Sequence[str]],
        limit_s: Callable[[str, str], float],
        *,
        command: Sequence[str] = COMMAND,
        pause_s: float = _PAUSE_S,
        start_s: float = _START_S,
    ) -> None:
        """`versions_of(model)` names the shadow versions; `limit_s(model, version)` is how long one may take.

        The first answer of a new process may take `start_s` longer.
        """
        self._versions_of = versions_of
        self._limit_s = limit_s
        self._command = command
        self._pause_s = pause_s
        self._start_s = start_s
        self._process: asyncio.subprocess.Process | None = None
        self._under_way: asyncio.Task[None] | None = None
        self._paused_until = 0.0

    def offer(self, envelope: TaskEnvelope, results: Sequence[Result]) -> bool:
        """Start comparing the shadows with these results if there are shadows and none is busy. Never waits or raises.

        Returns whether they will be compared.
        """
        versions = [version for version in self._versions_of(envelope.model) if version != envelope.version]
        busy = self._under_way is not None and not self._under_way.done()
        if not versions or busy or time.monotonic() < self._paused_until:
            return False
        self._under_way = asyncio.create_task(self._compare_all(envelope, results, versions))
        return True

    async def idle(self) -> None:
        """Wait for the comparison under way."""
        if self._under_way is not None:
            await asyncio.wait({self._under_way})

    async def close(self) -> None:
        """Cancel the comparison under way and end the process."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.wait({self._under_way})
        await self._end_process()

    async def _compare_all(self, envelope: TaskEnvelope, results: Sequence[Result], versions: Sequence[str]) -> None:
        for version in versions:
            try:
                start_s = self._start_s if self._process is None else 0.0
                async with asyncio.timeout(self._limit_s(envelope.model, version) + start_s):
                    replies = await self._ask(msgspec.structs.replace(envelope, version=version))
                if replies:
                    _compare(envelope, version, results, replies)
            except Exception as error:
                # A time-out, a crash or an invalid answer: end the process, since nothing else depends on it.
                log.error(
                    "shadow_failed", model=envelope.model, version=version, error_type=type(error).__name__,
                    pause_s=self._pause_s,
                )  # fmt: skip
                SHADOW_TASKS.labels(envelope.model, envelope.version, version, "failed").inc(len(results))
                self._paused_until = time.monotonic() + self._pause_s
                await self._end_process()
                return

    async def _ask(self, envelope: TaskEnvelope) -> list[Result]:
        if self._process is None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(framed(encode(envelope)))
        await self._process.stdin.drain()
        length = await self._process.stdout.readexactly(LENGTH_BYTES)
        return decode_replies(await self._process.stdout.readexactly(int.from_bytes(length)))

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            # asyncio waits for the end of the output, too, and stops reading a large one that nobody takes.
            assert process.stdout is not None
            await asyncio.gather(process.wait(), process.stdout.read())


def _compare(envelope: TaskEnvelope, shadow: str, results: Sequence[Result], replies: Sequence[Result]) -> None:
    counts = {"same": 0, "different": 0, "failed": 0}
    for result, reply in zip(results, replies, strict=True):
        if not result.output or not reply.output:
            both = not result.output and not reply.output
            counts["same" if both else "different" if reply.output else "failed"] += 1
            continue
        answered, other = msgspec.json.decode(result.output), msgspec.json.decode(reply.output)
        counts["same" if differs(answered, other) is None else "different"] += 1
        for field, value in answered.items():
            if isinstance(value, float) and isinstance(other.get(field), float):
                labels = (envelope.model, envelope.version, shadow, field)
                SHADOW_DIFFERENCE.labels(*labels).observe(abs(value - other[field]))
    for outcome, count in counts.items():
        if count:
            SHADOW_TASKS.labels(envelope.model, envelope.version, shadow, outcome).inc(count)
    log.info("shadow_compared", model=envelope.model, version=envelope.version, shadow=shadow, **counts)
