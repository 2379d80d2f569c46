"""The time of day and identifiers that sort by it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog

from foretell.kit.randomness import RANDOM

log = structlog.get_logger()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SECOND_NS = 1_000_000_000

#: A step of the machine's clock up to this size is followed at once.
_FOLLOWED_NS = 5 * _SECOND_NS
#: A larger step is followed when the clock has kept it for so long.
_BELIEVED_AFTER_NS = 60 * _SECOND_NS


def _elapsed_ns() -> int:
    # On Linux, a clock that includes sleep, so that the time is right directly after a wake-up.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns()


class _Jump(NamedTuple):
    """A step of the machine's clock that is not followed yet."""

    offset_ns: int
    since_ns: int


class SteadyClock:
    """The machine's time of day, without its jumps.

    If a clock is two hours ahead for five seconds, this must not expire predictions, delete stored data, or date rows
    into the future. So a step of more than 5 s is followed only after the clock has kept it for 60 s; until then
    the time continues from its last value. With several threads, at worst a jump is logged twice.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, elapsed_ns: Callable[[], int] = _elapsed_ns) -> None:
        """`wall_ns` is the machine's time of day since 1970, `elapsed_ns` a clock that can't be set."""
        self._wall_ns = wall_ns
        self._elapsed_ns = elapsed_ns
        self._offset_ns = wall_ns() - elapsed_ns()
        self._jump: _Jump | None = None

    def ns(self) -> int:
        """Nanoseconds since 1970."""
        elapsed = self._elapsed_ns()
        wall = self._wall_ns()
        offset = wall - elapsed
        if -_FOLLOWED_NS <= offset - self._offset_ns <= _FOLLOWED_NS:
            self._offset_ns = offset
            if self._jump is not None:
                self._jump = None
                log.info("clock_came_back")
            return wall
        jump = self._jump
        if jump is None or abs(offset - jump.offset_ns) > _FOLLOWED_NS:
            self._jump = _Jump(offset, elapsed)
            # Logged after the state is set, because the log line asks this clock for the time.
            log.warning("clock_jumped", by_s=round((offset - self._offset_ns) / _SECOND_NS, 1))
        elif elapsed - jump.since_ns >= _BELIEVED_AFTER_NS:
            self._jump = None
            by_s = round((offset - self._offset_ns) / _SECOND_NS, 1)
            self._offset_ns = offset
            log.warning("clock_followed", by_s=by_s)
            return wall
        return elapsed + self._offset_ns


_clock = SteadyClock()
#: Nanoseconds since 1970 by the clock of this process.
unix_ns = _clock.ns


def unix_s() -> float:
    """Seconds since 1970 by the clock of this process."""
    return unix_ns() / _SECOND_NS


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.fromtimestamp(unix_ns() // 1000 / 1_000_000, UTC)


class Identifiers:
    """Makes UUIDs version 7 (RFC 9562): 48 bits of Unix milliseconds, a 12-bit counter, 62 random bits.

    Those of one object sort in order of creation, unless the clock was set back by more than 10 s. Then they follow
    the clock; otherwise they would be dated into the future for as long as the clock was wrong.
    """

    _LONGEST_LEAD_MS = 10_000

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        """`clock_ns` is the time since 1970."""
        self._clock_ns = clock_ns
        self._last_ms = 0
        self._counter = 0

    def make(self) -> UUID:
        """A new identifier. Not thread-safe."""
        milliseconds = self._clock_ns() // 1_000_000
        if milliseconds > self._last_ms or milliseconds < self._last_ms - self._LONGEST_LEAD_MS:
            self._last_ms, self._counter = milliseconds, 0
        elif self._counter == 0xFFF:
            # The counter is exhausted, or the clock went back: use the next millisecond, to keep the order.
            self._last_ms, self._counter = self._last_ms + 1, 0
        else:
            self._counter += 1
        # Identifiers must be unique, not secret; this takes a tenth of the time of os.urandom. A fork is seeded again.
        random_bits = RANDOM.getrandbits(62)
        return UUID(int=(self._last_ms << 80) | (0x7 << 76) | (self._counter << 64) | (0b10 << 62) | random_bits)


#: A new UUID version 7, by the clock of this process (`Identifiers.make`).
uuid7 = Identifiers(unix_ns).make


def uuid7_at(moment: datetime) -> UUID:
    """The smallest UUID version 7 of `moment`, to select identifiers by time.

    Do not use it to find what is *due*: an identifier has the time of its creator's clock, which may be wrong.
    """
    # Whole numbers throughout: a float can end up in the millisecond before.
    return UUID(int=((moment - _EPOCH) // _MILLISECOND << 80) | (0x7 << 76) | (0b10 << 62))


def made_at(identifier: UUID) -> datetime:
    """When a UUID version 7 was made, to the millisecond."""
    return _EPOCH + (identifier.int >> 80) * _MILLISECOND
