"""Accounts: how they come to be, are found, changed and closed."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts import refresh_tokens
from foretell.domain.accounts.identity import USER_COLUMNS, Role, User, user_of
from foretell.domain.accounts.tables import users
from foretell.domain.accounts.usernames import username_key
from foretell.domain.credits import ledger
from foretell.domain.errors import InvalidUsername, NotFound, UsernameTaken
from foretell.kit.clock import now, uuid7

#: The account that a fresh development installation has, and that production refuses to start with.
DEVELOPMENT_USERNAME = "test"
DEVELOPMENT_PASSWORD = "test"  # noqa: S105 - promised to users, and refused in production.


async def register(
    connection: AsyncConnection, *, username: str, password_hash: str, grant_credits: int, role: Role = "user"
) -> User:
    """Create an account with its wallet and, unless it is 0, a `grant` of `grant_credits`.

    `password_hash` comes from `Passwords.hash`, made before the transaction. Raises `InvalidUsername`,
    `UsernameTaken`, `InvalidAmount`.
    """
    user = User(id=uuid7(), username=username, role=role, active=True, created_at=now())
    insert: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(users)
    inserted = await connection.scalar(
        insert.values(
            id=user.id,
            username=username,
            username_key=username_key(username),
            password_hash=password_hash,
            role=role,
            active=True,
            created_at=user.created_at,
        )
        .on_conflict_do_nothing(index_elements=[users.c.username_key])
        .returning(users.c.id)
    )
    if inserted is None:
        raise UsernameTaken(username=username)
    await ledger.open_wallet(connection, user.id)
    if grant_credits:
        await ledger.grant(connection, user.id, grant_credits, note="sign-up")
    return user


async def ensure_development_user(connection: AsyncConnection, *, password_hash: str, grant_credits: int) -> User:
    """The user `test`, made now if it is not there (its password then is `password_hash`'s).

    Look with `find_user` first: hashing `DEVELOPMENT_PASSWORD` at every start is wasted otherwise.
    """
    try:
        return await register(
            connection,
            username=DEVELOPMENT_USERNAME,
            password_hash=password_hash,
            grant_credits=grant_credits,
        )
    except UsernameTaken:
        return await find_user(connection, DEVELOPMENT_USERNAME)


async def find_user(connection: AsyncConnection, username: str) -> User:
    """The account of that name, however it is capitalised. Raises `NotFound`."""
    try:
        key = username_key(username)
    except InvalidUsername:
        raise NotFound(what="user") from None
    row = (await connection.execute(select(*USER_COLUMNS).where(users.c.username_key == key))).mappings().first()
    if row is None:
        raise NotFound(what="user")
    return user_of(row)


async def find_user_by_id(connection: AsyncConnection, user_id: UUID) -> User:
    """The account with that id. Raises `NotFound`."""
    row = (await connection.execute(select(*USER_COLUMNS).where(users.c.id == user_id))).mappings().first()
    if row is None:
        raise NotFound(what="user")
    return user_of(row)


async def list_users(connection: AsyncConnection, *, limit: int = 100, after_id: UUID | None = None) -> list[User]:
    """Up to `limit` accounts in the order of their making, from the one after `after_id` on."""
    query = select(*USER_COLUMNS).order_by(users.c.id).limit(limit)
    if after_id is not None:
        query = query.where(users.c.id > after_id)
    return [user_of(row) for row in (await connection.execute(query)).mappings()]


async def set_password(connection: AsyncConnection, user_id: UUID, password_hash: str) -> None:
    """Change the password, and end every session that was opened with the old one. Raises `NotFound`."""
    await _change(connection, user_id, password_hash=password_hash)
    await refresh_tokens.revoke_all(connection, user_id)


async def set_role(connection: AsyncConnection, user_id: UUID, role: Role) -> None:
    """Make somebody an operator, or a user again. Raises `NotFound`."""
    await _change(connection, user_id, role=role)


async def deactivate(connection: AsyncConnection, user_id: UUID) -> None:
    """Close the account: no log-in, no refresh, no API key works; access tokens run out by themselves.

    What it owns stays. Raises `NotFound`.
    """
    await _change(connection, user_id, active=False)
    await refresh_tokens.revoke_all(connection, user_id)


async def activate(connection: AsyncConnection, user_id: UUID) -> None:
    """Open a closed account again. Raises `NotFound`."""
    await _change(connection, user_id, active=True)


async def _change(connection: AsyncConnection, user_id: UUID, **values: Any) -> None:
    changed = await connection.execute(update(users).where(users.c.id == user_id).values(**values))
    if changed.rowcount == 0:
        raise NotFound(what="user")
