"""Accounts: create, find, change and close them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts import refresh_tokens, sessions
from foretell.domain.accounts.identity import USER_COLUMNS, Language, Role, Theme, User, user_of
from foretell.domain.accounts.tables import users
from foretell.domain.accounts.usernames import username_key
from foretell.domain.credits import ledger
from foretell.domain.errors import InvalidUsername, LastOperator, NotFound, UsernameTaken
from foretell.kit.clock import now, uuid7

#: The account of a new development installation. In production the app refuses to start while it can log in.
DEVELOPMENT_USERNAME = "test"
DEVELOPMENT_PASSWORD = "test"  # noqa: S105 - promised to users, and refused in production.


async def register(
    connection: AsyncConnection,
    *,
    username: str,
    password_hash: str,
    grant_credits: int,
    role: Role = "user",
    measuring: bool = False,
) -> User:
    """Create an account with its wallet and, unless it is 0, a `grant` of `grant_credits`.

    `password_hash` comes from `Passwords.hash`, made before the transaction. `measuring`: see `open_measuring_account`.
    Raises `InvalidUsername`, `UsernameTaken`, `InvalidAmount`.
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
            measuring=measuring,
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
    """The user `test`, created if it does not exist (with the password of `password_hash`).

    Call `find_user` first, to avoid hashing `DEVELOPMENT_PASSWORD` at every start.
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


async def open_measuring_account(connection: AsyncConnection, *, password_hash: str) -> User:
    """The account that measures this installation: the first call creates it, later calls open it again.

    Its earlier log-ins end. Its predictions are charged as any others, but do not count as revenue.
    """
    query = select(*USER_COLUMNS).where(users.c.measuring).order_by(users.c.id).limit(1)
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        username = f"foretell-bench-{uuid7().hex[-8:]}"
        return await register(
            connection, username=username, password_hash=password_hash, grant_credits=0, measuring=True
        )
    user = user_of(row)
    await activate(connection, user.id)
    await set_password(connection, user.id, password_hash)
    return await find_user_by_id(connection, user.id)


async def find_user(connection: AsyncConnection, username: str) -> User:
    """The account of that name, in any capitalisation. Raises `NotFound`."""
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
    """Up to `limit` accounts in order of creation, starting after `after_id`."""
    query = select(*USER_COLUMNS).order_by(users.c.id).limit(limit)
    if after_id is not None:
        query = query.where(users.c.id > after_id)
    return [user_of(row) for row in (await connection.execute(query)).mappings()]


async def set_password(
    connection: AsyncConnection, user_id: UUID, password_hash: str, *, but_session: UUID | None = None
) -> None:
    """Change the password, and end every log-in except the session `but_session`. Raises `NotFound`."""
    await _change(connection, user_id, password_hash=password_hash)
    await end_log_ins(connection, user_id, but_session=but_session)


async def end_log_ins(connection: AsyncConnection, user_id: UUID, *, but_session: UUID | None = None) -> None:
    """Sign out everywhere: sessions and refresh tokens at once, access tokens when the app's processes notice it.

    API keys keep working. Raises `NotFound`.
    """
    await _change(connection, user_id, tokens_from=now())
    await refresh_tokens.revoke_all(connection, user_id)
    await sessions.end_all(connection, user_id, but=but_session)


async def set_role(connection: AsyncConnection, user_id: UUID, role: Role) -> None:
    """Make a user an operator, or a user again; ends access tokens, which contain the old role. Raises `NotFound`."""
    await _change(connection, user_id, role=role, tokens_from=now())


async def lock_operators(connection: AsyncConnection) -> list[UUID]:
    """The ids of all active operators. They are locked, so they stay operators until the transaction ends."""
    # Always in the same order, and before any other account is locked, to avoid deadlocks.
    # SQLite has only one writer anyway.
    query = select(users.c.id).where(users.c.role == "operator", users.c.active.is_(True)).order_by(users.c.id)
    return list((await connection.execute(query.with_for_update(key_share=True))).scalars())


async def close(connection: AsyncConnection, user_id: UUID) -> None:
    """Close the account for its owner, as `deactivate` does. Raises `NotFound`, `LastOperator`."""
    if await lock_operators(connection) == [user_id]:
        raise LastOperator
    await deactivate(connection, user_id, by_owner=True)


async def set_looks(connection: AsyncConnection, user_id: UUID, **looks: Language | Theme | None) -> User:
    """Change `language` or `theme` of the page, if given. Raises `NotFound`."""
    if looks:
        await _change(connection, user_id, **looks)
    return await find_user_by_id(connection, user_id)


async def deactivate(connection: AsyncConnection, user_id: UUID, *, by_owner: bool = False) -> None:
    """Close the account: log-ins, refreshes, API keys and sessions fail at once, access tokens within seconds.

    Its data stays. Raises `NotFound`.
    """
    await _change(connection, user_id, active=False, closed_at=now() if by_owner else None)
    await end_log_ins(connection, user_id)


async def activate(connection: AsyncConnection, user_id: UUID) -> None:
    """Open a closed account again. Raises `NotFound`."""
    # Old access tokens stay invalid. `tokens_from` changes, so that every process reads the account again.
    await _change(connection, user_id, active=True, closed_at=None, tokens_from=now())


@dataclass(frozen=True, slots=True)
class Ended:
    """An account whose access tokens from before `tokens_from` are invalid; if it is not `active`, all are."""

    user_id: UUID
    active: bool
    tokens_from: datetime


async def ended(connection: AsyncConnection, user_id: UUID) -> Ended:
    """The `Ended` of one account. Raises `NotFound`."""
    query = select(users.c.active, users.c.tokens_from).where(users.c.id == user_id)
    row = (await connection.execute(query)).first()
    if row is None or row.tokens_from is None:
        raise NotFound(what="user")
    return Ended(user_id, row.active, row.tokens_from)


async def ended_since(connection: AsyncConnection, since: datetime) -> list[Ended]:
    """Every account whose access tokens were ended after `since`."""
    query = select(users.c.id, users.c.active, users.c.tokens_from).where(users.c.tokens_from > since)
    return [Ended(row.id, row.active, row.tokens_from) for row in await connection.execute(query)]


async def _change(connection: AsyncConnection, user_id: UUID, **values: Any) -> None:
    changed = await connection.execute(update(users).where(users.c.id == user_id).values(**values))
    if changed.rowcount == 0:
        raise NotFound(what="user")
