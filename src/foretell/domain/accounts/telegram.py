"""Telegram chats that act for an account: signed up by the bot, or linked with a one-time code.

An account may have several chats, a chat one account. A repeated call of the bot takes effect once and has the same
answer. Each function that changes a chat locks its row first, so concurrent calls run one after the other.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.accounts import registration
from foretell.domain.accounts.identity import USER_COLUMNS, ChatLink, User, user_of
from foretell.domain.accounts.tables import users
from foretell.domain.accounts.telegram_tables import telegram_bot, telegram_chats, telegram_codes
from foretell.domain.errors import ChatIsLinked, ChatNotLinked, Forbidden, TooManyChats, UnknownLinkCode, UsernameTaken
from foretell.kit.clock import now
from foretell.kit.database import to_microseconds

CODE_LIFETIME = timedelta(minutes=15)
MAX_CHATS_PER_USER = 20
#: How many of an account's newest codes are valid.
_MOST_CODES = 5
_CODE_BYTES = 24


@dataclass(frozen=True, slots=True)
class Chat:
    """A linked chat. `name` is the name of the person or the group in Telegram."""

    chat_id: int
    name: str | None
    linked_at: datetime


@dataclass(frozen=True, slots=True)
class Link:
    """A chat and its account. `changed`: this call created the link; `created`: it created the account, too."""

    chat_id: int
    user: User
    changed: bool = False
    created: bool = False


async def make_code(connection: AsyncConnection, user_id: UUID) -> tuple[str, datetime]:
    """A code (32 URL-safe characters) that links a chat to the account, once, and when it expires.

    Telegram allows up to 64 such characters in a deep link.
    """
    moment = now()
    mine = telegram_codes.c.user_id == user_id
    kept = (
        select(telegram_codes.c.code_hash)
        .where(mine)
        .order_by(telegram_codes.c.created_at.desc())
        .limit(_MOST_CODES - 1)
    )
    known = (await connection.scalars(kept)).all()
    out_of_use = or_(telegram_codes.c.expires_at <= moment, telegram_codes.c.code_hash.not_in(known))
    await connection.execute(delete(telegram_codes).where(mine, out_of_use))
    code = secrets.token_urlsafe(_CODE_BYTES)
    expires_at = moment + CODE_LIFETIME
    await connection.execute(
        insert(telegram_codes).values(code_hash=_hash(code), user_id=user_id, created_at=moment, expires_at=expires_at)
    )
    return code, expires_at


async def link(connection: AsyncConnection, chat_id: int, code: str, *, name: str | None = None) -> Link:
    """Let a chat act for the account that made `code`.

    Raises `UnknownLinkCode` if the code is unknown, used by another chat or too old, or if its account is closed;
    `ChatIsLinked`, `TooManyChats`. A failed call does not use up the code.
    """
    chat = await _lock_chat(connection, chat_id)
    query = select(telegram_codes).where(telegram_codes.c.code_hash == _hash(code)).with_for_update()
    found = (await connection.execute(query)).first()
    if found is None or found.expires_at <= now() or found.used_by_chat_id not in (None, chat_id):
        raise UnknownLinkCode
    # Locked, so that two concurrent chats can't exceed the limit. No key changes, so other transactions do not wait.
    user = await _user(connection, found.user_id, lock=True)
    if not user.active:
        raise UnknownLinkCode
    if chat.user_id == user.id:
        await _use_up(connection, code, chat_id)
        return Link(chat_id, user)
    if found.used_by_chat_id is not None:
        # It was used, and the chat has been unlinked since.
        raise UnknownLinkCode
    if chat.user_id is not None:
        raise ChatIsLinked
    await _use_up(connection, code, chat_id)
    await _set_user(connection, chat_id, user.id, name)
    return Link(chat_id, user, changed=True)


async def sign_up(
    connection: AsyncConnection, chat_id: int, *, password_hash: str, grant_credits: int, name: str | None = None
) -> Link:
    """The account that a chat acts for; if the chat never had one, a new one with `grant_credits`.

    A chat that was unlinked gets the account that was created for it, without a second grant. `password_hash`
    matches no password (`passwords.unmatchable_hash`): the account has no password until one is set. Raises
    `Forbidden` if the account of the chat is closed, `TooManyChats`.
    """
    chat = await _lock_chat(connection, chat_id)
    known = chat.user_id or chat.own_user_id
    if known is not None:
        user = await _user(connection, known, lock=chat.user_id is None)
        if not user.active:
            raise Forbidden("The account of this chat is closed. Ask the operator.")
        if chat.user_id is None:
            await _set_user(connection, chat_id, user.id, name)
        return Link(chat_id, user, changed=chat.user_id is None)
    user = await _register(connection, chat_id, password_hash, grant_credits)
    await connection.execute(
        update(telegram_chats).where(telegram_chats.c.chat_id == chat_id).values(own_user_id=user.id)
    )
    await _set_user(connection, chat_id, user.id, name)
    return Link(chat_id, user, changed=True, created=True)


async def find(connection: AsyncConnection, chat_id: int) -> Link:
    """The account that a chat acts for. Raises `ChatNotLinked` if it is not linked, or if the account is closed."""
    user, _ = await find_link(connection, chat_id)
    return Link(chat_id, user)


async def find_link(connection: AsyncConnection, chat_id: int) -> tuple[User, ChatLink]:
    """The user that a chat acts for, and the link. Raises as `find` does."""
    row = (await connection.execute(_acting(chat_id))).mappings().first()
    if row is None:
        raise ChatNotLinked
    return user_of(row), ChatLink(chat_id, to_microseconds(row["linked_at"]))


async def is_linked(connection: AsyncConnection, user_id: UUID, link: ChatLink) -> bool:
    """Whether exactly this link still exists, and the account is open."""
    row = (await connection.execute(_acting(link.chat_id))).mappings().first()
    return row is not None and row["id"] == user_id and to_microseconds(row["linked_at"]) == link.linked_at_us


async def chats_of(connection: AsyncConnection, user_id: UUID) -> list[Chat]:
    """The chats that act for an account, the oldest link first."""
    query = (
        select(telegram_chats.c.chat_id, telegram_chats.c.name, telegram_chats.c.linked_at)
        .where(telegram_chats.c.user_id == user_id)
        .order_by(telegram_chats.c.linked_at, telegram_chats.c.chat_id)
    )
    return [Chat(**row) for row in (await connection.execute(query)).mappings()]


async def unlink(connection: AsyncConnection, chat_id: int) -> UUID:
    """Unlink a chat; returns the user that it acted for. Raises `ChatNotLinked`."""
    chat = await _lock_chat(connection, chat_id)
    user_id: UUID | None = chat.user_id
    if user_id is None:
        raise ChatNotLinked
    await _clear(connection, [chat_id])
    return user_id


async def unlink_from(connection: AsyncConnection, user_id: UUID, chat_id: int | None) -> list[int]:
    """Unlink a chat of this account, or all of them; returns which. Raises `ChatNotLinked`."""
    mine = select(telegram_chats.c.chat_id).where(telegram_chats.c.user_id == user_id)
    if chat_id is not None:
        mine = mine.where(telegram_chats.c.chat_id == chat_id)
    # Locked in the order of their ids, to avoid deadlocks.
    found = (await connection.scalars(mine.order_by(telegram_chats.c.chat_id).with_for_update())).all()
    if not found and chat_id is not None:
        raise ChatNotLinked
    await _clear(connection, found)
    # An unused code could link a chat again.
    await connection.execute(delete(telegram_codes).where(telegram_codes.c.user_id == user_id))
    return list(found)


async def set_bot_name(connection: AsyncConnection, username: str) -> None:
    """Store the name of the bot, without the @."""
    added = _insert(connection, telegram_bot).values(id=1, username=username)
    await connection.execute(
        added.on_conflict_do_update(index_elements=[telegram_bot.c.id], set_={"username": username})
    )


async def bot_name(connection: AsyncConnection) -> str | None:
    """The name that the bot reported; None before its first start."""
    name: str | None = await connection.scalar(select(telegram_bot.c.username))
    return name


async def _lock_chat(connection: AsyncConnection, chat_id: int) -> Any:
    """The row of a chat, created if necessary, locked until the transaction ends."""
    await connection.execute(_insert(connection, telegram_chats).values(chat_id=chat_id).on_conflict_do_nothing())
    query = select(telegram_chats).where(telegram_chats.c.chat_id == chat_id).with_for_update()
    return (await connection.execute(query)).one()


def _acting(chat_id: int) -> Select[Any]:
    return (
        select(*USER_COLUMNS, telegram_chats.c.linked_at)
        .join(telegram_chats, telegram_chats.c.user_id == users.c.id)
        .where(telegram_chats.c.chat_id == chat_id, users.c.active)
    )


async def _user(connection: AsyncConnection, user_id: UUID, *, lock: bool) -> User:
    query = select(*USER_COLUMNS).where(users.c.id == user_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row: Mapping[Any, Any] = (await connection.execute(query)).mappings().one()
    return user_of(row)


async def _use_up(connection: AsyncConnection, code: str, chat_id: int) -> None:
    used = update(telegram_codes).where(telegram_codes.c.code_hash == _hash(code))
    await connection.execute(used.values(used_by_chat_id=chat_id))


async def _set_user(connection: AsyncConnection, chat_id: int, user_id: UUID, name: str | None) -> None:
    """Link a chat. The caller has locked the user. Raises `TooManyChats`."""
    mine = select(func.count()).where(telegram_chats.c.user_id == user_id)
    if (await connection.scalar(mine) or 0) >= MAX_CHATS_PER_USER:
        raise TooManyChats(limit=MAX_CHATS_PER_USER)
    await connection.execute(
        update(telegram_chats)
        .where(telegram_chats.c.chat_id == chat_id)
        .values(user_id=user_id, name=func.coalesce(name, telegram_chats.c.name), linked_at=now())
    )


async def _clear(connection: AsyncConnection, chat_ids: Iterable[int]) -> None:
    await connection.execute(
        update(telegram_chats)
        .where(telegram_chats.c.chat_id.in_(list(chat_ids)))
        .values(user_id=None, name=None, linked_at=None)
    )


async def _register(connection: AsyncConnection, chat_id: int, password_hash: str, grant_credits: int) -> User:
    username = f"telegram-{chat_id}"
    while True:
        try:
            return await registration.register(
                connection, username=username, password_hash=password_hash, grant_credits=grant_credits
            )
        except UsernameTaken:
            # Another user has registered under this name.
            username = f"telegram-{chat_id}-{secrets.token_hex(4)}"


def _insert(connection: AsyncConnection, table: Any) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode(errors="replace")).digest()
