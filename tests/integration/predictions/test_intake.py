"""Accepting predictions: each promised once, each paid for, on both databases."""

import asyncio
from collections import Counter
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from tests.predictions import (
    accepted,
    balance_of,
    movements_of,
    open_account,
    submission,
    succeeded,
    view_of,
)

from foretell.domain.credits.ledger import Balance
from foretell.domain.errors import IdempotencyKeyInFlight, IdempotencyKeyReused, NotEnoughCredits, NotFound
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.intake import Receipt, accept
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Store, Submission
from foretell.domain.predictions.tables import predictions
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError

OpenStores = Callable[[int], list[Store]]
_HASH, _OTHER_HASH = b"the same request", b"another request!"


async def _count(database: Database) -> int:
    async with database.snapshot() as connection:
        return int(await connection.scalar(select(func.count()).select_from(predictions)) or 0)


def _keyed(user_id: UUID, key: str, request_hash: bytes = _HASH) -> Submission:
    return submission(user_id, idempotency_key=key, request_hash=request_hash)


async def test_what_is_accepted_is_queued_and_held(database: Database, store: Store, ada: UUID) -> None:
    asked = submission(ada, price_credits=3, stage="features", pool="gpu", payload=b'{"distance": 1.50}')
    (outcome,) = await accept(store, [asked])
    assert outcome == Receipt(asked.id, "queued")
    assert await balance_of(database, ada) == Balance(available=97, held=3)
    assert await movements_of(database, ada) == [("grant", 100, None), ("hold", 3, asked.id)]
    view = await view_of(database, ada, asked.id)
    assert (view.status, view.stage, view.price_credits) == ("queued", "features", 3)
    assert (view.created_at, view.expires_at) == (asked.created_at, asked.expires_at)
    assert bytes(view.input or b"") == b'{"distance": 1.50}'
    assert view.published_at is view.started_at is view.finished_at is view.output is view.error is None


async def test_a_batch_of_many_users_is_accepted_in_order(database: Database, store: Store) -> None:
    users = [await open_account(database, credits=10) for _ in range(4)]
    batch = [submission(users[number % 4]) for number in range(40)]
    assert await accept(store, batch) == [Receipt(one.id, "queued") for one in batch]
    assert [await balance_of(database, user) for user in users] == [Balance(0, 10)] * 4


async def test_nothing_is_nothing(store: Store) -> None:
    assert await accept(store, []) == []


async def test_what_costs_nothing_is_accepted_without_credits(database: Database, store: Store) -> None:
    poor = await open_account(database, credits=0)
    asked = submission(poor, price_credits=0)
    assert await accept(store, [asked]) == [Receipt(asked.id, "queued")]
    assert await movements_of(database, poor) == [("hold", 0, asked.id)]
    await settle(store, [succeeded(asked.id)])
    assert await movements_of(database, poor) == [("hold", 0, asked.id), ("capture", 0, asked.id)]


@pytest.mark.parametrize("price", [0, 1])
async def test_somebody_who_is_not_there_gets_nothing(database: Database, store: Store, ada: UUID, price: int) -> None:
    stranger, mine = submission(uuid4(), price_credits=price), submission(ada)
    refused, receipt = await accept(store, [stranger, mine])
    assert isinstance(refused, NotFound)
    assert receipt == Receipt(mine.id, "queued")
    assert await _count(database) == 1


# Credits.


async def test_without_credits_the_refusal_names_price_and_credits(database: Database, store: Store) -> None:
    poor = await open_account(database, credits=2)
    (refused,) = await accept(store, [submission(poor, price_credits=3)])
    assert isinstance(refused, NotEnoughCredits)
    assert refused.details == {"price": 3, "available": 2}
    assert await _count(database) == 0
    assert await balance_of(database, poor) == Balance(2, 0)


async def test_held_credits_cannot_be_spent_again(database: Database, store: Store) -> None:
    user = await open_account(database, credits=5)
    await accepted(store, submission(user, price_credits=5))
    (refused,) = await accept(store, [submission(user, price_credits=1)])
    assert isinstance(refused, NotEnoughCredits)


async def test_a_batch_is_served_first_come_until_the_credits_are_spent(database: Database, store: Store) -> None:
    user = await open_account(database, credits=10)
    batch = [submission(user, price_credits=3) for _ in range(6)]
    outcomes = await accept(store, batch)
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [True] * 3 + [False] * 3
    assert all(isinstance(outcome, NotEnoughCredits) for outcome in outcomes[3:])
    assert await balance_of(database, user) == Balance(1, 9)


async def test_something_too_expensive_does_not_stand_in_the_way(database: Database, store: Store) -> None:
    user = await open_account(database, credits=5)
    prices = [10, 1, 7, 2, 3, 2, 0]
    outcomes = await accept(store, [submission(user, price_credits=price) for price in prices])
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [False, True, False, True, False, True, True]
    assert await balance_of(database, user) == Balance(0, 5)


