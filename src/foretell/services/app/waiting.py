"""Wake those who wait for the end of a prediction.

The event from the broker is the fast way. Since events may be lost, the database is asked now and then too, once for
all who wait.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import msgspec
import structlog

from foretell.contracts.messages import Finished, decode_finished
from foretell.domain.predictions import history
from foretell.domain.predictions.history import PredictionView
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable

log = structlog.get_logger()

#: How often the database is asked for endings whose event did not come.
_LOOK_INTERVAL_S = 1.0

Ended = asyncio.Future[Finished]


class Waiting:
    """Who waits for which prediction, in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watched: dict[UUID, list[Ended]] = {}

    @asynccontextmanager
    async def watch(self, prediction_id: UUID) -> AsyncIterator[Ended]:
        """A future that gets the end of this prediction, if it ends from now on. Begin before you look or submit."""
        ended: Ended = asyncio.get_running_loop().create_future()
        self._watched.setdefault(prediction_id, []).append(ended)
        try:
            yield ended
        finally:
            ended.cancel()
            watchers = self._watched.get(prediction_id, [])
            if ended in watchers:
                watchers.remove(ended)
            if not watchers:
                self._watched.pop(prediction_id, None)

    async def listen(self, events: AsyncIterator[bytes]) -> None:
        """Wake by the broker's events, for as long as they come."""
        async for body in events:
            if not self._watched:
                continue
            try:
                self.wake(decode_finished(body).predictions)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                log.warning("event_ignored", size_bytes=len(body))

    async def look(self) -> None:
        """Wake by the database, every second, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            if not self._watched:
                continue
            try:
                async with self._database.snapshot() as connection:
                    views = await history.find_many(connection, list(self._watched))
            except Unavailable:
                # Whoever waits goes on waiting until their own time is up.
                continue
            self.wake(finished_of(view) for view in views if view.finished_at is not None)

    def wake(self, finished: Iterable[Finished]) -> None:
        """Give these ends to those who wait for them."""
        for prediction in finished:
            for ended in self._watched.pop(prediction.id, ()):
                if not ended.done():
                    ended.set_result(prediction)


def finished_of(view: PredictionView) -> Finished:
    """The end of a prediction that the database says has ended."""
    assert view.finished_at is not None
    return Finished(
        id=view.id,
        status=view.status,
        finished_at=view.finished_at,
        output=view.output or msgspec.UNSET,
        error=view.error,
        worker_id=view.worker_id,
        started_at=view.started_at,
        published_at=view.published_at,
    )
