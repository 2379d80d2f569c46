"""Sends messages to chats within Telegram's rate limits, in order within a chat, with retries."""

import asyncio
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import structlog

from foretell.services.bot.keyboards import Keyboard
from foretell.services.bot.measures import CALLS
from foretell.services.bot.telegram.api import (
    Blocked,
    BotApi,
    TelegramAway,
    TelegramError,
    TooManyMessages,
    cannot_be_edited,
    changes_nothing,
)
from foretell.services.bot.telegram.rate_limit import RateLimit
from foretell.services.bot.telegram.types import Message

log = structlog.get_logger()

#: Telegram accepts 4096 characters after parsing entities.
LONGEST_TEXT = 4000
#: Attempts of an answer to a person, with doubling pauses. Other messages are retried by the outbox.
_ANSWER_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
#: If Telegram asks for a longer wait than this, the message fails.
_LONGEST_WAIT_S = 60.0

_decode_message = msgspec.json.Decoder(Message).decode


def fitting(text: str) -> str:
    """As many lines of the text as Telegram accepts. Lines are not cut, because each is complete HTML."""
    if _size(text) <= LONGEST_TEXT:
        return text
    lines, left = [], LONGEST_TEXT - 2
    for line in text.split("\n"):
        left -= _size(line) + 1
        if left < 0:
            break
        lines.append(line)
    return "\n".join([*lines, "…"])


def _size(text: str) -> int:
    """The length in UTF-16, as Telegram counts it, but including tags."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class Sender:
    """Sends and edits messages."""

    def __init__(self, api: BotApi, rate_limit: RateLimit) -> None:
        self._api = api
        self._rate_limit = rate_limit
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    def _lock(self, chat_id: int) -> asyncio.Lock:
        lock = self._locks.get(chat_id)
        if lock is None:
            lock = self._locks[chat_id] = asyncio.Lock()
        return lock

    async def call(self, method: str, **parameters: Any) -> bytes:
        """Make a call that sends no message. Raises `TelegramError`."""
        try:
            answer = await self._api.call(method, **parameters)
        except TelegramError as error:
            CALLS.labels(method, error.code).inc()
            raise
        CALLS.labels(method, "ok").inc()
        return answer

    async def message(self, method: str, chat_id: int, *, answering: bool, **parameters: Any) -> bytes:
        """Make a call that sends or edits a message, within the rate limits. Raises `TelegramError`.

        Waits as long as Telegram asks to. With `answering`, it also retries when Telegram does not answer.
        """
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, _ANSWER_ATTEMPTS + 1):
            last = attempt == _ANSWER_ATTEMPTS
            async with self._lock(chat_id):
                await self._rate_limit.turn(chat_id, answering=answering)
                try:
                    answer = await self.call(method, chat_id=chat_id, **parameters)
                except TooManyMessages as error:
                    wait_s = error.retry_after_s or 1.0
                    self._rate_limit.told_to_wait(chat_id, wait_s)
                    log.warning("telegram_limit_reached", chat_id=chat_id, wait_s=wait_s)
                    if last or wait_s > _LONGEST_WAIT_S:
                        raise
                except TelegramAway:
                    if last or not answering:
                        raise
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
                else:
                    self._rate_limit.said(chat_id)
                    return answer
        raise AssertionError("not reached")

    async def send(
        self,
        chat_id: int,
        text: str,
        keyboard: Keyboard | None = None,
        *,
        answering: bool = True,
        reply_to: int | None = None,
    ) -> int:
        """Send a message; returns its id. Raises `TelegramError`."""
        reply = None if reply_to is None else {"message_id": reply_to, "allow_sending_without_reply": True}
        sent = await self.message(
            "sendMessage",
            chat_id,
            answering=answering,
            text=fitting(text),
            parse_mode="HTML",
            link_preview_options={"is_disabled": True},
            reply_parameters=reply,
            reply_markup=None if keyboard is None else keyboard.markup(),
        )
        return _decode_message(sent).message_id

    async def edit(
        self, chat_id: int, message_id: int, text: str, keyboard: Keyboard | None = None, *, answering: bool = True
    ) -> bool:
        """Edit a message; False when it can't be edited any more. Raises `TelegramError`."""
        try:
            await self.message(
                "editMessageText",
                chat_id,
                answering=answering,
                message_id=message_id,
                text=fitting(text),
                parse_mode="HTML",
                link_preview_options={"is_disabled": True},
                reply_markup=None if keyboard is None else keyboard.markup(),
            )
        except Blocked:
            raise
        except TelegramError as error:
            if changes_nothing(error):
                return True
            if cannot_be_edited(error):
                return False
            raise
        return True
