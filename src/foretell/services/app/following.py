"""Wakes the event streams of accounts that have new events.

The broker announces new events quickly. Since announcements may be lost, one query for all streams also polls the
database every second.
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
from foretell.services.app.listed import listed

log = structlog.get_logger()

_LOOK_INTERVAL_S = 1.0


class Following:
    """The event streams of this process, by account."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followed: dict[UUID, list[asyncio.Event]] = {}
        self._last: dict[UUID, int] = {}

    @asynccontextmanager
    async def follow(self, user_id: UUID) -> AsyncIterator[asyncio.Event]:
        """An `asyncio.Event` that is set when there may be new events. Enter before reading; the caller clears it."""
        try:
            with listed(self._followed, user_id, asyncio.Event()) as written:
                yield written
        finally:
            if user_id not in self._followed:
                self._last.pop(user_id, None)

    def wake(self, users: Iterable[UUID]) -> None:
        """Wake the streams of these accounts."""
        for user_id in users:
            for written in self._followed.get(user_id, ()):
                written.set()

    async def listen(self, announced: AsyncIterator[bytes]) -> None:
        """Wake streams on announcements from the broker, until those end."""
        async for body in announced:
            if not self._followed:
                continue
            try:
                self.wake(decode_told(body).users)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                log.warning("event_ignored", size_bytes=len(body))

    async def look(self) -> None:
        """Poll the database every second and wake streams, until cancelled."""
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
