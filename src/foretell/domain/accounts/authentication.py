"""Logging in and staying logged in.

These functions take the database, not a connection, for two reasons. Hashing takes milliseconds of a core, and no
transaction may stay open meanwhile. And a stolen refresh token must end its family in a transaction that is committed
although the caller gets an error.
"""

from sqlalchemy import select, update

from foretell.domain.accounts import refresh_tokens
from foretell.domain.accounts.identity import USER_COLUMNS, User, user_of
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.accounts.registration import DEVELOPMENT_PASSWORD, DEVELOPMENT_USERNAME
from foretell.domain.accounts.tables import users
from foretell.domain.accounts.usernames import username_key
from foretell.domain.errors import InvalidCredentials, InvalidToken, InvalidUsername
from foretell.kit.database import Database


async def authenticate(database: Database, passwords: Passwords, username: str, password: str) -> User:
    """The active user with this name and password.

    Unknown names, closed accounts and wrong passwords give the same error after the same time. Raises
    `InvalidCredentials`, `TooManyPasswords`, `Unavailable`.
    """
    user, password_hash = await _find(database, username)
    matches = await passwords.verify(password_hash, password)
    if user is None or password_hash is None or not matches or not user.active:
        raise InvalidCredentials
    if passwords.needs_rehash(password_hash):
        renewed = await passwords.hash(password)
        async with database.transaction() as connection:
            # Only if the hash is still the verified one: the password may have been changed meanwhile.
            await connection.execute(
                update(users)
                .where(users.c.id == user.id, users.c.password_hash == password_hash)
                .values(password_hash=renewed)
            )
    return user


async def refresh(database: Database, token: str) -> tuple[User, str]:
    """The user of a refresh token and the token that replaces it. Raises `InvalidToken`, `Unavailable`.

    A token that was used before ends every session that descends from its log-in.
    """
    async with database.transaction() as connection:
        rotation = await refresh_tokens.rotate(connection, token)
    # Raised after the commit: inside, it would roll back the end of the family.
    if isinstance(rotation, refresh_tokens.Reused):
        raise InvalidToken
    return rotation.user, rotation.token


async def has_development_user(database: Database, passwords: Passwords) -> bool:
    """Whether `test` can log in with the password `test`. In production the app then refuses to start."""
    try:
        await authenticate(database, passwords, DEVELOPMENT_USERNAME, DEVELOPMENT_PASSWORD)
    except InvalidCredentials:
        return False
    return True


async def _find(database: Database, username: str) -> tuple[User, str] | tuple[None, None]:
    try:
        key = username_key(username)
    except InvalidUsername:
        # No user can have this name; run the same query as for an unknown one, to take the same time.
        key = ""
    async with database.snapshot() as connection:
        query = select(*USER_COLUMNS, users.c.password_hash).where(users.c.username_key == key)
        row = (await connection.execute(query)).mappings().first()
    return (None, None) if row is None else (user_of(row), row["password_hash"])
