"""Accounts: registering, finding, logging in, closing."""

import asyncio
from collections.abc import AsyncIterator

import argon2
import pytest
from sqlalchemy import select, update

from foretell.domain.accounts import registration
from foretell.domain.accounts.authentication import authenticate, has_development_user
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.accounts.tables import users
from foretell.domain.credits import ledger
from foretell.domain.errors import InvalidCredentials, InvalidUsername, NotFound, UsernameTaken
from foretell.kit.clock import uuid7
from foretell.kit.database import Database

PASSWORD = "correct horse"


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    passwords = Passwords()
    yield passwords
    passwords.close()


@pytest.fixture
async def clara(database: Database, passwords: Passwords) -> User:
    """A user whose password is `PASSWORD`."""
    password_hash = await passwords.hash(PASSWORD)
    async with database.transaction() as connection:
        return await registration.register(connection, username="Clara", password_hash=password_hash, grant_credits=7)


async def test_a_new_user_has_a_wallet_and_the_grant(database: Database, clara: User) -> None:
    async with database.snapshot() as connection:
        assert await registration.find_user(connection, "CLARA") == clara
        assert await registration.find_user_by_id(connection, clara.id) == clara
        assert await ledger.balance(connection, clara.id) == ledger.Balance(available=7, held=0)
        [movement] = await ledger.movements(connection, clara.id, limit=10)
    assert (movement.kind, movement.amount, movement.available_change) == ("grant", 7, 7)
    assert (clara.username, clara.role, clara.active) == ("Clara", "user", True)


async def test_without_a_grant_the_wallet_is_empty(database: Database) -> None:
    async with database.transaction() as connection:
        user = await registration.register(connection, username="poor", password_hash="x", grant_credits=0)
        assert await ledger.movements(connection, user.id, limit=10) == []
        assert await ledger.balance(connection, user.id) == ledger.Balance(0, 0)


@pytest.mark.parametrize("username", ["Clara", "clara", "CLARA", "ｃｌａｒａ"])
async def test_a_name_is_taken_once(database: Database, clara: User, username: str) -> None:
    with pytest.raises(UsernameTaken):
        async with database.transaction() as connection:
            await registration.register(connection, username=username, password_hash="x", grant_credits=1)
    async with database.snapshot() as connection:
        assert await registration.list_users(connection) == [clara]


async def test_of_many_who_want_one_name_at_once_one_gets_it(database: Database) -> None:
    async def register() -> User:
        async with database.transaction() as connection:
            return await registration.register(connection, username="wanted", password_hash="x", grant_credits=5)

    outcomes = await asyncio.gather(*(register() for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, UsernameTaken) for outcome in outcomes) == 7


async def test_impossible_names_are_refused_and_found_nowhere(database: Database) -> None:
    async with database.transaction() as connection:
        with pytest.raises(InvalidUsername):
            await registration.register(connection, username="a\0b", password_hash="x", grant_credits=1)
        with pytest.raises(NotFound):
            await registration.find_user(connection, "a\0b")
        with pytest.raises(NotFound):
            await registration.find_user(connection, "nobody")
        with pytest.raises(NotFound):
            await registration.find_user_by_id(connection, uuid7())


async def test_users_are_listed_page_by_page(database: Database) -> None:
    made = []
    for number in range(5):
        async with database.transaction() as connection:
            made.append(
                await registration.register(connection, username=f"user{number}", password_hash="x", grant_credits=0)
            )
    async with database.snapshot() as connection:
        first = await registration.list_users(connection, limit=3)
        rest = await registration.list_users(connection, limit=3, after_id=first[-1].id)
    assert first + rest == made


async def test_the_right_password_logs_in(database: Database, passwords: Passwords, clara: User) -> None:
    assert await authenticate(database, passwords, "clara", PASSWORD) == clara


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("Clara", "wrong horse"),
        ("Clara", ""),
        ("Clara", "correct\0horse"),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("a\0b", PASSWORD),
        ("x" * 100_000, PASSWORD),
        ("\ud800\ud800\ud800", "\ud800"),
    ],
)
async def test_everything_else_is_refused_alike(
    database: Database, passwords: Passwords, clara: User, username: str, password: str
) -> None:
    with pytest.raises(InvalidCredentials) as refusal:
        await authenticate(database, passwords, username, password)
    assert refusal.value.message == InvalidCredentials().message
    assert refusal.value.details == {}


