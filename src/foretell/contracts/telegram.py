"""Requests of the bot to the app, with the bot's secret as bearer token (see docs/telegram.md)."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from foretell.contracts.http import Answer, KeptText, Request

#: The id of a private chat, which is the id of the person and has at most 52 significant bits. Ids of groups are
#: negative and not allowed, because a group has no account.
ChatId = Annotated[int, Field(strict=True, ge=1, le=2**53, examples=[123456789])]
_Name = Annotated[KeptText, Field(max_length=256, description="What Telegram calls the person or the group")]
_ChargeId = Annotated[KeptText, Field(min_length=1, max_length=256, description="Telegram's id of the charge")]


class BotName(Request):
    """What the bot is called."""

    username: str = Field(pattern=r"^@?[A-Za-z0-9_]{1,64}$", examples=["foretell_bot"])


class NewChatAccount(Request):
    """A chat that wants an account."""

    chat_id: ChatId
    language: str | None = Field(default=None, max_length=35, description="As Telegram says it: ru, en, pt-br")
    name: _Name | None = None


class NewChatLink(Request):
    """A chat that wants to act for the account that made `code`."""

    chat_id: ChatId
    code: str = Field(max_length=64)
    name: _Name | None = None


class ChatOf(Request):
    """The chat that is meant."""

    chat_id: ChatId


class NewPayment(Request):
    """A payment in Stars that Telegram has confirmed."""

    chat_id: ChatId
    charge_id: _ChargeId
    stars: int = Field(strict=True, ge=1, le=1_000_000_000)
    credits: int = Field(strict=True, ge=1, le=1_000_000_000)


class NewRefund(Request):
    """A payment whose Stars went back."""

    charge_id: _ChargeId


class ChatAccount(Answer):
    """A chat, and the account that it acts for."""

    chat_id: int
    user_id: UUID
    username: str = Field(examples=["telegram-123456789"])


class ChatToken(Answer):
    """An access token of the account that a chat acts for."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - the name of a scheme, no secret
    expires_in: int = Field(description="Seconds until it ends")
    user_id: UUID = Field(description="The account")


class Payment(Answer):
    """A payment as it stands. Once it was refunded, `refunded_credits` of its credits were taken back."""

    charge_id: str
    stars: int
    credits: int
    created_at: datetime
    refunded_at: datetime | None
    refunded_credits: int | None
