"""Chats of Telegram that act for an account."""

from datetime import datetime

from pydantic import Field

from foretell.contracts.http.bodies import Answer


class TelegramLink(Answer):
    """A deep link that lets a chat of Telegram act for the account: whoever opens it first, once."""

    url: str | None = Field(
        description="To open; null while it is not known what the bot is called",
        examples=["https://t.me/foretell_bot?start=Jf3…"],
    )
    code: str = Field(description="What to send to the bot in its place: /start CODE")
    expires_at: datetime


class TelegramChat(Answer):
    """A chat that acts for the account."""

    chat_id: int
    name: str | None = Field(description="What Telegram calls the person or the group")
    linked_at: datetime


class TelegramChats(Answer):
    """Which chats act for the account."""

    bot: str | None = Field(description="What the bot is called; null before it ever ran", examples=["foretell_bot"])
    items: list[TelegramChat]
