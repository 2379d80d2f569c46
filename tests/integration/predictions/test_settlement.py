"""Ending predictions: the first ending counts, and it alone moves credits, on both databases."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
from tests.predictions import (
    OUTPUT,
    accepted,
    balance_of,
    failed,
    movements_of,
    open_account,
    statuses_of,
    submission,
    succeeded,
    view_of,
)

from foretell.contracts.messages import Failure
from foretell.domain.credits.ledger import Balance
from foretell.domain.errors import AlreadyFinished, NotFound
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Ending, Store
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database

OpenStores = Callable[[int], list[Store]]


async def _cancel(database: Database, user_id: UUID, prediction_id: UUID) -> None:
    async with database.transaction() as connection:
        await cancel(connection, user_id, prediction_id)


async def test_success_captures(database: Database, store: Store, ada: UUID) -> None:
    (identifier,) = await accepted(store, submission(ada, price_credits=3))
    ending = succeeded(identifier)
    (finished,) = await settle(store, [ending])
    assert (finished.id, finished.status, finished.error) == (identifier, "succeeded", None)
    assert isinstance(finished.output, msgspec.Raw)
    assert bytes(finished.output) == OUTPUT
    assert await balance_of(database, ada) == Balance(97, 0)
    assert await movements_of(database, ada) == [
        ("grant", 100, None),
        ("hold", 3, identifier),
        ("capture", 3, identifier),
    ]
    view = await view_of(database, ada, identifier)
    assert (view.status, view.worker_id, view.error) == ("succeeded", "worker-1", None)
    assert (view.published_at, view.started_at) == (ending.published_at, ending.started_at)
    assert view.finished_at == finished.finished_at
    assert bytes(view.output or b"") == OUTPUT


async def test_failure_releases(database: Database, store: Store, ada: UUID) -> None:
    (identifier,) = await accepted(store, submission(ada, price_credits=3))
    (finished,) = await settle(store, [failed(identifier, "timeout", "Слишком долго: {}%s\n'; --")])
    assert (finished.status, finished.output) == ("failed", msgspec.UNSET)
    assert await balance_of(database, ada) == Balance(100, 0)
    assert (await movements_of(database, ada))[1:] == [("hold", 3, identifier), ("release", 3, identifier)]
    view = await view_of(database, ada, identifier)
    assert (view.status, view.output) == ("failed", None)
    assert view.error == Failure("timeout", "Слишком долго: {}%s\n'; --")


async def test_the_first_ending_counts(database: Database, store: Store, ada: UUID) -> None:
    (identifier,) = await accepted(store, submission(ada))
    assert len(await settle(store, [succeeded(identifier)])) == 1
    assert await settle(store, [succeeded(identifier, b"0")]) == []
    assert await settle(store, [failed(identifier)]) == []
    view = await view_of(database, ada, identifier)
    assert (view.status, bytes(view.output or b"")) == ("succeeded", OUTPUT)
    assert await balance_of(database, ada) == Balance(99, 0)


async def test_an_ending_twice_in_a_batch_counts_once(database: Database, store: Store, ada: UUID) -> None:
    (identifier,) = await accepted(store, submission(ada))
    finished = await settle(store, [failed(identifier), succeeded(identifier), failed(identifier)])
    assert [(one.id, one.status) for one in finished] == [(identifier, "failed")]
    assert await balance_of(database, ada) == Balance(100, 0)


async def test_endings_of_nothing_are_passed_over(store: Store, ada: UUID) -> None:
    (identifier,) = await accepted(store, submission(ada))
    finished = await settle(store, [succeeded(uuid4()), succeeded(identifier), failed(uuid4())])
    assert [one.id for one in finished] == [identifier]
    assert await settle(store, []) == []


async def test_a_result_that_comes_after_cancelling_changes_nothing(
    database: Database, store: Store, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    await _cancel(database, ada, identifier)
    assert await settle(store, [succeeded(identifier)]) == []
    view = await view_of(database, ada, identifier)
    assert (view.status, view.output, view.worker_id) == ("canceled", None, None)
    assert await balance_of(database, ada) == Balance(100, 0)
    assert (await movements_of(database, ada))[-1] == ("release", 1, identifier)


async def test_cancelling_after_a_result_changes_nothing(database: Database, store: Store, ada: UUID) -> None:
    (identifier,) = await accepted(store, submission(ada))
    await settle(store, [succeeded(identifier)])
    with pytest.raises(AlreadyFinished):
        await _cancel(database, ada, identifier)
    with pytest.raises(NotFound):
        await _cancel(database, await open_account(database), identifier)
    assert await balance_of(database, ada) == Balance(99, 0)


async def test_a_large_batch_of_many_users(database: Database, store: Store) -> None:
    users = [await open_account(database, credits=1000) for _ in range(5)]
    batch = [submission(users[number % 5], price_credits=number % 4) for number in range(600)]
    ids = await accepted(store, *batch)
    endings = [(succeeded if number % 3 else failed)(identifier) for number, identifier in enumerate(ids)]
    random.Random(7).shuffle(endings)
    assert len(await settle(store, endings)) == 600
    expected = [
        1000 - sum(one.price_credits for place, one in enumerate(batch) if one.user_id == user and place % 3)
        for user in users
    ]
    assert [await balance_of(database, user) for user in users] == [Balance(credits, 0) for credits in expected]


async def test_two_dispatchers_with_the_same_results_settle_each_once(
    database: Database, open_stores: OpenStores, store: Store
) -> None:
    users = [await open_account(database, credits=1000) for _ in range(5)]
    ids = await accepted(store, *(submission(users[number % 5]) for number in range(300)))
    shuffled = random.Random(7)

    async def dispatch(own: Store) -> list[UUID]:
        settled = []
        for start in range(0, 300, 50):
            # In one order here and in another there, succeeding here and failing there.
            some = ids[start : start + 100]
            shuffled.shuffle(some)
            endings = [(succeeded if shuffled.random() < 0.5 else failed)(identifier) for identifier in some]
            settled += [one.id for one in await settle(own, endings)]
        return settled

    settled = await asyncio.gather(*map(dispatch, open_stores(3)))
    assert sorted(identifier for of_one in settled for identifier in of_one) == sorted(ids)
    assert "queued" not in await statuses_of(database, ids)
    assert [(await balance_of(database, user)).held for user in users] == [0] * 5


async def test_settling_cancelling_and_expiring_at_once_end_each_once(
    database: Database, open_stores: OpenStores, store: Store, ada: UUID
) -> None:
    ids = await accepted(store, *(submission(ada) for _ in range(60)))
    first, second = open_stores(2)

    async def cancel_all() -> int:
        canceled = 0
        for identifier in reversed(ids):
            with suppress(AlreadyFinished):
                await _cancel(database, ada, identifier)
                canceled += 1
        return canceled

    async def settle_all(own: Store, end: Callable[[UUID], Ending]) -> int:
        return sum([len(await settle(own, [end(each) for each in ids[at : at + 7]])) for at in range(0, 60, 7)])

    ended = await asyncio.gather(cancel_all(), settle_all(first, succeeded), settle_all(second, failed))
    assert sum(ended) == 60
    statuses = await statuses_of(database, ids)
    assert [statuses.count(status) for status in ("canceled", "succeeded", "failed")] == ended
    assert await balance_of(database, ada) == Balance(100 - ended[1], 0)


# The mark of publishing.


async def test_a_mark_is_kept_by_the_settlement(database: Database, store: Store, ada: UUID) -> None:
    marked, unmarked = await accepted(store, submission(ada), submission(ada))
    moment = now() - timedelta(seconds=5)
    await store.mark_published([marked, uuid7()], moment)
    assert (await view_of(database, ada, marked)).published_at == moment
    assert (await view_of(database, ada, unmarked)).published_at is None
    endings = [succeeded(marked), succeeded(unmarked)]
    await settle(store, endings)
    assert (await view_of(database, ada, marked)).published_at == moment
    # Its app died between publishing and marking: the worker's result says when it was.
    assert (await view_of(database, ada, unmarked)).published_at == endings[1].published_at


async def test_a_mark_that_comes_late_changes_nothing(database: Database, store: Store, ada: UUID) -> None:
    (identifier,) = await accepted(store, submission(ada))
    ending = succeeded(identifier)
    await settle(store, [ending])
    await store.mark_published([identifier], now() + timedelta(hours=1))
    assert (await view_of(database, ada, identifier)).published_at == ending.published_at


async def test_marks_and_settlements_at_once_never_wait_for_each_other_forever(
    database: Database, open_stores: OpenStores
) -> None:
    users = [await open_account(database, credits=10_000) for _ in range(4)]
    stores = open_stores(4)
    shuffled = random.Random(7)
    ids: list[UUID] = []

    async def walk(number: int) -> None:
        own, other = stores[number % 4], stores[(number + 1) % 4]
        for _ in range(6):
            mine = await accepted(own, *(submission(users[shuffled.randrange(4)]) for _ in range(12)))
            ids.extend(mine)
            # The marks of this batch, in another order, beside two dispatchers that got the same results, and of
            # batches of others that end at this moment.
            near = ids[-40:]
            shuffled.shuffle(near)
            endings = [(succeeded if shuffled.random() < 0.5 else failed)(each) for each in reversed(mine)]
            await asyncio.gather(own.mark_published(near, now()), settle(own, endings), settle(other, endings[::-1]))

    await asyncio.gather(*map(walk, range(8)))
    assert len(ids) == 8 * 6 * 12
    assert "queued" not in await statuses_of(database, ids)
    assert [(await balance_of(database, user)).held for user in users] == [0] * 4
