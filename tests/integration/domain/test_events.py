"""Events: written in the transaction that ends a prediction, for whoever listens and nobody else, counted gaplessly."""

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import func, select, update
from tests.integration.domain.conftest import Predicting
from tests.predictions import failed, succeeded

from foretell.domain.accounts.identity import User
from foretell.domain.credits import ledger
from foretell.domain.notifications import events, listening
from foretell.domain.notifications.events import BALANCE_LOW, PREDICTION_FINISHED, Event
from foretell.domain.notifications.tables import event_wakes, listeners
from foretell.domain.notifications.tables import events as events_table
from foretell.domain.predictions import event_views
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.tables import predictions
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database


async def _events_of(database: Database, user: User, *, after: int = 0) -> list[Event]:
    async with database.snapshot() as connection:
        return await events.page(connection, user.id, after=after, limit=1000)


async def _count(database: Database, table: Any) -> int:
    async with database.snapshot() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def _count_ended(database: Database) -> int:
    async with database.snapshot() as connection:
        ended = select(func.count()).where(predictions.c.status != "queued")
        return int(await connection.scalar(ended) or 0)


async def _listen(database: Database, user: User) -> None:
    async with database.transaction() as connection:
        await listening.begin(connection, user.id)


async def test_without_a_listener_nothing_is_written(database: Database, predicting: Predicting, anna: User) -> None:
    heard: list[Collection[UUID]] = []
    prediction = await predicting.submit(anna)
    assert await settle(open_store(database, heard.append), [succeeded(prediction)])
    other = await predicting.submit(anna)
    async with database.transaction() as connection:
        await cancel(connection, anna.id, other)
    assert (await _count(database, events_table), await _count(database, event_wakes), heard) == (0, 0, [])


async def test_every_way_to_end_is_told_to_whoever_listens(
    database: Database, predicting: Predicting, anna: User, boris: User
) -> None:
    heard: list[Collection[UUID]] = []
    store = open_store(database, heard.append)
    await _listen(database, anna)
    first, second, third = [await predicting.submit(anna) for _ in range(3)]
    other = await predicting.submit(boris)
    await settle(store, [failed(second), succeeded(other), succeeded(first)])
    async with database.transaction() as connection:
        await cancel(connection, anna.id, third)
    # A result that comes late changes nothing.
    await settle(store, [succeeded(third)])

    found = await _events_of(database, anna)
    assert [(event.sequence, event.id, event.type) for event in found] == [
        (number, identifier, PREDICTION_FINISHED) for number, identifier in enumerate([first, second, third], start=1)
    ]
    assert await _events_of(database, boris) == []
    assert heard == [[anna.id]]
    async with database.snapshot() as connection:
        wakes = (await connection.execute(select(event_wakes.c.after, event_wakes.c.upto))).all()
        shown = await event_views.shown(connection, found)
    assert sorted(tuple(wake) for wake in wakes) == [(0, 2), (2, 3)]
    statuses = [msgspec.json.decode(event.data)["status"] for event in shown]
    assert statuses == ["succeeded", "failed", "canceled"]
    assert msgspec.json.decode(shown[0].data)["input"] == {"carrier": "AA"}


async def test_what_is_rolled_back_is_not_told(database: Database, predicting: Predicting, anna: User) -> None:
    await _listen(database, anna)
    prediction = await predicting.submit(anna)

    class Stop(Exception):
        pass

    async def cancel_and_stop() -> None:
        async with database.transaction() as connection:
            await cancel(connection, anna.id, prediction)
            raise Stop

    with pytest.raises(Stop):
        await cancel_and_stop()
    assert await _events_of(database, anna) == []
    await predicting.succeed(prediction)
    assert [event.sequence for event in await _events_of(database, anna)] == [1]


async def test_a_webhook_of_its_own_has_an_event_without_any_listener(
    database: Database, predicting: Predicting, anna: User
) -> None:
    plain = await predicting.submit(anna)
    named = await predicting.submit(anna, webhook="https://example.com/done")
    store = open_store(database)
    await settle(store, [succeeded(plain), succeeded(named)])
    assert [(event.sequence, event.id) for event in await _events_of(database, anna)] == [(1, named)]
    canceled = await predicting.submit(anna, webhook="https://example.com/done")
    async with database.transaction() as connection:
        await cancel(connection, anna.id, canceled)
    async with database.snapshot() as connection:
        wakes = (await connection.execute(select(event_wakes.c.webhooks))).scalars().all()
        webhooks = (await connection.execute(select(events_table.c.webhook))).scalars().all()
    assert wakes == [True, True]
    assert webhooks == ["https://example.com/done"] * 2


