"""The processes of a peer: started, spoken to, weighed and ended."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO

import psutil

STOP_TIMEOUT_S = 20.0


class PeerFailed(Exception):
    """The peer did not start, stopped answering, or left a task over."""


class Submitter:
    """The process that submits; it is told what to do line by line (see `celery_app/submit.py`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def expect(self, word: str, timeout_s: float) -> str:
        """The rest of the next line, which must begin with `word`."""
        try:
            async with asyncio.timeout(timeout_s):
                line = (await self._stdout.readline()).decode()
        except TimeoutError:
            raise PeerFailed(f"the submitter did not say {word!r} within {timeout_s:.0f} s") from None
        head, _, rest = line.strip().partition(" ")
        if head != word:
            raise PeerFailed(f"the submitter said {line!r} instead of {word!r}")
        return rest

    def tell(self, *words: object) -> None:
        """Give an order."""
        self._stdin.write((" ".join(map(str, words)) + "\n").encode())


@dataclass(frozen=True)
class Member:
    """One process of the peer."""

    role: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """Processor time so far, the system's included."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def family_of(role: str, process: asyncio.subprocess.Process) -> list[Member]:
    """The process and all its children."""
    try:
        head = psutil.Process(process.pid)
        return [Member(role, member) for member in (head, *head.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


@asynccontextmanager
async def running(
    command: Sequence[str], environment: dict[str, str], log: IO[bytes], *, pipes: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process, and its children, for the time of the block: ended in an orderly way, by force if that fails."""
    pipe = asyncio.subprocess.PIPE if pipes else None
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=pipe or asyncio.subprocess.DEVNULL,
        stdout=pipe or log,
        stderr=log,
        cwd=tempfile.gettempdir(),
        env=environment,
        # A Ctrl-C is for the driver, which then ends its processes one after the other.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        family = [member.process for member in family_of("", process)]
        if process.returncode is None:
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        for member in family:
            # psutil knows a process by its start time too: never a stranger who was given the same id.
            with suppress(psutil.NoSuchProcess):
                member.kill()
        await process.wait()
