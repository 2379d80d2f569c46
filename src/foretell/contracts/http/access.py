"""Ways to act for an account: sessions of browsers, tokens and API keys."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from foretell.contracts.http.accounts import User
from foretell.contracts.http.bodies import PRINTABLE, Answer, Request


class Credentials(Request):
    """Who logs in."""

    username: str = Field(max_length=1000, examples=["test"])
    password: str = Field(max_length=10_000, examples=["test"])


class SessionStart(Answer):
    """Whose session this is. `csrf_token` belongs into `X-CSRF-Token` with every request that changes something."""

    user: User
    csrf_token: str


class Session(Answer):
    """One session of a browser."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    user_agent: str
    address: str = Field(description="Where it was opened from", examples=["203.0.113.7"])
    current: bool = Field(description="Whether it is the one that asks")


class Sessions(Answer):
    """The newest first."""

    items: list[Session]


class Tokens(Answer):
    """RFC 6749: what a log-in gives. The refresh token works once and gives the next pair."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme, no secret
    expires_in: int = Field(description="Seconds until the access token ends", examples=[900])
    refresh_token: str


class NewApiKey(Request):
    """A key that is wanted."""

    name: str = Field(min_length=1, max_length=100, examples=["nightly report"], json_schema_extra=PRINTABLE)


class ApiKey(Answer):
    """A key for programs, without the key."""

    id: UUID
    name: str = Field(examples=["nightly report"])
    prefix: str = Field(description="How the key begins", examples=["ftl_3kT9"])
    created_at: datetime
    last_used_at: datetime | None = None


class CreatedApiKey(ApiKey):
    """A new key, shown this once."""

    key: str = Field(description="Keep it: it can't be shown again")


class ApiKeys(Answer):
    """The keys of an account that work."""

    items: list[ApiKey]