async def test_sequences_have_no_gaps_whoever_settles(
    database: Database, empty_database_url: str, predicting: Predicting, anna: User, boris: User
) -> None:
    for user in (anna, boris):
        await _listen(database, user)
    ids = [await predicting.submit(user, price_credits=1) for _ in range(40) for user in (anna, boris)]
    others = [Database(empty_database_url) for _ in range(3)]
    try:
        # Each batch comes to all of them.
        batches = [ids[start : start + 8] for start in range(0, len(ids), 8)]
        await asyncio.gather(
            *(settle(open_store(other), [succeeded(each) for each in batch]) for batch in batches for other in others)
        )
    finally:
        for other in others:
            await other.close()
    for user in (anna, boris):
        found = await _events_of(database, user)
        assert [event.sequence for event in found] == list(range(1, 41))
        assert len({event.id for event in found}) == 40
    async with database.snapshot() as connection:
        last = await events.last_of(connection, [anna.id, boris.id])
        ranges = (
            await connection.execute(select(event_wakes.c.user_id, event_wakes.c.after, event_wakes.c.upto))
        ).all()
    assert last == {anna.id: 40, boris.id: 40}
    covered = sorted(number for user_id, after, upto in ranges if user_id == anna.id for number in range(after, upto))
    assert covered == list(range(40))


async def test_whoever_begins_to_listen_while_others_settle_misses_nothing(
    database: Database, empty_database_url: str, predicting: Predicting, anna: User
) -> None:
    ids = [await predicting.submit(anna, price_credits=1) for _ in range(60)]
    settling = Database(empty_database_url)

    async def settle_all() -> None:
        store = open_store(settling)
        for identifier in ids:
            await settle(store, [succeeded(identifier)])

    async def ask() -> None:
        # In the middle of it.
        while not await _count_ended(database):
            await asyncio.sleep(0)
        async with database.transaction() as connection:
            await event_views.ask(connection, anna.id, now())

    try:
        await asyncio.gather(settle_all(), ask())
    finally:
        await settling.close()
    found = await _events_of(database, anna)
    assert {event.id for event in found} == set(ids)
    assert [event.sequence for event in found] == list(range(1, 61))


async def test_the_first_to_ask_gets_what_ended_before(
    database: Database, predicting: Predicting, anna: User, boris: User
) -> None:
    ids = [await predicting.submit(anna) for _ in range(3)]
    hooked = await predicting.submit(anna, webhook="https://example.com/done")
    waiting = await predicting.submit(anna)
    old = await predicting.submit(anna)
    for identifier in (ids[1], ids[0], ids[2], hooked, old, await predicting.submit(boris)):
        await predicting.succeed(identifier)
    async with database.transaction() as connection:
        long_ago = now() - timedelta(days=8)
        await connection.execute(update(predictions).where(predictions.c.id == old).values(finished_at=long_ago))
    async with database.transaction() as connection:
        await event_views.ask(connection, anna.id, now())
    async with database.transaction() as connection:
        await event_views.ask(connection, anna.id, now())
    await predicting.succeed(waiting)
    found = await _events_of(database, anna)
    # In the order in which they ended; that of its own webhook was there before.
    assert [event.id for event in found] == [hooked, ids[1], ids[0], ids[2], waiting]
    assert [event.sequence for event in found] == [1, 2, 3, 4, 5]
    # Nobody is sent what happened before.
    assert [event.endpoint_id is None for event in found] == [True, False, False, False, True]
    async with database.snapshot() as connection:
        assert await listening.has_asked(connection, anna.id, now())
        assert not await listening.has_asked(connection, anna.id, now() + timedelta(hours=2))
        assert not await listening.has_asked(connection, boris.id, now())


