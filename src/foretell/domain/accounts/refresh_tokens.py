"""Refresh tokens: single use, each replaced by the next; a token that is used twice ends its whole family.

The tokens of one log-in are a family; its first token has the id of the family. Only hashes are stored.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts.identity import USER_COLUMNS, User, user_of
from foretell.domain.accounts.tables import refresh_tokens, users
from foretell.domain.errors import InvalidToken
from foretell.kit.clock import now, uuid7

LIFETIME_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Rotated:
    """The token was valid: `token` replaces it."""

    user: User
    token: str


@dataclass(frozen=True, slots=True)
class Reused:
    """The token had been used before, so it or its successor was stolen: the family has been ended.

    This is a value and not an error, so that the transaction that ends the family is committed. The caller then
    raises `InvalidToken`; `authentication.refresh` does both.
    """

    user_id: UUID


async def issue(connection: AsyncConnection, user_id: UUID, *, lifetime_s: float = LIFETIME_S) -> str:
    """The first token of a new family, after a log-in."""
    return await _insert(connection, user_id, None, lifetime_s)


async def rotate(connection: AsyncConnection, token: str, *, lifetime_s: float = LIFETIME_S) -> Rotated | Reused:
    """Use `token` and replace it. Commit in both cases.

    Raises `InvalidToken` if it is unknown, too old or revoked, or if its user is not active.
    """
    token_hash = _hash(token)
    query = select(refresh_tokens.c.id, refresh_tokens.c.family_id, refresh_tokens.c.user_id)
    found = (await connection.execute(query.where(refresh_tokens.c.token_hash == token_hash))).first()
    if found is None:
        raise InvalidToken
    await _lock_family(connection, found.family_id)
    moment = now()
    used = await connection.execute(
        update(refresh_tokens)
        .where(
            refresh_tokens.c.id == found.id,
            refresh_tokens.c.used_at.is_(None),
            refresh_tokens.c.revoked_at.is_(None),
            refresh_tokens.c.expires_at > moment,
        )
        .values(used_at=moment)
    )
    if used.rowcount == 0:
        was_used = await connection.scalar(select(refresh_tokens.c.used_at).where(refresh_tokens.c.id == found.id))
        if was_used is None:
            raise InvalidToken
        await _revoke_family(connection, found.family_id, moment)
        return Reused(found.user_id)
    row = (await connection.execute(select(*USER_COLUMNS).where(users.c.id == found.user_id))).mappings().one()
    user = user_of(row)
    if not user.active:
        raise InvalidToken
    return Rotated(user, await _insert(connection, user.id, found.family_id, lifetime_s))


async def revoke(connection: AsyncConnection, token: str) -> None:
    """Log out: end the family of `token`. An unknown or ended one is ignored."""
    query = select(refresh_tokens.c.family_id).where(refresh_tokens.c.token_hash == _hash(token))
    family_id = await connection.scalar(query)
    if family_id is not None:
        await _lock_family(connection, family_id)
        await _revoke_family(connection, family_id, now())


async def revoke_all(connection: AsyncConnection, user_id: UUID) -> None:
    """Log out everywhere: end every family of a user."""
    of_user = (refresh_tokens.c.user_id == user_id, refresh_tokens.c.revoked_at.is_(None))
    # Locked in the order of ids, as everywhere, to avoid deadlocks.
    query = select(refresh_tokens.c.family_id).where(*of_user).distinct().order_by(refresh_tokens.c.family_id)
    for family_id in (await connection.scalars(query)).all():
        await _lock_family(connection, family_id)
        await _revoke_family(connection, family_id, now())


async def delete_expired(connection: AsyncConnection, *, before: datetime) -> int:
    """Delete the families whose tokens all expired before `before`; returns the number of tokens."""
    newest = func.max(refresh_tokens.c.expires_at)
    over = select(refresh_tokens.c.family_id).group_by(refresh_tokens.c.family_id).having(newest < before)
    return (await connection.execute(delete(refresh_tokens).where(refresh_tokens.c.family_id.in_(over)))).rowcount


async def _lock_family(connection: AsyncConnection, family_id: UUID) -> None:
    """Wait for transactions that rotate or revoke a token of this family.

    Without the lock, a token that is created while the family ends would stay valid. On SQLite this locks nothing,
    and need not: transactions that write run one after the other.
    """
    await connection.execute(select(refresh_tokens.c.id).where(refresh_tokens.c.id == family_id).with_for_update())


async def _revoke_family(connection: AsyncConnection, family_id: UUID, moment: datetime) -> None:
    await connection.execute(
        update(refresh_tokens)
        .where(refresh_tokens.c.family_id == family_id, refresh_tokens.c.revoked_at.is_(None))
        .values(revoked_at=moment)
    )


async def _insert(connection: AsyncConnection, user_id: UUID, family_id: UUID | None, lifetime_s: float) -> str:
    token = secrets.token_urlsafe(32)
    token_id = uuid7()
    moment = now()
    await connection.execute(
        insert(refresh_tokens).values(
            id=token_id,
            family_id=family_id or token_id,
            user_id=user_id,
            token_hash=_hash(token),
            created_at=moment,
            expires_at=moment + timedelta(seconds=lifetime_s),
        )
    )
    return token


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
