"""`User`, an account in the database, and `Identity`, the caller as proven by a token or an API key."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from foretell.domain.accounts.tables import users

Role = Literal["user", "operator"]
ROLES: frozenset[str] = frozenset(("user", "operator"))
Language = Literal["en", "ru"]
Theme = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class User:
    """One account. `username` is in the spelling of its owner."""

    id: UUID
    username: str
    role: Role
    active: bool
    created_at: datetime
    #: Language of the page; None: as set in the browser.
    language: Language | None = None
    theme: Theme | None = None
    #: When its owner closed it.
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChatLink:
    """A link of a Telegram chat to an account: if the chat is linked again, that is another link."""

    chat_id: int
    #: When it was linked, in microseconds since 1970.
    linked_at_us: int


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, as proven by an access token (until `expires_at`), an API key or a session (which has an id).

    An access token was issued at `issued_at`, in seconds since 1970. With `chat`, it was issued for a chat, and is
    invalid when that link has ended.
    """

    user_id: UUID
    role: Role
    expires_at: datetime | None
    api_key_id: UUID | None = None
    chat: ChatLink | None = None
    session_id: UUID | None = None
    issued_at: float = 0.0


#: The columns that make a `User`.
USER_COLUMNS = tuple(users.c[name] for name in User.__dataclass_fields__)


def user_of(row: Mapping[Any, Any]) -> User:
    """The user of a row (as a mapping) that was selected with `USER_COLUMNS`."""
    return User(**{name: row[name] for name in User.__dataclass_fields__})
