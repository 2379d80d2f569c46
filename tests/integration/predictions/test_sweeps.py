"""Finding what was left behind, on both databases."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from tests.predictions import accepted, failed, id_of, submission, succeeded

from foretell.domain.predictions import sweeps
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Store
from foretell.domain.predictions.sweeps import Queued
from foretell.kit.clock import now
from foretell.kit.database import Database


async def _never_published(database: Database, before: datetime, limit: int = 100) -> list[UUID]:
    async with database.snapshot() as connection:
        return [found.id for found in await sweeps.never_published(connection, before=before, limit=limit)]


async def _lost(database: Database, at: datetime, after_s: float, limit: int = 100) -> list[UUID]:
    async with database.snapshot() as connection:
        found = await sweeps.lost(connection, at, after=timedelta(seconds=after_s), limit=limit)
    return [one.id for one in found]


async def _expired(database: Database, moment: datetime, limit: int = 100) -> Sequence[UUID]:
    async with database.snapshot() as connection:
        return await sweeps.expired(connection, moment, limit=limit)


@pytest.fixture
async def three(store: Store, ada: UUID) -> list[UUID]:
    """Accepted thirty, twenty and ten seconds ago."""
    return await accepted(store, *(submission(ada, age_s=age_s) for age_s in (30, 20, 10)))


async def test_never_published_are_those_without_a_mark_the_oldest_first(
    database: Database, store: Store, three: list[UUID]
) -> None:
    oldest, middle, newest = three
    assert await _never_published(database, now()) == three
    assert await _never_published(database, now() - timedelta(seconds=15)) == [oldest, middle]
    assert await _never_published(database, now() - timedelta(seconds=40)) == []
    assert await _never_published(database, now(), limit=1) == [oldest]
    await store.mark_published([middle], now())
    await settle(store, [failed(oldest)])
    assert await _never_published(database, now()) == [newest]


async def test_lost_are_those_that_were_published_long_ago_and_have_not_ended(
    database: Database, store: Store, ada: UUID
) -> None:
    at = now()
    first, second, third = asked = [submission(ada, age_s=age_s) for age_s in (60, 50, 40)]
    await accepted(store, *asked)
    assert await _lost(database, at, 0) == []
    for one in asked:
        await store.mark_published([one.id], one.created_at + timedelta(seconds=1))
    assert await _lost(database, at, 30) == [first.id, second.id, third.id]
    assert await _lost(database, at, 45) == [first.id, second.id]
    assert await _lost(database, at, 30, limit=1) == [first.id]
    assert await _lost(database, at, 70) == []
    await settle(store, [succeeded(first.id)])
    assert await _lost(database, at, 30) == [second.id, third.id]


async def test_what_a_clock_that_was_ahead_has_dated_is_found_at_once(
    database: Database, store: Store, ada: UUID
) -> None:
    ahead = timedelta(hours=2)
    at = now()
    # A clock came back, and the identifiers have not: what they say is no reason to wait.
    led, dated, usual = asked = [
        submission(ada, id=id_of(at + ahead), created_at=at - timedelta(seconds=10)),
        submission(ada, id=id_of(at + ahead), created_at=at + ahead),
        submission(ada, id=id_of(at), created_at=at),
    ]
    await accepted(store, *asked)
    assert set(await _never_published(database, at - timedelta(seconds=5))) == {led.id, dated.id}
    await store.mark_published([each.id for each in asked], at + ahead)
    assert set(await _lost(database, at, 30)) == {each.id for each in asked}
    # Published again, with a mark of today.
    await store.mark_published([dated.id, usual.id], at)
    assert await _lost(database, at, 30) == [led.id]


async def test_what_was_published_again_has_twice_as_long(database: Database, store: Store, ada: UUID) -> None:
    asked = submission(ada, age_s=1000)
    await accepted(store, asked)
    for published_after_s in (1, 30, 100, 400):
        published_at = asked.created_at + timedelta(seconds=published_after_s)
        await store.mark_published([asked.id], published_at)
        due_at = published_at + timedelta(seconds=max(30, published_after_s))
        assert await _lost(database, due_at, 30) == []
        assert await _lost(database, due_at + timedelta(microseconds=1), 30) == [asked.id]


async def test_expired_are_those_whose_time_is_up(database: Database, store: Store, ada: UUID) -> None:
    moment = now()
    long_ago, just_now, exactly, later = await accepted(
        store,
        submission(ada, expires_at=moment - timedelta(hours=1)),
        submission(ada, expires_at=moment - timedelta(microseconds=1)),
        submission(ada, expires_at=moment),
        submission(ada, expires_at=moment + timedelta(hours=1)),
    )
    assert await _expired(database, moment) == [long_ago, just_now]
    assert await _expired(database, moment, limit=1) == [long_ago]
    assert later in await _expired(database, moment + timedelta(hours=2))
    await settle(store, [succeeded(long_ago)])
    assert await _expired(database, moment + timedelta(seconds=1)) == [just_now, exactly]


async def test_what_is_found_makes_the_same_task(database: Database, store: Store, ada: UUID) -> None:
    payloads = [
        '{"слово": "Ж 😀", "число": 12345678901234567890.1234567890, "b": 1, "b": 2}'.encode(),
        b'{ "escaped" : "\\u0416\\ud83d\\ude00" }',
        b"1.50",
        b'"12"',
        b"null",
    ]
    asked = [submission(ada, payload=payload, pool="gpu", stage="features") for payload in payloads]
    await accepted(store, *asked)
    expected = [Queued(one.id, one.model, one.version, "gpu", "features", one.payload) for one in asked]
    async with database.snapshot() as connection:
        assert await sweeps.never_published(connection, before=now() + timedelta(seconds=5), limit=10) == expected
    await store.mark_published([one.id for one in asked], now())
    async with database.snapshot() as connection:
        found = await sweeps.lost(connection, now() + timedelta(minutes=5), after=timedelta(seconds=9), limit=10)
    assert found == expected
