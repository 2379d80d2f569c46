"""Pauses that end early."""

import asyncio
from contextlib import suppress


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, for at most `seconds`; returns whether it is set.

    Until Python 3.12, `asyncio.wait_for` loses a cancellation that comes at the moment when the event is set: the
    cancelled task goes on, and whoever waits for its end waits for ever.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
