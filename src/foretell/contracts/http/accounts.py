"""Accounts, changes by their owners, and public facts about the installation."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field
from pydantic.config import JsonDict

from foretell.contracts.http.bodies import Answer, KeptText, Request

# Letters and digits of every script and . _ - @ + as far as every dialect of regular expressions can say it.
_USERNAME: JsonDict = {"pattern": r"^[^\s\u0000-\u002a\u002c\u002f\u003a-\u003f\u005b-\u005e\u0060\u007b-\u00a0]+$"}


class NewUser(Request):
    """A registration."""

    username: str = Field(min_length=3, max_length=64, examples=["ada"], json_schema_extra=_USERNAME)
    password: KeptText = Field(min_length=8, max_length=1024, examples=["correct horse battery staple"])


class User(Answer):
    """An account."""

    id: UUID
    username: str = Field(examples=["ada"])
    role: Literal["user", "operator"] = Field(examples=["user"])
    created_at: datetime
    language: Literal["en", "ru"] | None = Field(description="Of the web page; null: as set in the browser")
    theme: Literal["light", "dark"] | None = Field(description="Of the web page; null: as set in the browser")


class UserChange(Request):
    """Settings of the web page; fields that are left out do not change."""

    language: Literal["en", "ru"] | None = None
    theme: Literal["light", "dark"] | None = None


class PasswordChange(Request):
    """The present password and the new one."""

    old: str = Field(max_length=10_000)
    new: KeptText = Field(min_length=8, max_length=1024, examples=["correct horse battery staple"])


class AccountClosing(Request):
    """Closing an account needs its password."""

    password: str = Field(max_length=10_000)


class About(Answer):
    """Public facts about the installation."""

    product: Literal["Foretell"]
    version: str = Field(examples=["0.1.0"])
    environment: Literal["development", "production"]
    languages: list[Literal["en", "ru"]]
    registration_open: bool
    signup_credits: int = Field(description="Credits of a new account", examples=[100])
    telegram: bool = Field(description="Whether there is a bot")
    telegram_bot: str | None = Field(description="Its name; null until it has run once", examples=["foretell_bot"])
