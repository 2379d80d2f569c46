"""Parses the times of records: ISO 8601, UTC by default, not in the future."""

import re
from datetime import UTC, datetime

from foretell.kit.clock import unix_ns
from foretell.kit.database import to_microseconds

#: The allowed difference between clocks, in seconds.
MAX_AHEAD_S = 300

# Python's parser accepts any character between date and time.
_LOOKS_RIGHT = re.compile(r"[0-9W-]{8,10}(?:[Tt ][0-9:.,]+(?: ?[+-][0-9:.]+|[Zz])?)?", re.ASCII).fullmatch

NO_MOMENT = "must be a time like 2026-01-05T09:30:00Z"
IN_FUTURE = f"must not be more than {MAX_AHEAD_S} s in the future"
BEFORE_1970 = "must not be before 1970"


def latest_us() -> int:
    """The latest allowed time of a record, in microseconds since 1970."""
    return unix_ns() // 1000 + MAX_AHEAD_S * 1_000_000


def moment_us(text: str, latest: int) -> int:
    """The time in `text`, in microseconds since 1970. Raises `ValueError` with the reason."""
    if _LOOKS_RIGHT(text) is None:
        raise ValueError(NO_MOMENT)
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(NO_MOMENT) from None
    microseconds = to_microseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    if microseconds > latest:
        raise ValueError(IN_FUTURE)
    if microseconds < 0:
        raise ValueError(BEFORE_1970)
    return microseconds