async def test_many_prices_end_all_the_same(database: Database, store: Store) -> None:
    """Every pass over the batch accepts one and finds the next too expensive."""
    user = await open_account(database, credits=60)
    prices = [price for step in range(30) for price in (1, 60 - step)]
    outcomes = await accept(store, [submission(user, price_credits=price) for price in prices])
    assert len(outcomes) == 60
    assert not any(isinstance(outcome, IdempotencyKeyInFlight) for outcome in outcomes)
    assert isinstance(outcomes[0], Receipt)
    assert isinstance(outcomes[1], NotEnoughCredits)
    has = await balance_of(database, user)
    assert has.held == sum(
        price for price, outcome in zip(prices, outcomes, strict=True) if isinstance(outcome, Receipt)
    )


async def test_the_credits_of_others_are_theirs(database: Database, store: Store, ada: UUID) -> None:
    poor = await open_account(database, credits=1)
    batch = [submission(poor), submission(ada), submission(poor), submission(ada)]
    outcomes = await accept(store, batch)
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [True, True, False, True]


async def test_credits_for_ten_are_spent_by_exactly_ten_of_two_hundred(
    database: Database, open_stores: OpenStores
) -> None:
    user = await open_account(database, credits=10)
    stores = open_stores(4)
    # Batches of one to four, all at once, on connections of their own.
    racers = [[submission(user) for _ in range(1 + number % 4)] for number in range(80)]
    assert sum(map(len, racers)) == 200
    outcomes = await asyncio.gather(*(accept(stores[number % 4], batch) for number, batch in enumerate(racers)))
    kinds = Counter(type(outcome) for of_one in outcomes for outcome in of_one)
    assert kinds == {Receipt: 10, NotEnoughCredits: 190}
    assert await balance_of(database, user) == Balance(0, 10)
    assert await _count(database) == 10


async def test_credits_that_come_and_go_meanwhile_are_never_overspent(
    database: Database, open_stores: OpenStores
) -> None:
    user = await open_account(database, credits=10)
    stores = open_stores(4)

    async def spend(store: Store) -> list[Receipt | ForetellError]:
        seen: list[Receipt | ForetellError] = []
        for _ in range(8):
            outcomes = await accept(store, [submission(user, price_credits=price) for price in (4, 1, 2)])
            ours = [outcome.id for outcome in outcomes if isinstance(outcome, Receipt)]
            await settle(store, [succeeded(identifier) for identifier in ours[:1]])
            for identifier in ours[1:]:
                async with database.transaction() as connection:
                    await cancel(connection, user, identifier)
            seen += outcomes
        return seen

    outcomes = [outcome for of_one in await asyncio.gather(*map(spend, stores)) for outcome in of_one]
    assert not any(isinstance(outcome, NotFound | IdempotencyKeyInFlight) for outcome in outcomes)
    has = await balance_of(database, user)
    captured = sum(amount for kind, amount, _ in await movements_of(database, user) if kind == "capture")
    assert (has.available, has.held) == (10 - captured, 0)
    assert 0 < captured <= 10


async def test_credits_that_come_back_while_a_batch_waits_are_spent(
    database: Database, open_stores: OpenStores, ada: UUID
) -> None:
    user = await open_account(database, credits=10)
    store, other = open_stores(2)
    (dear,) = await accepted(store, submission(user, price_credits=9))
    async with database.transaction() as connection:
        await cancel(connection, user, dear)
        # Others of the batch must not suffer from what happens to one wallet either.
        waiting = asyncio.create_task(accept(other, [submission(user, price_credits=8), submission(ada)]))
        # Time enough for the batch to begin, and to see the wallet as it was before the credits came back.
        await asyncio.sleep(0.3)
    outcomes = await waiting
    assert [type(outcome) for outcome in outcomes] == [Receipt, Receipt]
    assert await balance_of(database, user) == Balance(2, 8)


# Idempotency keys.


async def test_a_key_that_comes_again_is_the_same_prediction(database: Database, store: Store, ada: UUID) -> None:
    first = _keyed(ada, "k")
    (identifier,) = await accepted(store, first)
    assert await accept(store, [_keyed(ada, "k")]) == [Receipt(identifier, "queued", replayed=True)]
    await settle(store, [succeeded(identifier)])
    assert await accept(store, [_keyed(ada, "k")]) == [Receipt(identifier, "succeeded", replayed=True)]
    assert await balance_of(database, ada) == Balance(99, 0)


async def test_a_key_with_another_request_is_refused(database: Database, store: Store, ada: UUID) -> None:
    await accepted(store, _keyed(ada, "k"))
    (refused,) = await accept(store, [_keyed(ada, "k", _OTHER_HASH)])
    assert isinstance(refused, IdempotencyKeyReused)
    assert await _count(database) == 1


