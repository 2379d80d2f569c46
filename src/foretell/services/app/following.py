"""Wake those who follow the events of an account.

A hint from the broker is the fast way. Since hints may be lost, the database is asked every second, too, once for all.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
import structlog

from foretell.contracts.messages import decode_told
from foretell.domain.notifications import events
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable

log = structlog.get_logger()

_LOOK_INTERVAL_S = 1.0


class Following:
    """Who follows the events of which account, in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followed: dict[UUID, list[asyncio.Event]] = {}
        self._last: dict[UUID, int] = {}

    @asynccontextmanager
    async def follow(self, user_id: UUID) -> AsyncIterator[asyncio.Event]:
        """An `asyncio.Event` that is set when there may be new events. Begin before you look; clear it yourself."""
        written = asyncio.Event()
        self._followed.setdefault(user_id, []).append(written)
        try:
            yield written
        finally:
            self._followed[user_id].remove(written)
            if not self._followed[user_id]:
                del self._followed[user_id]
                self._last.pop(user_id, None)

    def wake(self, users: Iterable[UUID]) -> None:
        """These may have new events."""
        for user_id in users:
            for written in self._followed.get(user_id, ()):
                written.set()

    async def listen(self, announced: AsyncIterator[bytes]) -> None:
        """Wake by the broker's events, for as long as they come."""
        async for body in announced:
            if not self._followed:
                continue
            try:
                self.wake(decode_told(body).users)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                log.warning("event_ignored", size_bytes=len(body))

    async def look(self) -> None:
        """Wake by the database, every second, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            if not self._followed:
                continue
            try:
                async with self._database.snapshot() as connection:
                    last = await events.last_of(connection, list(self._followed))
            except Unavailable:
                continue
            self.wake(user_id for user_id, sequence in last.items() if sequence != self._last.get(user_id))
            self._last = last
