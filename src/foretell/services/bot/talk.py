"""One thing that somebody did, and the means to answer it. What handlers get."""

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
    """What the bot is made of."""

    settings: BotSettings
    sender: Sender
    accounts: Accounts
    models: Models
    chats: Chats
    forms: Forms
    asked: AskedPredictions
    outbox: Outbox
    payments: Payments
    #: What it is called, as soon as Telegram said so.
    name: list[str] = field(default_factory=list)

    async def forget_account_of(self, user_id: int) -> int:
        """Somebody's private chat acts for the account no more: nothing of it is told or sent; returns how much."""
        await self.asked.forget_of(user_id)
        return await self.outbox.drop(user_id)

    @property
    def username(self) -> str:
        """What the bot is called; empty while that is not known."""
        return self.name[0] if self.name else ""


class Talk:
    """An update with its chat, its person and the language of both."""

    def __init__(self, parts: Parts, update: Update, person: User, settings: ChatSettings) -> None:
        self.parts = parts
        self.update = update
        self.person = person
        self.settings = settings
        self.words = Words(settings.language or language_of(person.language_code))
        tap = update.callback_query
        #: The message that the tapped button is below, or that was sent to us.
        self.message = tap.message if tap is not None else update.message or update.edited_message
        self._answered = tap is None
        #: The message that `show` changes; 0: none yet.
        self._shown = self.tapped_message_id

    @property
    def user_id(self) -> int:
        """Who it is."""
        return self.person.id

    @property
    def chat_id(self) -> int:
        """Where it is."""
        return self.message.chat.id if self.message is not None else self.person.id

    @property
    def private(self) -> bool:
        """Whether nobody else reads it."""
        return self.message is None or self.message.chat.type == "private"

    @property
    def tapped_message_id(self) -> int:
        """The message whose button was tapped; 0 when none was."""
        tap = self.update.callback_query
        return tap.message.message_id if tap is not None and tap.message is not None else 0

    def goes_on_in(self, message_id: int) -> None:
        """Have `show` change this message."""
        self._shown = message_id

    async def say(self, text: str, keyboard: Keyboard | None = None) -> int:
        """A new message; in a group it answers the person's own. Returns its number."""
        reply_to = None
        if not self.private and self.update.message is not None:
            reply_to = self.update.message.message_id
        return await self.parts.sender.send(self.chat_id, text, keyboard, reply_to=reply_to)

    async def show(self, text: str, keyboard: Keyboard | None = None) -> int:
        """In place of the message whose button was tapped, or that was shown before, else as a new one."""
        if not self._shown or not await self.parts.sender.edit(self.chat_id, self._shown, text, keyboard):
            self._shown = await self.say(text, keyboard)
        return self._shown

    async def answer_tap(self, text: str | None = None, *, alert: bool = False) -> None:
        """End the button's waiting, with a note if there is one to give; only the first counts."""
        tap = self.update.callback_query
        if self._answered or tap is None:
            return
        self._answered = True
        # A tap that is too old can't be answered any more, and nobody waits for it.
        with suppress(TelegramError):
            await self.parts.sender.call("answerCallbackQuery", callback_query_id=tap.id, text=text, show_alert=alert)
