"""The time of day and identifiers that sort by it."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from foretell.kit.randomness import RANDOM


def now() -> datetime:
    """The current moment, aware, in UTC."""
    return datetime.now(UTC)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_last_ms = 0
_counter = 0


def uuid7() -> UUID:
    """A UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, a 12-bit counter, 62 random bits.

    Identifiers made by one process sort in the order of their making; those of several processes sort by
    millisecond. Not for several threads at once.
    """
    global _last_ms, _counter
    milliseconds = time.time_ns() // 1_000_000
    if milliseconds > _last_ms:
        _last_ms, _counter = milliseconds, 0
    elif _counter == 0xFFF:
        # The counter is spent, or the clock went back: borrow the next millisecond rather than break the order.
        _last_ms, _counter = _last_ms + 1, 0
    else:
        _counter += 1
    # Identifiers must differ, not be secret, and this is a tenth of the time; a forked process is seeded anew.
    random_bits = RANDOM.getrandbits(62)
    return UUID(int=(_last_ms << 80) | (0x7 << 76) | (_counter << 64) | (0b10 << 62) | random_bits)


def uuid7_at(moment: datetime) -> UUID:
    """The smallest UUID version 7 of `moment`: a bound for comparing identifiers with a time."""
    # Whole numbers throughout: a float can end up in the millisecond before.
    return UUID(int=((moment - _EPOCH) // _MILLISECOND << 80) | (0x7 << 76) | (0b10 << 62))


def made_at(identifier: UUID) -> datetime:
    """When a UUID version 7 was made, to the millisecond."""
    return _EPOCH + (identifier.int >> 80) * _MILLISECOND
