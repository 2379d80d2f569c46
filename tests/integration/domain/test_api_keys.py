"""API keys: shown once, good until revoked, their owner's alone."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from foretell.domain.accounts import api_keys, registration
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.tables import api_keys as table
from foretell.domain.errors import InvalidName, InvalidToken, NotFound, TooManyKeys
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database


async def test_a_key_identifies_its_owner_until_it_is_revoked(database: Database, anna: User) -> None:
    async with database.transaction() as connection:
        key, secret = await api_keys.create(connection, anna.id, " nightly job ")
        identity = await api_keys.identify(connection, secret)
    assert secret.startswith("ftl_")
    assert len(secret) >= 36
    assert (identity.user_id, identity.role, identity.expires_at) == (anna.id, "user", None)
    assert identity.api_key_id == key.id
    assert key.name == "nightly job"
    assert secret.startswith(key.prefix)
    async with database.transaction() as connection:
        await api_keys.revoke(connection, anna.id, key.id)
    async with database.snapshot() as connection:
        with pytest.raises(InvalidToken):
            await api_keys.identify(connection, secret)
        assert await api_keys.list_keys(connection, anna.id) == []


async def test_keys_are_listed_to_their_owner_without_their_secrets(
    database: Database, anna: User, boris: User
) -> None:
    async with database.transaction() as connection:
        first, secret = await api_keys.create(connection, anna.id, "first")
        second, _ = await api_keys.create(connection, anna.id, "second")
        await api_keys.create(connection, boris.id, "his")
        listed = await api_keys.list_keys(connection, anna.id)
        stored = (await connection.execute(select(table).where(table.c.id == first.id))).one()
    assert listed == [first, second]
    assert secret not in str(listed) + str(tuple(stored))


async def test_absent_foreign_and_revoked_keys_are_revoked_alike(database: Database, anna: User, boris: User) -> None:
    async with database.transaction() as connection:
        of_boris, secret = await api_keys.create(connection, boris.id, "his")
        revoked, _ = await api_keys.create(connection, anna.id, "revoked")
        await api_keys.revoke(connection, anna.id, revoked.id)
        messages = []
        for key_id in (uuid7(), of_boris.id, revoked.id):
            with pytest.raises(NotFound) as refusal:
                await api_keys.revoke(connection, anna.id, key_id)
            messages.append(refusal.value.message)
        assert len(set(messages)) == 1
        assert (await api_keys.identify(connection, secret)).user_id == boris.id


async def test_the_key_of_a_closed_account_is_refused(database: Database, anna: User) -> None:
    async with database.transaction() as connection:
        _, secret = await api_keys.create(connection, anna.id, "key")
        await registration.deactivate(connection, anna.id)
        with pytest.raises(InvalidToken):
            await api_keys.identify(connection, secret)


@pytest.mark.parametrize("secret", ["", "ftl_", "ftl_" + "x" * 43, "ftl_" + "\ud800" * 43, "ftl_\0", "x" * 1_000_000])
async def test_what_is_no_key_is_refused(database: Database, anna: User, secret: str) -> None:
    async with database.snapshot() as connection:
        with pytest.raises(InvalidToken):
            await api_keys.identify(connection, secret)


@pytest.mark.parametrize("name", ["", "   ", "a\0b", "a\nb", "x" * 101])
async def test_unprintable_names_are_refused(database: Database, anna: User, name: str) -> None:
    async with database.transaction() as connection:
        with pytest.raises(InvalidName):
            await api_keys.create(connection, anna.id, name)


async def test_nobody_has_endless_keys(database: Database, anna: User) -> None:
    async with database.transaction() as connection:
        keys = [(await api_keys.create(connection, anna.id, "key"))[0] for _ in range(api_keys.MAX_KEYS_PER_USER)]
        with pytest.raises(TooManyKeys):
            await api_keys.create(connection, anna.id, "one more")
        await api_keys.revoke(connection, anna.id, keys[0].id)
        await api_keys.create(connection, anna.id, "in its place")


async def test_uses_are_recorded_at_most_once_a_minute(database: Database, anna: User) -> None:
    async with database.transaction() as connection:
        key, _ = await api_keys.create(connection, anna.id, "key")
    uses = api_keys.KeyUses()
    uses.note(key.id)
    uses.note(uuid7())
    first = uses.take()
    assert uses.take() == {}
    used_at = first[key.id]

    async def last_used_at() -> object:
        async with database.snapshot() as connection:
            return (await api_keys.list_keys(connection, anna.id))[0].last_used_at

    async with database.transaction() as connection:
        await api_keys.record_uses(connection, first)
    assert await last_used_at() == used_at
    async with database.transaction() as connection:
        await api_keys.record_uses(connection, {key.id: used_at + timedelta(seconds=59)})
    assert await last_used_at() == used_at
    async with database.transaction() as connection:
        await api_keys.record_uses(connection, {key.id: used_at + timedelta(seconds=61)})
    assert await last_used_at() == used_at + timedelta(seconds=61)
    assert used_at <= now()
