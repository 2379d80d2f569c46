"""Refresh tokens: each works once, and one that comes back ends its family."""

import asyncio
import hashlib
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from foretell.domain.accounts import refresh_tokens, registration
from foretell.domain.accounts.authentication import refresh
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.tables import refresh_tokens as table
from foretell.domain.errors import InvalidToken
from foretell.kit.clock import now
from foretell.kit.database import Database


async def log_in(database: Database, user: User, **options: float) -> str:
    async with database.transaction() as connection:
        return await refresh_tokens.issue(connection, user.id, **options)


async def test_a_token_is_replaced_by_the_next(database: Database, anna: User) -> None:
    token = await log_in(database, anna)
    for _ in range(3):
        user, following = await refresh(database, token)
        assert user == anna
        assert following != token
        token = following


async def test_reuse_ends_the_family_and_no_other(database: Database, anna: User) -> None:
    stolen = await log_in(database, anna)
    elsewhere = await log_in(database, anna)
    _, successor = await refresh(database, stolen)
    with pytest.raises(InvalidToken):
        await refresh(database, stolen)
    with pytest.raises(InvalidToken):
        await refresh(database, successor)
    user, _ = await refresh(database, elsewhere)
    assert user == anna


async def test_of_many_uses_at_once_one_succeeds_and_the_family_ends(database: Database, anna: User) -> None:
    token = await log_in(database, anna)
    outcomes = await asyncio.gather(*(refresh(database, token) for _ in range(8)), return_exceptions=True)
    successors = [outcome[1] for outcome in outcomes if isinstance(outcome, tuple)]
    assert len(successors) == 1
    assert sum(isinstance(outcome, InvalidToken) for outcome in outcomes) == 7
    with pytest.raises(InvalidToken):
        await refresh(database, successors[0])


async def test_no_successor_outlives_a_family_that_ends_meanwhile(database: Database, anna: User) -> None:
    # The thief uses an old token at the moment at which the owner uses the newest one.
    for _ in range(10):
        first = await log_in(database, anna)
        _, second = await refresh(database, first)
        outcomes = await asyncio.gather(refresh(database, second), refresh(database, first), return_exceptions=True)
        assert isinstance(outcomes[1], InvalidToken)
        async with database.snapshot() as connection:
            family = select(table.c.family_id).where(table.c.token_hash == hashlib.sha256(first.encode()).digest())
            alive = select(func.count()).where(
                table.c.family_id.in_(family), table.c.used_at.is_(None), table.c.revoked_at.is_(None)
            )
            assert await connection.scalar(alive) == 0


@pytest.mark.parametrize("token", ["", "unknown", "\0", "\ud800", "x" * 100_000])
async def test_what_is_no_token_is_refused(database: Database, anna: User, token: str) -> None:
    with pytest.raises(InvalidToken):
        await refresh(database, token)


async def test_an_old_token_is_refused_and_its_family_left_alone(database: Database, anna: User) -> None:
    old = await log_in(database, anna, lifetime_s=-1)
    with pytest.raises(InvalidToken):
        await refresh(database, old)
    async with database.snapshot() as connection:
        assert await connection.scalar(select(table.c.revoked_at)) is None


async def test_logging_out_ends_the_family(database: Database, anna: User) -> None:
    first = await log_in(database, anna)
    elsewhere = await log_in(database, anna)
    _, second = await refresh(database, first)
    async with database.transaction() as connection:
        await refresh_tokens.revoke(connection, second)
        await refresh_tokens.revoke(connection, "unknown")
    with pytest.raises(InvalidToken):
        await refresh(database, second)
    await refresh(database, elsewhere)


async def test_a_new_password_and_a_closed_account_end_every_session(
    database: Database, anna: User, boris: User
) -> None:
    of_anna = [await log_in(database, anna) for _ in range(2)]
    of_boris = await log_in(database, boris)
    async with database.transaction() as connection:
        await registration.set_password(connection, anna.id, "another hash")
    for token in of_anna:
        with pytest.raises(InvalidToken):
            await refresh(database, token)
    _, of_boris = await refresh(database, of_boris)
    async with database.transaction() as connection:
        await registration.deactivate(connection, boris.id)
    with pytest.raises(InvalidToken):
        await refresh(database, of_boris)


async def test_tokens_are_stored_hashed_only(database: Database, anna: User) -> None:
    token = await log_in(database, anna)
    async with database.snapshot() as connection:
        row = (await connection.execute(select(table))).one()
    assert row.token_hash == hashlib.sha256(token.encode()).digest()
    assert token not in str(tuple(row))


async def test_families_are_forgotten_when_their_last_token_expired(database: Database, anna: User) -> None:
    over = await log_in(database, anna, lifetime_s=-3600)
    alive = await log_in(database, anna, lifetime_s=-3600)
    # Its first token is over, but the family lives on.
    async with database.transaction() as connection:
        family = select(table.c.family_id).where(table.c.token_hash == hashlib.sha256(alive.encode()).digest())
        family_id = await connection.scalar(family)
        assert family_id is not None
        await connection.execute(
            table.insert().values(
                id=anna.id,
                family_id=family_id,
                user_id=anna.id,
                token_hash=b"x",
                created_at=now(),
                expires_at=now() + timedelta(days=1),
            )
        )
        assert await refresh_tokens.delete_expired(connection, before=now()) == 1
        left = (await connection.scalars(select(table.c.token_hash))).all()
    assert hashlib.sha256(over.encode()).digest() not in left
    assert len(left) == 2
