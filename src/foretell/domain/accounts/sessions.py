"""Sessions of browsers: an opaque secret in a cookie, stored hashed, valid as long as it is used.

Requests that change something need a second secret, which other web pages can't know. It is derived from the first
(`csrf_token_of`), so it need not be stored, and differs for each session.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts.identity import Identity
from foretell.domain.accounts.lifetime import Lifetime
from foretell.domain.accounts.tables import sessions, users
from foretell.domain.errors import InvalidToken, NotFound
from foretell.kit.clock import now, uuid7

#: The prefix of every secret.
PREFIX = "fts_"
#: Beyond this the oldest session of the user ends.
MAX_SESSIONS_PER_USER = 100
_SECRET_LENGTH = len(PREFIX) + 43
_MAX_USER_AGENT_LENGTH = 300
_MAX_ADDRESS_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Session:
    """One session, without its secret."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    user_agent: str
    address: str


async def create(
    connection: AsyncConnection, user_id: UUID, *, user_agent: str, address: str, lifetime: Lifetime
) -> tuple[UUID, str]:
    """A new session after a log-in: its id, and its secret (256 random bits) for the cookie."""
    secret = PREFIX + secrets.token_urlsafe(32)
    moment = now()
    session_id = uuid7()
    newest = (
        select(sessions.c.id)
        .where(sessions.c.user_id == user_id)
        .order_by(sessions.c.id.desc())
        .limit(MAX_SESSIONS_PER_USER - 1)
    )
    kept = list((await connection.scalars(newest)).all())
    if len(kept) == MAX_SESSIONS_PER_USER - 1:
        await connection.execute(delete(sessions).where(sessions.c.user_id == user_id, sessions.c.id.not_in(kept)))
    await connection.execute(
        insert(sessions).values(
            id=session_id,
            user_id=user_id,
            token_hash=_hash(secret),
            created_at=moment,
            last_used_at=moment,
            expires_at=moment + timedelta(seconds=min(lifetime.idle_s, lifetime.whole_s)),
            user_agent=_kept(user_agent, _MAX_USER_AGENT_LENGTH),
            address=_kept(address, _MAX_ADDRESS_LENGTH),
        )
    )
    return session_id, secret


async def identify(connection: AsyncConnection, secret: str) -> Identity:
    """The identity of a session. Only reads; note the use with `record_uses`.

    Raises `InvalidToken` if it is unknown or has ended, or if its user is not active.
    """
    if not secret.startswith(PREFIX) or len(secret) != _SECRET_LENGTH:
        raise InvalidToken
    query = (
        select(sessions.c.id, users.c.id.label("user_id"), users.c.role)
        .join_from(sessions, users, users.c.id == sessions.c.user_id)
        .where(sessions.c.token_hash == _hash(secret), sessions.c.expires_at > now(), users.c.active)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        raise InvalidToken
    return Identity(user_id=row.user_id, role=row.role, expires_at=None, session_id=row.id)


async def record_uses(connection: AsyncConnection, uses: Mapping[UUID, datetime], lifetime: Lifetime) -> None:
    """Note when sessions were used; each is valid for another `idle_s`, but no longer than `whole_s` in all."""
    for session_id, used_at in sorted(uses.items()):
        query = select(sessions.c.created_at).where(sessions.c.id == session_id)
        created_at = await connection.scalar(query)
        if created_at is None:
            continue
        expires_at = min(used_at + timedelta(seconds=lifetime.idle_s), created_at + timedelta(seconds=lifetime.whole_s))
        # Several processes call this, so times may arrive out of order.
        await connection.execute(
            update(sessions)
            .where(sessions.c.id == session_id, sessions.c.last_used_at < used_at)
            .values(last_used_at=used_at, expires_at=expires_at)
        )


async def list_sessions(connection: AsyncConnection, user_id: UUID) -> list[Session]:
    """A user's valid sessions, the newest first."""
    columns = [sessions.c[name] for name in Session.__dataclass_fields__]
    query = (
        select(*columns)
        .where(sessions.c.user_id == user_id, sessions.c.expires_at > now())
        .order_by(sessions.c.id.desc())
    )
    return [Session(**row) for row in (await connection.execute(query)).mappings()]


async def end(connection: AsyncConnection, user_id: UUID, session_id: UUID) -> None:
    """Sign out. Raises `NotFound` if the session has ended or belongs to another user."""
    ended = await connection.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.user_id == user_id))
    if ended.rowcount == 0:
        raise NotFound(what="session")


async def end_secret(connection: AsyncConnection, secret: str) -> None:
    """End the session with this secret; an unknown one is ignored."""
    await connection.execute(delete(sessions).where(sessions.c.token_hash == _hash(secret)))


async def end_all(connection: AsyncConnection, user_id: UUID, *, but: UUID | None = None) -> None:
    """End all sessions of a user except `but`."""
    ended = delete(sessions).where(sessions.c.user_id == user_id)
    await connection.execute(ended if but is None else ended.where(sessions.c.id != but))


async def delete_expired(connection: AsyncConnection, *, before: datetime) -> int:
    """Delete sessions that ended before `before`; returns how many."""
    return (await connection.execute(delete(sessions).where(sessions.c.expires_at < before))).rowcount


def csrf_token_of(secret: str) -> str:
    """The token that every change by this session must send. The secret can't be derived from it."""
    digest = hmac.digest(secret.encode(errors="replace"), b"foretell: csrf", "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _kept(text: str, length: int) -> str:
    return "".join(character for character in text if character.isprintable())[:length]


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
