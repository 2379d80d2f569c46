"""Credits: every movement is a row and a change of the wallet, or neither."""

import asyncio
import random

import pytest

from foretell.domain.accounts.identity import User
from foretell.domain.credits import ledger
from foretell.domain.credits.ledger import MAX_AMOUNT, Balance
from foretell.domain.errors import DuplicateReference, InvalidAmount, NotEnoughCredits, NotFound
from foretell.domain.predictions.audit import audit
from foretell.kit.clock import uuid7
from foretell.kit.database import Database


async def balance(database: Database, user: User) -> Balance:
    async with database.snapshot() as connection:
        return await ledger.balance(connection, user.id)


async def test_movements_add_up_and_are_listed_newest_first(database: Database, anna: User) -> None:
    async with database.transaction() as connection:
        made = [
            await ledger.grant(connection, anna.id, 5, note="sorry"),
            await ledger.top_up(connection, anna.id, 50, reference="payment-1"),
            await ledger.refund(connection, anna.id, 3),
            await ledger.adjust(connection, anna.id, -8),
        ]
    assert await balance(database, anna) == Balance(available=150, held=0)
    async with database.snapshot() as connection:
        listed = await ledger.movements(connection, anna.id, limit=10)
    assert listed[:4] == made[::-1]
    assert [movement.available_change for movement in listed] == [-8, 3, 50, 5, 100]
    assert [movement.held_change for movement in listed] == [0] * 5
    assert (listed[2].reference, listed[3].note) == ("payment-1", "sorry")


async def test_pages_of_movements_have_no_gap_and_nothing_of_others(
    database: Database, anna: User, boris: User
) -> None:
    for amount in range(1, 8):
        async with database.transaction() as connection:
            await ledger.grant(connection, anna.id, amount)
            await ledger.grant(connection, boris.id, 1000)
    amounts: list[int] = []
    before_id = None
    async with database.snapshot() as connection:
        while page := await ledger.movements(connection, anna.id, limit=3, before_id=before_id):
            amounts += [movement.amount for movement in page]
            before_id = page[-1].id
    assert amounts == [7, 6, 5, 4, 3, 2, 1, 100]


async def test_a_reference_counts_once_and_leaves_nothing_the_second_time(
    database: Database, anna: User, boris: User
) -> None:
    async with database.transaction() as connection:
        await ledger.top_up(connection, anna.id, 50, reference="payment-1")
    async with database.transaction() as connection:
        # Caught inside, so that the transaction is committed.
        for user in (anna, boris):
            with pytest.raises(DuplicateReference):
                await ledger.top_up(connection, user.id, 50, reference="payment-1")
        await ledger.top_up(connection, anna.id, 1, reference="payment-2")
    assert await balance(database, anna) == Balance(151, 0)
    assert await balance(database, boris) == Balance(100, 0)


async def test_one_payment_told_many_times_at_once_counts_once(database: Database, anna: User, boris: User) -> None:
    async def top_up(user: User) -> None:
        async with database.transaction() as connection:
            await ledger.top_up(connection, user.id, 50, reference="payment-1")

    outcomes = await asyncio.gather(*(top_up(user) for user in [anna, boris] * 4), return_exceptions=True)
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, DuplicateReference) for outcome in outcomes) == 7
    both = (await balance(database, anna)).available + (await balance(database, boris)).available
    assert both == 250


async def test_an_adjustment_takes_no_more_than_there_is(database: Database, anna: User) -> None:
    async with database.transaction() as connection:
        with pytest.raises(NotEnoughCredits) as refusal:
            await ledger.adjust(connection, anna.id, -101)
        assert refusal.value.details == {"price": 101, "available": 100}
        await ledger.adjust(connection, anna.id, -100)
    assert await balance(database, anna) == Balance(0, 0)


async def test_racing_adjustments_never_go_below_zero(database: Database, anna: User) -> None:
    async def take() -> None:
        async with database.transaction() as connection:
            await ledger.adjust(connection, anna.id, -30)

    outcomes = await asyncio.gather(*(take() for _ in range(10)), return_exceptions=True)
    assert outcomes.count(None) == 3
    assert sum(isinstance(outcome, NotEnoughCredits) for outcome in outcomes) == 7
    assert await balance(database, anna) == Balance(10, 0)


@pytest.mark.parametrize("amount", [0, -1, MAX_AMOUNT + 1, 2**63, -(2**63) - 1])
async def test_impossible_amounts_are_refused(database: Database, anna: User, amount: int) -> None:
    async with database.transaction() as connection:
        for move in (ledger.grant, ledger.top_up, ledger.refund):
            with pytest.raises(InvalidAmount):
                await move(connection, anna.id, amount)
        if abs(amount) != 1:
            with pytest.raises(InvalidAmount):
                await ledger.adjust(connection, anna.id, amount)
    assert await balance(database, anna) == Balance(100, 0)


async def test_who_is_not_there_has_no_credits(database: Database) -> None:
    async with database.transaction() as connection:
        with pytest.raises(NotFound):
            await ledger.balance(connection, uuid7())
        with pytest.raises(NotFound):
            await ledger.grant(connection, uuid7(), 1)
        assert await ledger.movements(connection, uuid7(), limit=10) == []


async def test_any_order_of_movements_leaves_clean_books(database: Database, anna: User, boris: User) -> None:
    dice = random.Random(20260102)
    expected = {anna.id: 100, boris.id: 100}
    for _ in range(120):
        user_id = dice.choice([anna.id, boris.id])
        move, amount = dice.choice(
            [
                (ledger.grant, dice.randint(1, 20)),
                (ledger.top_up, dice.randint(1, 20)),
                (ledger.refund, dice.randint(1, 20)),
                (ledger.adjust, -dice.randint(1, 80)),
            ]
        )
        async with database.transaction() as connection:
            if expected[user_id] + amount < 0:
                with pytest.raises(NotEnoughCredits):
                    await move(connection, user_id, amount)
            else:
                await move(connection, user_id, amount)
                expected[user_id] += amount
    async with database.snapshot() as connection:
        assert {user_id: (await ledger.balance(connection, user_id)).available for user_id in expected} == expected
        assert await audit(connection) == []
