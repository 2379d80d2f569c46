"""The argument of handlers: an update, and the methods to answer it."""

from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from foretell.services.bot.accounts import Accounts
from foretell.services.bot.filling.form import Forms
from foretell.services.bot.keyboards import Keyboard
from foretell.services.bot.models import Models
from foretell.services.bot.settings import BotSettings
from foretell.services.bot.storage.asked import AskedPredictions
from foretell.services.bot.storage.chats import Chats, ChatSettings
from foretell.services.bot.storage.outbox import Outbox
from foretell.services.bot.storage.payments import Payments
from foretell.services.bot.telegram.api import TelegramError
from foretell.services.bot.telegram.sender import Sender
from foretell.services.bot.telegram.types import Update, User
from foretell.services.bot.words import Words, language_of

log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """The components of the bot."""

    settings: BotSettings
    sender: Sender
    accounts: Accounts
    models: Models
    chats: Chats
    forms: Forms
    asked: AskedPredictions
    outbox: Outbox
    payments: Payments
    #: The bot's username, once Telegram has returned it.
    name: list[str] = field(default_factory=list)

    async def forget_account_of(self, user_id: int) -> int:
        """Delete what belongs to the account of a person whose chat was unlinked; returns the number of events.

        These are open predictions, forms in all chats, pages of the history, and the wish to get results made
        elsewhere: whoever is linked next must neither get nor send any of it. The language stays, as the person's own.
        """
        await self.asked.forget_of(user_id)
        await self.forms.end_of(user_id)
        await self.chats.forget_account(user_id)
        return await self.outbox.drop(user_id)

    @property
    def username(self) -> str:
        """The bot's username; empty while it is unknown."""
        return self.name[0] if self.name else ""


class Talk:
    """An update with its chat, its person and their language."""

    def __init__(self, parts: Parts, update: Update, person: User, settings: ChatSettings) -> None:
        self.parts = parts
        self.update = update
        self.person = person
        self.settings = settings
        self.words = Words(settings.language or language_of(person.language_code))
        tap = update.callback_query
        #: The message with the tapped button, or the message that was sent to the bot.
        self.message = tap.message if tap is not None else update.message or update.edited_message
        self._answered = tap is None
        #: The message that `show` edits; 0: none yet.
        self._shown = self.tapped_message_id

    @property
    def user_id(self) -> int:
        """The Telegram id of the person."""
        return self.person.id

    @property
    def chat_id(self) -> int:
        """The Telegram id of the chat."""
        return self.message.chat.id if self.message is not None else self.person.id

    @property
    def private(self) -> bool:
        """Whether this is a private chat."""
        return self.message is None or self.message.chat.type == "private"

    @property
    def tapped_message_id(self) -> int:
        """The id of the message whose button was tapped, or 0."""
        tap = self.update.callback_query
        return tap.message.message_id if tap is not None and tap.message is not None else 0

    @property
    def tapped_button(self) -> str:
        """The button that was tapped: its message and its data; empty without one."""
        tap = self.update.callback_query
        return f"{self.tapped_message_id}:{tap.data}" if tap is not None and self.tapped_message_id else ""

    def goes_on_in(self, message_id: int) -> None:
        """Let `show` edit this message."""
        self._shown = message_id

    async def say(self, text: str, keyboard: Keyboard | None = None) -> int:
        """Send a new message. Returns its id.

        In a group it replies to the person's message or to the one that was tapped, so that it is clear what it is
        about, and it is in the same topic.
        """
        reply_to = None if self.private or self.message is None else self.message.message_id
        return await self.parts.sender.send(self.chat_id, text, keyboard, reply_to=reply_to)

    async def show(self, text: str, keyboard: Keyboard | None = None) -> int:
        """Edit the message whose button was tapped, or the one shown before; otherwise send a new one."""
        if not self._shown or not await self.parts.sender.edit(self.chat_id, self._shown, text, keyboard):
            self._shown = await self.say(text, keyboard)
        return self._shown

    async def answer_tap(self, text: str | None = None, *, alert: bool = False) -> None:
        """Answer the tap on a button, with an optional note. Only the first call has an effect."""
        tap = self.update.callback_query
        if self._answered or tap is None:
            return
        self._answered = True
        # A tap that is too old can't be answered any more, which does no harm.
        with suppress(TelegramError):
            await self.parts.sender.call("answerCallbackQuery", callback_query_id=tap.id, text=text, show_alert=alert)
