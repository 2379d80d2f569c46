"""Telegram chats that act for an account."""

from datetime import datetime

from pydantic import Field

from foretell.contracts.http.bodies import Answer


class TelegramLink(Answer):
    """A one-time deep link: the Telegram chat that opens it first can act for the account."""

    url: str | None = Field(
        description="Open it in Telegram; null while the name of the bot is unknown",
        examples=["https://t.me/foretell_bot?start=Jf3…"],
    )
    code: str = Field(description="Can be sent to the bot instead: /start CODE")
    expires_at: datetime


class TelegramChat(Answer):
    """A chat that acts for the account."""

    chat_id: int
    name: str | None = Field(description="Name of the person or group in Telegram")
    linked_at: datetime


class TelegramChats(Answer):
    """The chats that act for the account."""

    bot: str | None = Field(description="Name of the bot; null before its first run", examples=["foretell_bot"])
    items: list[TelegramChat]
