"""Waking those who wait."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from tests.predictions import accepted, open_account, submission, succeeded

from foretell.contracts.messages import Finished, FinishedEvent, encode
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database
from foretell.services.app.waiting import Waiting


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'foretell.db'}")
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture
def waiting(database: Database) -> Waiting:
    return Waiting(database)


def _finished(identifier: UUID) -> Finished:
    return Finished(identifier, "succeeded", now(), output=msgspec.Raw(b"1"))


async def _events(*bodies: bytes) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body


async def test_everybody_who_waits_for_it_is_woken_and_nobody_else(waiting: Waiting) -> None:
    mine, other = uuid7(), uuid7()
    async with waiting.watch(mine) as first, waiting.watch(mine) as second, waiting.watch(other) as third:
        waiting.wake([_finished(uuid7()), _finished(mine), _finished(mine)])
        assert first.result().id == second.result().id == mine
        assert not third.done()


async def test_who_left_is_not_woken_and_those_who_stayed_are(waiting: Waiting) -> None:
    mine = uuid7()
    async with waiting.watch(mine) as stayed:
        async with waiting.watch(mine) as left:
            pass
        waiting.wake([_finished(mine)])
        assert left.cancelled()
        assert stayed.result().id == mine


async def test_events_wake_and_garbage_is_passed_over(waiting: Waiting) -> None:
    mine = uuid7()
    async with waiting.watch(mine) as ended:
        good = encode(FinishedEvent([_finished(uuid7()), _finished(mine)]))
        await waiting.listen(_events(b"", b"\xff", b"[" * 100_000, b'{"predictions":[{}]}', good))
        assert ended.result().id == mine


async def test_the_database_wakes_whose_event_was_lost(database: Database, waiting: Waiting) -> None:
    ada = await open_account(database)
    store = open_store(database)
    mine, queued = await accepted(store, submission(ada), submission(ada))
    looking = asyncio.create_task(waiting.look())
    async with waiting.watch(mine) as ended, waiting.watch(queued) as not_yet:
        (finished,) = await settle(store, [succeeded(mine)])
        told = await ended
        # The same as the event would have said.
        assert (told.id, told.status, told.finished_at) == (mine, "succeeded", finished.finished_at)
        assert isinstance(told.output, msgspec.Raw)
        assert isinstance(finished.output, msgspec.Raw)
        assert bytes(told.output) == bytes(finished.output)
        assert (told.worker_id, told.started_at) == (finished.worker_id, finished.started_at)
        assert not not_yet.done()
    looking.cancel()
    await asyncio.wait({looking})
    assert looking.cancelled()