async def test_a_closed_account_is_refused_like_a_wrong_password(
    database: Database, passwords: Passwords, clara: User
) -> None:
    async with database.transaction() as connection:
        await registration.deactivate(connection, clara.id)
    with pytest.raises(InvalidCredentials):
        await authenticate(database, passwords, "clara", PASSWORD)
    async with database.transaction() as connection:
        await registration.activate(connection, clara.id)
    assert await authenticate(database, passwords, "clara", PASSWORD) == clara


async def test_a_new_password_replaces_the_old_one(database: Database, passwords: Passwords, clara: User) -> None:
    renewed = await passwords.hash("battery staple")
    async with database.transaction() as connection:
        await registration.set_password(connection, clara.id, renewed)
    assert await authenticate(database, passwords, "clara", "battery staple") == clara
    with pytest.raises(InvalidCredentials):
        await authenticate(database, passwords, "clara", PASSWORD)


async def test_an_operator_is_made_and_unmade(database: Database, clara: User) -> None:
    async with database.transaction() as connection:
        await registration.set_role(connection, clara.id, "operator")
        assert (await registration.find_user(connection, "clara")).role == "operator"
        await registration.set_role(connection, clara.id, "user")
        assert await registration.find_user(connection, "clara") == clara
        with pytest.raises(NotFound):
            await registration.set_role(connection, uuid7(), "operator")


async def test_a_weak_hash_is_renewed_at_log_in(database: Database, passwords: Passwords, clara: User) -> None:
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    async with database.transaction() as connection:
        await connection.execute(update(users).values(password_hash=weak))
    assert await authenticate(database, passwords, "clara", PASSWORD) == clara
    async with database.snapshot() as connection:
        renewed = await connection.scalar(select(users.c.password_hash))
    assert renewed is not None
    assert renewed != weak
    assert not passwords.needs_rehash(renewed)
    assert await authenticate(database, passwords, "clara", PASSWORD) == clara


async def test_the_development_user_is_made_once(database: Database, passwords: Passwords) -> None:
    assert not await has_development_user(database, passwords)
    password_hash = await passwords.hash(registration.DEVELOPMENT_PASSWORD)

    async def ensure() -> User:
        async with database.transaction() as connection:
            return await registration.ensure_development_user(
                connection, password_hash=password_hash, grant_credits=100
            )

    made = await asyncio.gather(*(ensure() for _ in range(4)))
    assert len({user.id for user in made}) == 1
    assert await has_development_user(database, passwords)
    assert (await authenticate(database, passwords, "test", "test")).id == made[0].id
    async with database.snapshot() as connection:
        assert await ledger.balance(connection, made[0].id) == ledger.Balance(100, 0)


async def test_production_may_have_a_user_test_with_another_password(database: Database, passwords: Passwords) -> None:
    password_hash = await passwords.hash("correct horse")
    async with database.transaction() as connection:
        await registration.register(connection, username="test", password_hash=password_hash, grant_credits=0)
    assert not await has_development_user(database, passwords)


async def test_an_installation_has_one_account_that_measures_it(
    database: Database, passwords: Passwords, clara: User
) -> None:
    hashes = [await passwords.hash(password) for password in ("first password", "second password")]
    async with database.transaction() as connection:
        first = await registration.open_measuring_account(connection, password_hash=hashes[0])
        await registration.deactivate(connection, first.id)
    async with database.transaction() as connection:
        again = await registration.open_measuring_account(connection, password_hash=hashes[1])
    assert (again.id, again.username, again.active) == (first.id, first.username, True)
    with pytest.raises(InvalidCredentials):
        await authenticate(database, passwords, first.username, "first password")
    assert (await authenticate(database, passwords, first.username, "second password")).id == first.id
