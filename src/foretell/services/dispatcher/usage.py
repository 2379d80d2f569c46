"""Keeps the sums of each account's usage, some seconds behind the settlement."""

import asyncio
import time

import structlog

from foretell.domain.predictions import usage
from foretell.domain.predictions.usage import Frontier
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError
from foretell.kit.pauses import set_within

log = structlog.get_logger()

_LOOK_EVERY_S = 5.0
#: Movements that one transaction reads, and the share of the time that catching up with a long history may take.
_MOST = 5000
_SHARE = 0.2


class UsageSums:
    """The loop that adds up usage. Any number of dispatchers may run it."""

    def __init__(self, database: Database, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._database = database
        self._look_every_s = look_every_s
        #: The frontier read last. Then: a movement, and the transaction id below which all must have ended until no
        #: movement can appear before that one.
        self._seen: Frontier | None = None
        self._waiting: tuple[int, int] | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Add up until `stopping` is set."""
        while not stopping.is_set():
            try:
                upto = await self.complete_up_to()
                if upto is not None:
                    await self._add(upto, stopping)
            except ForetellError as error:
                log.warning("usage_not_added_up", reason=error.message)
            await set_within(stopping, self._look_every_s)

    async def complete_up_to(self) -> int | None:
        """The id of a movement before which no other can appear any more, or None. Raises `Unavailable`.

        A transaction that takes a movement's id gets its own id, at the latest, in the same statement. So every
        transaction that may still commit a movement below the highest id seen has begun by the next look. When all that
        had begun by then have ended, no movement is missing.
        """
        async with self._database.snapshot() as connection:
            now = await usage.frontier(connection)
        if self._database.dialect == "sqlite":
            return now.ledger_id
        seen, self._seen = self._seen, now
        complete = None
        if self._waiting is not None and now.oldest_running >= self._waiting[1]:
            complete, self._waiting = self._waiting[0], None
        if self._waiting is None and seen is not None:
            self._waiting = (seen.ledger_id, now.next_to_begin)
        return complete

    async def _add(self, upto: int, stopping: asyncio.Event) -> None:
        left = 1
        while left and not stopping.is_set():
            began = time.monotonic()
            async with self._database.transaction() as connection:
                left = await usage.add_up(connection, upto, most=_MOST)
            if left:
                # Catching up with a long history: the pause leaves the database to settlement.
                await asyncio.sleep((time.monotonic() - began) * (1 / _SHARE - 1))
