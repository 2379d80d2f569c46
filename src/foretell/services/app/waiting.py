"""Wakes the requests that wait for the end of a prediction.

The broker's event arrives quickly. Since events may be lost, one query for all waiting requests also polls the
database.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
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

#: How often the database is polled for endings whose event was lost.
_LOOK_INTERVAL_S = 1.0

Ended = asyncio.Future[Finished]


class Waiting:
    """The waiting requests of this process, by prediction."""

    def __init__(self, database: Database, any_ended: Callable[[], None] = lambda: None) -> None:
        """`any_ended` is called when a prediction of anybody has ended."""
        self._database = database
        self._any_ended = any_ended
        self._watched: dict[UUID, list[Ended]] = {}

    @asynccontextmanager
    async def watch(self, prediction_id: UUID) -> AsyncIterator[Ended]:
        """A future for the end of this prediction, if it ends from now on. Enter before reading or submitting it."""
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
        """Wake requests on the broker's events, until those end."""
        async for body in events:
            self._any_ended()
            if not self._watched:
                continue
            try:
                self.wake(decode_finished(body).predictions)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                log.warning("event_ignored", size_bytes=len(body))

    async def look(self) -> None:
        """Poll the database every second and wake requests, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            if not self._watched:
                continue
            try:
                async with self._database.snapshot() as connection:
                    views = await history.find_many(connection, list(self._watched))
            except Unavailable:
                # The requests keep waiting until their own time-outs.
                continue
            self.wake(finished_of(view) for view in views if view.finished_at is not None)

    def wake(self, finished: Iterable[Finished]) -> None:
        """Resolve the futures of these predictions: they have ended."""
        for prediction in finished:
            for ended in self._watched.pop(prediction.id, ()):
                if not ended.done():
                    ended.set_result(prediction)


def finished_of(view: PredictionView) -> Finished:
    """The end of a prediction that has ended in the database."""
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
