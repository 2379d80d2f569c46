"""Where in the queue: from few looks, with the pace at which its head moves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from foretell.domain.predictions import figures
from foretell.kit.errors import Unavailable
from foretell.services.app.queue_places import QueuePlaces


class _Database:
    """A queue of predictions 1 to N, without a database."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.looks = 0
        self.away = False

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Any]:
        if self.away:
            raise Unavailable(part="database")
        self.looks += 1
        yield self

    async def places(self, _: Any) -> list[tuple[UUID, int]]:
        return [(UUID(int=each), place) for place, each in enumerate(self.queue, 1)]


async def test_place_and_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    database: Any = _Database()
    monkeypatch.setattr(figures, "queue_places", database.places)
    at = [0.0]
    places = QueuePlaces(database, clock=lambda: at[0])
    database.queue = list(range(1, 101))
    place = await places.place_of(UUID(int=50))
    assert place is not None
    assert (place.ahead, place.expected_wait_s) == (49, None)
    # Those that came since stand behind everybody that was there.
    place = await places.place_of(UUID(int=500))
    assert place is not None
    assert place.ahead == 100
    assert database.looks == 1
    at[0], database.queue = 2.0, list(range(21, 101))
    place = await places.place_of(UUID(int=50))
    assert place is not None
    assert (place.ahead, place.expected_wait_s) == (29, 3.0)
    # Somebody looks again after a long time: nobody knows how fast it goes now.
    at[0] = 500.0
    place = await places.place_of(UUID(int=50))
    assert place is not None
    assert place.expected_wait_s is None
    # Where the database is away, what is known counts; where nothing is, nothing is said.
    database.away, at[0] = True, 600.0
    assert (await places.place_of(UUID(int=50))) is not None
    assert await QueuePlaces(database).place_of(UUID(int=1)) is None
