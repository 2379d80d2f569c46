"""An account, what its owner changes of it, and what a visitor may know of the installation."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field
from pydantic.config import JsonDict

from foretell.contracts.http.bodies import Answer, KeptText, Request

# Letters and digits of every script and . _ - @ + as far as every dialect of regular expressions can say it.
_USERNAME: JsonDict = {"pattern": r"^[^\s\u0000-\u002a\u002c\u002f\u003a-\u003f\u005b-\u005e\u0060\u007b-\u00a0]+$"}


class NewUser(Request):
    """Who wants an account."""

    username: str = Field(min_length=3, max_length=64, examples=["ada"], json_schema_extra=_USERNAME)
    password: KeptText = Field(min_length=8, max_length=1024, examples=["correct horse battery staple"])


class User(Answer):
    """An account."""

    id: UUID
    username: str = Field(examples=["ada"])
    role: Literal["user", "operator"] = Field(examples=["user"])
    created_at: datetime
    language: Literal["en", "ru"] | None = Field(description="Of the page; null: as the browser says")
    theme: Literal["light", "dark"] | None = Field(description="Of the page; null: as the browser says")


class UserChange(Request):
    """How the page should be; what is not given stays."""

    language: Literal["en", "ru"] | None = None
    theme: Literal["light", "dark"] | None = None


class PasswordChange(Request):
    """The password, and the one that is to replace it."""

    old: str = Field(max_length=10_000)
    new: KeptText = Field(min_length=8, max_length=1024, examples=["correct horse battery staple"])


class AccountClosing(Request):
    """Who closes an account shows that it is theirs."""

    password: str = Field(max_length=10_000)


class About(Answer):
    """What whoever comes here first wants to know."""

    product: Literal["Foretell"]
    version: str = Field(examples=["0.1.0"])
    environment: Literal["development", "production"]
    languages: list[Literal["en", "ru"]]
    registration_open: bool
    signup_credits: int = Field(description="What a new account gets", examples=[100])
    telegram: bool = Field(description="Whether there is a bot")
    telegram_bot: str | None = Field(description="What it is called, once it said so", examples=["foretell_bot"])
