"""Who somebody is: a `User` as the database knows them, an `Identity` as a token or an API key proves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from foretell.domain.accounts.tables import users

Role = Literal["user", "operator"]
ROLES: frozenset[str] = frozenset(("user", "operator"))


@dataclass(frozen=True, slots=True)
class User:
    """One account. `username` is as its owner wrote it."""

    id: UUID
    username: str
    role: Role
    active: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ChatLink:
    """One link of a Telegram chat to an account: the same chat linked again is another link."""

    chat_id: int
    #: When it was linked, in microseconds since 1970.
    linked_at_us: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, as proven by an access token (until `expires_at`) or by an API key (`api_key_id`, no expiry).

    With `chat`, the token was issued for a chat, and proves nothing once that link has ended.
    """

    user_id: UUID
    role: Role
    expires_at: datetime | None
    api_key_id: UUID | None = None
    chat: ChatLink | None = None


#: The columns that make a `User`.
USER_COLUMNS = (users.c.id, users.c.username, users.c.role, users.c.active, users.c.created_at)


def user_of(row: Mapping[Any, Any]) -> User:
    """The user of a row (as a mapping) that was selected with `USER_COLUMNS`."""
    return User(
        id=row["id"], username=row["username"], role=row["role"], active=row["active"], created_at=row["created_at"]
    )
