"""Chats that act for accounts, and payments in Stars: each happens once, whoever asks at the same time."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from foretell.domain.accounts import registration, telegram, telegram_payments
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.passwords import unmatchable_hash
from foretell.domain.accounts.tables import users
from foretell.domain.accounts.telegram import Link
from foretell.domain.accounts.telegram_payments import Payment
from foretell.domain.accounts.telegram_tables import telegram_codes
from foretell.domain.credits import ledger
from foretell.domain.credits.ledger import Balance
from foretell.domain.errors import (
    ChatIsLinked,
    CreditsSpent,
    Forbidden,
    NotFound,
    PaymentDiffers,
    TooManyChats,
    UnknownLinkCode,
)
from foretell.domain.predictions.audit import audit
from foretell.kit.clock import now
from foretell.kit.database import Database

CHAT = 123456789
RACERS = 8


async def sign_up(database: Database, chat_id: int = CHAT, **more: Any) -> Link:
    async with database.transaction() as connection:
        return await telegram.sign_up(connection, chat_id, password_hash=unmatchable_hash(), grant_credits=100, **more)


async def make_code(database: Database, user: User) -> str:
    async with database.transaction() as connection:
        code, _ = await telegram.make_code(connection, user.id)
    return code


async def link(database: Database, code: str, chat_id: int = CHAT) -> Link:
    async with database.transaction() as connection:
        return await telegram.link(connection, chat_id, code, name="Anna")


async def unlink(database: Database, chat_id: int = CHAT) -> None:
    async with database.transaction() as connection:
        await telegram.unlink(connection, chat_id)


async def owner(database: Database, chat_id: int = CHAT) -> User:
    async with database.snapshot() as connection:
        return (await telegram.find(connection, chat_id)).user


async def chats(database: Database, user: User) -> list[int]:
    async with database.snapshot() as connection:
        return [chat.chat_id for chat in await telegram.chats_of(connection, user.id)]


async def pay(database: Database, charge_id: str = "charge-1", **changes: Any) -> Payment:
    facts: dict[str, Any] = {"chat_id": CHAT, "charge_id": charge_id, "stars": 250, "credits": 500} | changes
    async with database.transaction() as connection:
        return await telegram_payments.pay(connection, **facts)


async def refund(database: Database, charge_id: str = "charge-1", *, even_if_spent: bool = False) -> Payment:
    async with database.transaction() as connection:
        return await telegram_payments.refund(connection, charge_id, even_if_spent=even_if_spent)


async def balance(database: Database, user: User) -> Balance:
    async with database.snapshot() as connection:
        return await ledger.balance(connection, user.id)


async def findings(database: Database) -> list[Any]:
    async with database.snapshot() as connection:
        return list(await audit(connection))


def outcomes_of(outcomes: Sequence[Any], error: type[Exception]) -> tuple[list[Any], int]:
    """What succeeded, and how many failed with `error`; anything else is raised."""
    made = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, error):
            raise outcome
    return made, len(outcomes) - len(made)


async def count_users(database: Database) -> int:
    async with database.snapshot() as connection:
        return await connection.scalar(select(func.count()).select_from(users)) or 0


async def test_a_chat_signs_up_once_and_has_one_grant(database: Database) -> None:
    first = await sign_up(database, name="Anna")
    assert (first.created, first.user.username, first.user.role) == (True, f"telegram-{CHAT}", "user")
    again = await sign_up(database)
    assert (again.created, again.changed, again.user) == (False, False, first.user)
    assert await balance(database, first.user) == Balance(available=100, held=0)
    # Whoever unlinks and comes back finds the account, and gets nothing for it.
    await unlink(database)
    with pytest.raises(NotFound):
        await owner(database)
    back = await sign_up(database)
    assert (back.created, back.changed, back.user) == (False, True, first.user)
    assert await balance(database, first.user) == Balance(available=100, held=0)
    assert await findings(database) == []


async def test_taps_at_the_same_time_make_one_account(database: Database) -> None:
    made = await asyncio.gather(*(sign_up(database) for _ in range(RACERS)))
    assert [each.created for each in made].count(True) == 1
    assert len({each.user.id for each in made}) == 1
    assert await count_users(database) == 1
    assert await balance(database, made[0].user) == Balance(available=100, held=0)
    assert await findings(database) == []


async def test_a_name_that_somebody_took_is_no_obstacle(database: Database) -> None:
    async with database.transaction() as connection:
        squatter = await registration.register(
            connection, username=f"Telegram-{CHAT}", password_hash="x", grant_credits=0
        )
    made = await sign_up(database)
    assert made.created
    assert made.user.id != squatter.id
    assert made.user.username.startswith(f"telegram-{CHAT}-")


async def test_a_group_has_an_account_like_a_person(database: Database) -> None:
    assert (await sign_up(database, -1001234567890)).user.username == "telegram--1001234567890"


async def test_a_code_links_a_chat_once(database: Database, anna: User) -> None:
    code = await make_code(database, anna)
    linked = await link(database, code)
    assert (linked.changed, linked.user) == (True, anna)
    assert await owner(database) == anna
    # A second tap has the same answer; another chat can do nothing with it.
    assert (await link(database, code)).user == anna
    with pytest.raises(UnknownLinkCode):
        await link(database, code, CHAT + 1)
    # Once the chat was unlinked, the used code does not link it again.
    await unlink(database)
    with pytest.raises(UnknownLinkCode):
        await link(database, code)
    assert await chats(database, anna) == []


async def test_codes_are_stored_hashed_and_end_after_15_minutes(database: Database, anna: User) -> None:
    begun = now()
    async with database.transaction() as connection:
        code, expires_at = await telegram.make_code(connection, anna.id)
    assert begun + timedelta(minutes=15) <= expires_at <= now() + timedelta(minutes=15)
    assert len(code) == 32
    async with database.transaction() as connection:
        row = (await connection.execute(select(telegram_codes))).one()
        assert code.encode() not in row.code_hash
        await connection.execute(update(telegram_codes).values(expires_at=now()))
    for wrong in (code, code[:-1], "", "\ud800", "x" * 64):
        with pytest.raises(UnknownLinkCode):
            await link(database, wrong)


async def test_the_five_newest_codes_work(database: Database, anna: User, boris: User) -> None:
    other = await make_code(database, boris)
    codes = [await make_code(database, anna) for _ in range(7)]
    for code in codes[:2]:
        with pytest.raises(UnknownLinkCode):
            await link(database, code)
    for chat_id, code in enumerate(codes[2:], start=1):
        assert (await link(database, code, chat_id)).user == anna
    assert (await link(database, other, 99)).user == boris


async def test_a_code_that_many_chats_try_at_once_links_one(database: Database, anna: User) -> None:
    code = await make_code(database, anna)
    tried = (link(database, code, chat_id) for chat_id in range(1, RACERS + 1))
    made, refused = outcomes_of(await asyncio.gather(*tried, return_exceptions=True), UnknownLinkCode)
    assert (len(made), refused) == (1, RACERS - 1)
    assert await chats(database, anna) == [made[0].chat_id]


async def test_a_chat_of_another_account_stays_there_and_the_code_stays_good(
    database: Database, anna: User, boris: User
) -> None:
    await link(database, await make_code(database, boris))
    code = await make_code(database, anna)
    with pytest.raises(ChatIsLinked):
        await link(database, code)
    assert await owner(database) == boris
    await unlink(database)
    assert (await link(database, code)).user == anna


async def test_codes_of_two_accounts_at_once_give_a_chat_one_owner(database: Database, anna: User, boris: User) -> None:
    codes = [await make_code(database, user) for user in (anna, boris) for _ in range(3)]
    tried = asyncio.gather(*(link(database, code) for code in codes), return_exceptions=True)
    made, refused = outcomes_of(await tried, ChatIsLinked)
    # All codes of whoever was first say the same.
    assert (len(made), refused) == (3, 3)
    assert {each.user for each in made} == {await owner(database)}


async def test_an_account_has_a_bounded_number_of_chats(database: Database, anna: User) -> None:
    for chat_id in range(1, telegram.MAX_CHATS_PER_USER):
        await link(database, await make_code(database, anna), chat_id)
    codes = [await make_code(database, anna) for _ in range(5)]
    tried = (link(database, code, 100 + number) for number, code in enumerate(codes))
    made, refused = outcomes_of(await asyncio.gather(*tried, return_exceptions=True), TooManyChats)
    assert (len(made), refused) == (1, 4)
    assert len(await chats(database, anna)) == telegram.MAX_CHATS_PER_USER


async def test_unlinking_ends_one_chat_or_all_and_every_open_link(database: Database, anna: User, boris: User) -> None:
    for chat_id in (1, 2, 3):
        await link(database, await make_code(database, anna), chat_id)
    await link(database, await make_code(database, boris), 4)
    open_code = await make_code(database, anna)
    async with database.transaction() as connection:
        assert await telegram.unlink_from(connection, anna.id, 2) == [2]
    with pytest.raises(UnknownLinkCode):
        await link(database, open_code, 5)
    for foreign in (2, 4, 77):
        with pytest.raises(NotFound):
            async with database.transaction() as connection:
                await telegram.unlink_from(connection, anna.id, foreign)
    async with database.transaction() as connection:
        assert await telegram.unlink_from(connection, anna.id, None) == [1, 3]
    async with database.transaction() as connection:
        assert await telegram.unlink_from(connection, anna.id, None) == []
    assert (await chats(database, anna), await chats(database, boris)) == ([], [4])
    for unknown in (1, 77):
        with pytest.raises(NotFound):
            await unlink(database, unknown)


async def test_a_closed_account_is_nobodys(database: Database, anna: User) -> None:
    signed_up = await sign_up(database, 1)
    await link(database, await make_code(database, anna), 2)
    code = await make_code(database, anna)
    async with database.transaction() as connection:
        await registration.deactivate(connection, signed_up.user.id)
        await registration.deactivate(connection, anna.id)
    for chat_id in (1, 2):
        with pytest.raises(NotFound):
            await owner(database, chat_id)
    with pytest.raises(UnknownLinkCode):
        await link(database, code, 3)
    with pytest.raises(Forbidden):
        await sign_up(database, 1)
    await unlink(database, 1)
    with pytest.raises(Forbidden):
        await sign_up(database, 1)


async def test_the_bot_says_what_it_is_called(database: Database) -> None:
    async with database.snapshot() as connection:
        assert await telegram.bot_name(connection) is None
    for name in ("first_bot", "second_bot"):
        async with database.transaction() as connection:
            await telegram.set_bot_name(connection, name)
    async with database.snapshot() as connection:
        assert await telegram.bot_name(connection) == "second_bot"


# Stars


async def test_a_payment_counts_once_however_often_it_is_told(database: Database) -> None:
    user = (await sign_up(database)).user
    told = await asyncio.gather(*(pay(database) for _ in range(RACERS)))
    assert {(each.charge_id, each.stars, each.credits, each.user_id) for each in told} == {
        ("charge-1", 250, 500, user.id)
    }
    assert len({each.created_at for each in told}) == 1
    assert await balance(database, user) == Balance(available=600, held=0)
    # Even when the chat acts for nobody any more.
    await unlink(database)
    assert await pay(database) == told[0]
    assert await balance(database, user) == Balance(available=600, held=0)
    async with database.snapshot() as connection:
        first, *_ = await ledger.movements(connection, user.id, limit=10)
    assert (first.kind, first.amount, first.reference) == ("top_up", 500, "telegram:charge-1")
    assert await findings(database) == []


async def test_a_charge_with_other_facts_is_refused(database: Database) -> None:
    user = (await sign_up(database)).user
    await pay(database)
    for change in ({"stars": 1}, {"credits": 501}, {"chat_id": CHAT + 1}):
        with pytest.raises(PaymentDiffers):
            await pay(database, **change)
    assert await balance(database, user) == Balance(available=600, held=0)


async def test_a_payment_of_a_chat_without_an_account_is_not_swallowed(database: Database) -> None:
    with pytest.raises(NotFound):
        await pay(database)
    user = (await sign_up(database)).user
    await pay(database)
    assert await balance(database, user) == Balance(available=600, held=0)


async def test_a_refund_takes_the_credits_back_once(database: Database) -> None:
    user = (await sign_up(database)).user
    await pay(database)
    await pay(database, "charge-2")
    refunds = await asyncio.gather(*(refund(database) for _ in range(RACERS)))
    assert {each.refunded_credits for each in refunds} == {500}
    assert len({each.refunded_at for each in refunds}) == 1
    assert await balance(database, user) == Balance(available=600, held=0)
    # Told once more after the refund, the payment stays refunded.
    assert await pay(database) == refunds[0]
    assert await balance(database, user) == Balance(available=600, held=0)
    assert await findings(database) == []


async def test_a_refund_and_its_payment_at_once_leave_nothing_or_all(database: Database) -> None:
    user = (await sign_up(database)).user
    outcomes = await asyncio.gather(pay(database), refund(database), pay(database), return_exceptions=True)
    outcomes_of(outcomes, NotFound)
    refunded = (await refund(database)).refunded_credits
    assert refunded == 500
    assert await balance(database, user) == Balance(available=100, held=0)
    assert await findings(database) == []


async def test_credits_that_were_spent_cannot_be_taken_back(database: Database) -> None:
    user = (await sign_up(database)).user
    await pay(database)
    async with database.transaction() as connection:
        await ledger.adjust(connection, user.id, -350)
    with pytest.raises(CreditsSpent) as refused:
        await refund(database)
    assert refused.value.details == {"credits": 500, "available": 250}
    assert await balance(database, user) == Balance(available=250, held=0)
    taken = await refund(database, even_if_spent=True)
    assert taken.refunded_credits == 250
    assert await balance(database, user) == Balance(available=0, held=0)
    assert await refund(database) == taken
    # Nothing was left of the next one: it is refunded all the same.
    await pay(database, "charge-2")
    async with database.transaction() as connection:
        await ledger.adjust(connection, user.id, -500)
    assert (await refund(database, "charge-2", even_if_spent=True)).refunded_credits == 0
    with pytest.raises(NotFound):
        await refund(database, "charge-3")
    assert await findings(database) == []