async def test_a_low_balance_is_told_once_each_time_it_is_crossed(
    database: Database, predicting: Predicting, anna: User
) -> None:
    await _listen(database, anna)
    async with database.transaction() as connection:
        await events.set_threshold(connection, anna.id, 97)

    async def low() -> list[dict[str, int]]:
        found = [event for event in await _events_of(database, anna) if event.type == BALANCE_LOW]
        return [msgspec.json.decode(event.data or "") for event in found]

    await predicting.succeed(await predicting.submit(anna))
    # Held is not spent, and what fails comes back.
    still_held = [await predicting.submit(anna) for _ in range(2)]
    await predicting.fail(await predicting.submit(anna))
    assert await low() == []
    await predicting.succeed(still_held[0])
    assert await low() == [{"available": 94, "held": 2, "threshold": 97}]
    await predicting.succeed(still_held[1])
    assert len(await low()) == 1
    async with database.transaction() as connection:
        await ledger.top_up(connection, anna.id, 10)
    await predicting.succeed(await predicting.submit(anna, price_credits=20))
    assert (await low())[1:] == [{"available": 84, "held": 0, "threshold": 97}]
    found = await _events_of(database, anna)
    assert [event.sequence for event in found] == list(range(1, len(found) + 1))


async def test_a_threshold_above_what_is_left_is_told_at_once_and_once(
    database: Database, predicting: Predicting, anna: User
) -> None:
    async def told_low(threshold: int | None) -> list[dict[str, int]]:
        async with database.transaction() as connection:
            await events.set_threshold(connection, anna.id, threshold)
        found = [event for event in await _events_of(database, anna) if event.type == BALANCE_LOW]
        return [msgspec.json.decode(event.data or "") for event in found]

    # Nobody listens.
    assert await told_low(1000) == []
    await _listen(database, anna)
    # The threshold before was crossed already, and exactly as much is not below.
    assert await told_low(500) == []
    assert await told_low(100) == []
    prediction_id = await predicting.submit(anna, price_credits=10)
    assert await told_low(101) == [{"available": 90, "held": 10, "threshold": 101}]
    for threshold in (101, 200, None):
        assert len(await told_low(threshold)) == 1
    await predicting.succeed(prediction_id)
    assert (await told_low(95))[1:] == [{"available": 90, "held": 0, "threshold": 95}]


async def test_an_account_that_nobody_listens_for_any_more_is_left_alone(
    database: Database, predicting: Predicting, anna: User
) -> None:
    async with database.transaction() as connection:
        await event_views.ask(connection, anna.id, now())
    async with database.transaction() as connection:
        assert await listening.end_old(connection, now(), limit=10) == 0
    async with database.transaction() as connection:
        assert await listening.end_old(connection, now() + timedelta(days=8), limit=10) == 1
    first = await predicting.submit(anna)
    await predicting.succeed(first)
    assert await _events_of(database, anna) == []
    assert await _count(database, listeners) == 0
    async with database.transaction() as connection:
        await event_views.ask(connection, anna.id, now())
    assert [event.id for event in await _events_of(database, anna)] == [first]


async def test_events_are_kept_for_as_long_as_it_is_said(
    database: Database, predicting: Predicting, anna: User, boris: User, join: Callable[..., Any]
) -> None:
    for user in (anna, boris):
        await _listen(database, user)
        for _ in range(5):
            await predicting.succeed(await predicting.submit(user))
    async with database.transaction() as connection:
        old = events_table.c.sequence <= 3
        await connection.execute(update(events_table).where(old).values(created_at=now() - timedelta(days=8)))
    deleted = []
    while not deleted or deleted[-1]:
        async with database.transaction() as connection:
            deleted.append(await events.delete_old(connection, before=now() - events.KEPT, limit=4))
    assert deleted == [4, 2, 0]
    for user in (anna, boris):
        assert [event.sequence for event in await _events_of(database, user)] == [4, 5]
    # One that was added later may be older than those before it.
    async with database.transaction() as connection:
        await events.fill(connection, anna.id, [(uuid7(), now() - timedelta(days=8))])
    async with database.transaction() as connection:
        assert await events.delete_old(connection, before=now() - events.KEPT, limit=4) == 1
    assert [event.sequence for event in await _events_of(database, anna)] == [4, 5]
