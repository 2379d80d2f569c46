"""Ways to act for an account: sessions of browsers, tokens and API keys."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from foretell.contracts.http.accounts import User
from foretell.contracts.http.bodies import PRINTABLE, Answer, Request


class Credentials(Request):
    """A log-in."""

    username: str = Field(max_length=1000, examples=["test"])
    password: str = Field(max_length=10_000, examples=["test"])


class SessionStart(Answer):
    """The user of a session. Send `csrf_token` as `X-CSRF-Token` with every request that changes something."""

    user: User
    csrf_token: str


class Session(Answer):
    """One session of a browser."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    user_agent: str
    address: str = Field(description="Address that it was opened from", examples=["203.0.113.7"])
    current: bool = Field(description="Whether it is the session of this request")


class Sessions(Answer):
    """The newest first."""

    items: list[Session]


class Tokens(Answer):
    """RFC 6749: the answer to a log-in. The refresh token works once and returns the next pair."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme, no secret
    expires_in: int = Field(description="Seconds until the access token ends", examples=[900])
    refresh_token: str


class NewApiKey(Request):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=100, examples=["nightly report"], json_schema_extra=PRINTABLE)


class ApiKey(Answer):
    """An API key, without its secret."""

    id: UUID
    name: str = Field(examples=["nightly report"])
    prefix: str = Field(description="How the key begins", examples=["ftl_3kT9"])
    created_at: datetime
    last_used_at: datetime | None = None


class CreatedApiKey(ApiKey):
    """A new API key, shown only once."""

    key: str = Field(description="Store it: it can't be shown again")


class ApiKeys(Answer):
    """The valid keys of an account."""

    items: list[ApiKey]