async def test_a_key_belongs_to_its_user(database: Database, store: Store, ada: UUID) -> None:
    bob = await open_account(database)
    (mine, his) = await accepted(store, _keyed(ada, "k"), _keyed(bob, "k", _OTHER_HASH))
    assert mine != his


async def test_a_key_twice_in_a_batch_is_one_prediction(database: Database, store: Store, ada: UUID) -> None:
    first, again, other, plain = _keyed(ada, "k"), _keyed(ada, "k"), _keyed(ada, "k", _OTHER_HASH), submission(ada)
    outcomes = await accept(store, [first, again, other, plain])
    assert outcomes[:2] == [Receipt(first.id, "queued"), Receipt(first.id, "queued", replayed=True)]
    assert isinstance(outcomes[2], IdempotencyKeyReused)
    assert outcomes[3] == Receipt(plain.id, "queued")
    assert await balance_of(database, ada) == Balance(98, 2)


async def test_a_key_twice_in_a_batch_that_can_not_be_paid_is_refused_twice(database: Database, store: Store) -> None:
    poor = await open_account(database, credits=0)
    outcomes = await accept(store, [_keyed(poor, "k"), _keyed(poor, "k")])
    assert [type(outcome) for outcome in outcomes] == [NotEnoughCredits] * 2


async def test_a_known_key_is_answered_even_without_credits(database: Database, store: Store) -> None:
    user = await open_account(database, credits=1)
    (identifier,) = await accepted(store, _keyed(user, "k"))
    assert await accept(store, [_keyed(user, "k")]) == [Receipt(identifier, "queued", replayed=True)]


async def test_a_key_that_was_refused_can_be_used_when_there_are_credits(database: Database, store: Store) -> None:
    poor = await open_account(database, credits=0)
    (refused,) = await accept(store, [_keyed(poor, "k")])
    assert isinstance(refused, NotEnoughCredits)
    free = submission(poor, price_credits=0, idempotency_key="k", request_hash=_HASH)
    assert await accept(store, [free]) == [Receipt(free.id, "queued")]


async def test_the_same_key_from_many_at_once_is_one_prediction(
    database: Database, open_stores: OpenStores, ada: UUID
) -> None:
    stores = open_stores(4)
    outcomes = await asyncio.gather(
        *(accept(stores[number % 4], [_keyed(ada, "k"), submission(ada, price_credits=0)]) for number in range(40))
    )
    first = [of_one[0] for of_one in outcomes]
    receipts = [outcome for outcome in first if isinstance(outcome, Receipt)]
    # Whoever came too close may be told to try again; nobody gets another prediction.
    assert all(isinstance(outcome, Receipt | IdempotencyKeyInFlight) for outcome in first)
    assert len({receipt.id for receipt in receipts}) == 1
    assert [receipt.replayed for receipt in receipts].count(False) == 1
    assert await balance_of(database, ada) == Balance(99, 1)


async def test_many_users_with_many_keys_at_once_do_not_wait_for_each_other_forever(
    database: Database, open_stores: OpenStores
) -> None:
    users = [await open_account(database, credits=1000) for _ in range(5)]
    stores = open_stores(4)

    async def ask(number: int) -> list[Receipt | ForetellError]:
        # Each batch names the users in an order of its own.
        order = [users[(number * step) % 5] for step in (1, 2, 3, 4)]
        return await accept(stores[number % 4], [_keyed(user, f"k{place}") for place, user in enumerate(order)])

    outcomes = [outcome for batch in await asyncio.gather(*map(ask, range(60))) for outcome in batch]
    ids = {outcome.id for outcome in outcomes if isinstance(outcome, Receipt)}
    assert await _count(database) == len(ids)
    assert not any(isinstance(outcome, NotEnoughCredits) for outcome in outcomes)


# What comes in.


_PAYLOADS = [
    b"null",
    b'"a text"',
    b"12345678901234567890123456789012345678901234567890.5000",
    b"-0.0",
    b"1E+400",
    '{"слово": "Ж 😀 \u2028", "b": 1, "b": 2}'.encode(),
    b'{"escaped": "\\u0416 \\ud83d\\ude00 \\u0000 \\/"}',
    b'{ "white" :\t[ 1 ,\r\n 2 ] }',
    b'{"deep": ' + b"[" * 400 + b"]" * 400 + b"}",
    b'{"long": "' + b"x" * 500_000 + b'"}',
]


async def test_json_comes_back_to_the_letter(database: Database, store: Store, ada: UUID) -> None:
    ids = await accepted(store, *(submission(ada, payload=payload) for payload in _PAYLOADS))
    await settle(store, [succeeded(identifier, payload) for identifier, payload in zip(ids, _PAYLOADS, strict=True)])
    views = [await view_of(database, ada, identifier) for identifier in ids]
    assert [bytes(view.input or b"") for view in views] == _PAYLOADS
    assert [bytes(view.output or b"") for view in views] == _PAYLOADS
