"""Compares the clock of this machine with the database's."""

from foretell.kit.clock import now
from foretell.kit.database import Database, server_time
from foretell.kit.errors import ForetellError, Unavailable

#: Clocks of two machines always differ a little; if by more than this, one of them is wrong.
_APART_S = 300


class ClockWrong(ForetellError):
    """The clock of this machine is {seconds} s {direction} the database's. Let both be set from the network (NTP)."""

    code = "clock_wrong"
    status = 503


async def check_clock(database: Database) -> None:
    """Raises `ClockWrong` if our clock differs by minutes from the database's. Ignores an unreachable database."""
    try:
        async with database.snapshot() as connection:
            ahead_s = (now() - await server_time(connection)).total_seconds()
    except Unavailable:
        return
    if abs(ahead_s) > _APART_S:
        raise ClockWrong(seconds=round(abs(ahead_s)), direction="ahead of" if ahead_s > 0 else "behind")
