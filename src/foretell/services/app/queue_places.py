"""Estimates a prediction's place in the queue and its waiting time, at a cost that does not grow with the requests.

The queue is read at most every two seconds, and only on request. Its pace is the number of places that its oldest
prediction has advanced between two reads.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from foretell.contracts.http import QueuePlace
from foretell.domain.predictions import figures
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable

_LOOK_EVERY_S = 2.0
#: Two reads further apart than this give no current pace.
_FORGOTTEN_AFTER_S = 60.0
#: The weight of the newest pace in the moving average.
_NEWEST_COUNTS = 0.3


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    ids: list[UUID]
    places: list[int]

    def ahead_of(self, prediction_id: UUID) -> int:
        """The number of predictions before this one."""
        index = bisect_left(self.ids, prediction_id)
        if index < len(self.ids):
            return self.places[index] - 1
        return self.places[-1] if self.places else 0


class QueuePlaces:
    """The queue of this installation, at most two seconds old."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._looked: _Look | None = None
        self._per_s: float | None = None
        self._looking: asyncio.Task[None] | None = None

    async def place_of(self, prediction_id: UUID) -> QueuePlace | None:
        """The place of this queued prediction; None when it is unknown."""
        look = self._looked
        if look is None or self._clock() - look.at >= _LOOK_EVERY_S:
            # One query answers all concurrent callers, so the end of one caller must not cancel it.
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await asyncio.shield(self._looking)
            look = self._looked
        if look is None:
            return None
        ahead = look.ahead_of(prediction_id)
        wait_s = None if not self._per_s else round((ahead + 1) / self._per_s, 1)
        return QueuePlace(ahead=ahead, expected_wait_s=wait_s)

    async def _look(self) -> None:
        try:
            async with self._database.snapshot() as connection:
                found = await figures.queue_places(connection)
        except Unavailable:
            # The place is optional; the prediction is answered without it.
            return
        before, at = self._looked, self._clock()
        self._looked = look = _Look(at, [each for each, _ in found], [place for _, place in found])
        if before is None or at - before.at > _FORGOTTEN_AFTER_S:
            self._per_s = None
        elif before.ids:
            # A queue that is empty now has advanced by at least its former length.
            moved = before.ahead_of(look.ids[0]) if look.ids else before.places[-1]
            pace = moved / max(at - before.at, 0.001)
            self._per_s = pace if not self._per_s else _NEWEST_COUNTS * pace + (1 - _NEWEST_COUNTS) * self._per_s
