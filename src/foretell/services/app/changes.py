"""Tells the pages that are open that something of their account has changed.

Events (`following.py`) are rows that are written with every prediction of the account and kept. A page needs none of
them: it only has to know when to read again. So one query for all streams compares marks of their accounts: when a
prediction of anybody has ended, and every second, since the broker's events may be lost. While predictions end without
a pause, the looks become rarer, up to one a second: they cost the same however many have ended.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from foretell.domain.notifications.changes import Mark, marks_of
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable
from foretell.services.app.listed import listed

_LOOK_EVERY_S = 1.0
#: The pause after a look: doubled after each that an ending has caused at once.
_SHORTEST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Followed:
    """An account that one stream follows."""

    def __init__(self) -> None:
        self.mark: Mark | None = None
        #: Set when `mark` has changed; the stream clears it.
        self.changed = asyncio.Event()


class Changes:
    """The accounts that streams of this process follow."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followed: dict[UUID, list[Followed]] = {}
        self._woken = asyncio.Event()

    @asynccontextmanager
    async def follow(self, user_id: UUID) -> AsyncIterator[Followed]:
        """Enter before `now`: the first look sets `changed`, also if nothing is new."""
        with listed(self._followed, user_id, Followed()) as followed:
            yield followed

    async def now(self, user_id: UUID) -> Mark | None:
        """The mark of an account; None if the database does not answer, then the first look gives it."""
        try:
            async with self._database.snapshot() as connection:
                return (await marks_of(connection, [user_id])).get(user_id)
        except Unavailable:
            return None

    def wake(self) -> None:
        """Look soon: a prediction has ended."""
        if self._followed:
            self._woken.set()

    async def look(self) -> None:
        """Compare the marks of all followed accounts when woken and every second, until cancelled."""
        pause_s = _SHORTEST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._woken.wait()
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except TimeoutError:
                pause_s = _SHORTEST_PAUSE_S
            self._woken.clear()
            if self._followed:
                await self._look()
                await asyncio.sleep(pause_s)

    async def _look(self) -> None:
        try:
            async with self._database.snapshot() as connection:
                marks = await marks_of(connection, list(self._followed))
        except Unavailable:
            return
        for user_id, mark in marks.items():
            for followed in self._followed.get(user_id, ()):
                if followed.mark != mark:
                    followed.mark = mark
                    followed.changed.set()
