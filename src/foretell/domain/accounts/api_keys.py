"""API keys: credentials of programs. Shown once, stored hashed."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts.identity import Identity
from foretell.domain.accounts.tables import api_keys, users
from foretell.domain.errors import InvalidName, InvalidToken, NotFound, TooManyKeys
from foretell.kit.clock import now, uuid7

#: The prefix of every key, so that people and secret scanners recognise one.
PREFIX = "ftl_"
MAX_KEYS_PER_USER = 50
_MAX_NAME_LENGTH = 100
_SECRET_LENGTH = len(PREFIX) + 43
_SHOWN_LENGTH = 10
_USE_RESOLUTION = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key without its secret; `prefix` is the beginning of the secret."""

    id: UUID
    name: str
    prefix: str
    created_at: datetime
    last_used_at: datetime | None


async def create(connection: AsyncConnection, user_id: UUID, name: str) -> tuple[ApiKey, str]:
    """A new key and its secret (`ftl_` and 43 URL-safe characters), which can't be shown again.

    Raises `InvalidName`, `TooManyKeys`.
    """
    name = name.strip()
    if not 1 <= len(name) <= _MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidName(max_length=_MAX_NAME_LENGTH)
    mine = select(func.count()).where(api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
    if (await connection.scalar(mine) or 0) >= MAX_KEYS_PER_USER:
        raise TooManyKeys(limit=MAX_KEYS_PER_USER)
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(id=uuid7(), name=name, prefix=secret[:_SHOWN_LENGTH], created_at=now(), last_used_at=None)
    await connection.execute(
        insert(api_keys).values(
            id=key.id,
            user_id=user_id,
            name=name,
            prefix=key.prefix,
            key_hash=_hash(secret),
            created_at=key.created_at,
        )
    )
    return key, secret


async def list_keys(connection: AsyncConnection, user_id: UUID) -> list[ApiKey]:
    """A user's keys that are not revoked, oldest first."""
    query = (
        select(api_keys.c.id, api_keys.c.name, api_keys.c.prefix, api_keys.c.created_at, api_keys.c.last_used_at)
        .where(api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
        .order_by(api_keys.c.id)
    )
    return [ApiKey(**row) for row in (await connection.execute(query)).mappings()]


async def revoke(connection: AsyncConnection, user_id: UUID, key_id: UUID) -> None:
    """Revoke a key. Raises `NotFound` if it does not exist, was revoked or belongs to another user."""
    revoked = await connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now())
    )
    if revoked.rowcount == 0:
        raise NotFound(what="API key")


async def revoke_all(connection: AsyncConnection, user_id: UUID) -> None:
    """Revoke every key of a user."""
    await connection.execute(
        update(api_keys).where(api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now())
    )


async def identify(connection: AsyncConnection, secret: str) -> Identity:
    """The identity of a key. Only reads; note the use with `KeyUses`.

    Raises `InvalidToken` if it is unknown or revoked, or if its user is not active.
    """
    if not secret.startswith(PREFIX) or len(secret) != _SECRET_LENGTH:
        raise InvalidToken
    query = (
        select(api_keys.c.id, users.c.id.label("user_id"), users.c.role)
        .join_from(api_keys, users, users.c.id == api_keys.c.user_id)
        .where(api_keys.c.key_hash == _hash(secret), api_keys.c.revoked_at.is_(None), users.c.active)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        raise InvalidToken
    return Identity(user_id=row.user_id, role=row.role, expires_at=None, api_key_id=row.id)


class KeyUses:
    """Collects used keys, so that one UPDATE a minute records them all, outside of requests."""

    def __init__(self) -> None:
        self._uses: dict[UUID, datetime] = {}

    def note(self, key_id: UUID) -> None:
        """The key was used just now."""
        self._uses[key_id] = now()

    def take(self) -> dict[UUID, datetime]:
        """The uses since the last call, for `record_uses`."""
        uses, self._uses = self._uses, {}
        return uses


async def record_uses(connection: AsyncConnection, uses: Mapping[UUID, datetime]) -> None:
    """Set `last_used_at` of the keys in `uses`, unless it was set within the last minute."""
    for key_id, used_at in sorted(uses.items()):
        stale = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < used_at - _USE_RESOLUTION)
        await connection.execute(update(api_keys).where(api_keys.c.id == key_id, stale).values(last_used_at=used_at))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
