"""Sends the events in the outbox: in order for each chat, concurrently for different chats."""

import asyncio
from typing import Any

import msgspec
import structlog

from foretell.client import ApiError, Unreachable
from foretell.kit.clock import now
from foretell.kit.errors import Unavailable
from foretell.services.bot.accounts import NotLinked
from foretell.services.bot.keyboards import Keyboard
from foretell.services.bot.measures import EVENTS, TELLING
from foretell.services.bot.models import Model
from foretell.services.bot.offers import how_to_more, ways_to_more
from foretell.services.bot.results import outcome_message
from foretell.services.bot.storage.outbox import Event
from foretell.services.bot.talk import Parts
from foretell.services.bot.telegram.api import Blocked, TelegramAway, TelegramError, TokenRefused, TooManyMessages
from foretell.services.bot.words import Marked, Words

log = structlog.get_logger()

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
#: A result may arrive before the app's answer to the submission. It waits this long for that answer.
_ANSWER_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1
#: The reason of a webhook that was turned off because its receiver answered 410.
_GONE = "gone"
_NOT_FOUND = 404


class Delivery:
    """Sends the events in the outbox."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        self._closed = False
        parts.outbox.on_new = self.wake

    async def resume(self) -> None:
        """Send the events that an earlier process left."""
        for chat_id in await self._parts.outbox.chats():
            self.wake(chat_id)

    def wake(self, chat_id: int) -> None:
        """Send the waiting events of this chat."""
        if self._closed:
            return
        if chat_id in self._sending:
            self._again.add(chat_id)
            return
        task = self._sending[chat_id] = asyncio.create_task(self._send_all(chat_id))
        task.add_done_callback(lambda done: self._ended(chat_id, done))

    def _ended(self, chat_id: int, task: "asyncio.Task[None]") -> None:
        del self._sending[chat_id]
        if not task.cancelled() and task.exception() is not None:
            log.error("chat_not_told", exc_info=task.exception())
        if chat_id in self._again:
            self._again.discard(chat_id)
            self.wake(chat_id)

    async def close(self) -> None:
        """Stop sending; unsent events stay in the outbox."""
        self._closed = True
        for task in self._sending.values():
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)

    async def _send_all(self, chat_id: int) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                event = await self._parts.outbox.next_of(chat_id)
                if event is None:
                    return
                sent = await self._send_event(event)
                await self._parts.outbox.done(event.number)
            except (TelegramAway, TokenRefused, Unavailable, Unreachable, ApiError) as error:
                log.warning("event_waits", chat_id=chat_id, reason=error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            except TooManyMessages as error:
                await asyncio.sleep(error.retry_after_s or 1.0)
            except NotLinked:
                dropped = await self._parts.forget_account_of(chat_id)
                EVENTS.labels("dropped").inc(dropped)
                log.info("chat_not_linked", chat_id=chat_id, dropped=dropped)
            except Blocked:
                await self._parts.chats.change(chat_id, blocked=1)
                dropped = await self._parts.outbox.drop(chat_id)
                EVENTS.labels("dropped").inc(dropped)
                log.info("chat_blocked", chat_id=chat_id, dropped=dropped)
            except TelegramError as error:
                # A permanent error: give the event up, so that later ones do not wait for it.
                log.error("event_not_told", chat_id=chat_id, reason=error.message)
                EVENTS.labels("dropped").inc()
                await self._parts.outbox.done(event.number if event is not None else 0)
            else:
                pause_s = _FIRST_PAUSE_S
                EVENTS.labels("told" if sent else "dropped").inc()
                if sent:
                    TELLING.observe(max(0.0, now().timestamp() - event.stored_at))

    async def _send_event(self, event: Event) -> bool:
        """Send one event; False when the chat does not want it. Raises `TelegramError`."""
        if (await self._parts.chats.of(event.chat_id)).blocked:
            return False
        data = msgspec.json.decode(event.data)
        if not await self._is_of_account(event, data):
            return False
        if event.type == "prediction.finished":
            return await self._send_result(event, data)
        words = await self._words_of(event.chat_id)
        if event.type == "balance.low":
            await self._send(event.chat_id, *_low(self._parts, data, words))
        elif event.type == "endpoint.disabled":
            key = "told.endpoint_gone" if data.get("reason") == _GONE else "told.endpoint_disabled"
            await self._send(event.chat_id, words(key, url=data.get("url") or ""))
        else:
            log.info("event_unknown", kind=event.type)
            return False
        return True

    async def _is_of_account(self, event: Event, data: dict[str, Any]) -> bool:
        """Whether the event belongs to the chat's current account.

        Raises `NotLinked` when the chat was unlinked since the event arrived.
        """
        if event.type != "prediction.finished":
            account = await self._parts.accounts.account_of(event.chat_id)
            return not event.account or event.account == account
        client = await self._parts.accounts.client_of(event.chat_id)
        try:
            await client.prediction(data["id"])
        except ApiError as error:
            if error.status_code == _NOT_FOUND:
                return False
            raise
        return True

    async def _send(self, chat_id: int, text: str, keyboard: Keyboard | None = None) -> None:
        await self._parts.sender.send(chat_id, text, keyboard, answering=False)

    async def _words_of(self, chat_id: int) -> Words:
        return Words((await self._parts.chats.of(chat_id)).spoken)

    async def _send_result(self, event: Event, prediction: dict[str, Any]) -> bool:
        asked = await self._parts.asked.by_prediction(prediction["id"])
        while asked is None:
            since = await self._parts.asked.sending_since(event.chat_id)
            if since is None or now().timestamp() - since > _ANSWER_WITHIN_S:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
            asked = await self._parts.asked.by_prediction(prediction["id"])
        if asked is None or asked.user_id != event.chat_id:
            if not (await self._parts.chats.of(event.chat_id)).elsewhere:
                return False
            words = await self._words_of(event.chat_id)
            text, keyboard = outcome_message(prediction, await self._model(event.chat_id, prediction), words)
            await self._send(event.chat_id, text, keyboard)
            return True
        if asked.state == "told":
            return False
        words = Words(asked.language)
        text, keyboard = outcome_message(prediction, await self._model(asked.user_id, prediction), words)
        try:
            if not await self._parts.sender.edit(asked.chat_id, asked.message_id, text, keyboard, answering=False):
                await self._send(asked.chat_id, text, keyboard)
        except (TelegramAway, TokenRefused, TooManyMessages):
            raise
        except TelegramError as error:
            if asked.chat_id == event.chat_id:
                raise
            # The bot was removed from the group or may not write there, or the group is gone (one that becomes a
            # supergroup gets another id). So the person gets the result in the private chat.
            log.info("group_not_told", chat_id=asked.chat_id, reason=error.message)
            if isinstance(error, Blocked):
                await self._parts.chats.change(asked.chat_id, blocked=1)
            await self._send(event.chat_id, text, keyboard)
        await self._parts.asked.told(asked.key)
        return True

    async def _model(self, user_id: int, prediction: dict[str, Any]) -> Model | None:
        """The model, for labels; None if it can't be read, since a result without labels is better than none."""
        try:
            client = await self._parts.accounts.client_of(user_id)
            return await self._parts.models.known(client, prediction["model"])
        except (NotLinked, ApiError, Unreachable):
            return None


def _low(parts: Parts, data: dict[str, Any], words: Words) -> tuple[str, Keyboard | None]:
    offers = ways_to_more(parts.settings, words)
    text = words("told.balance_low", available=Marked(words.count("credits", int(data.get("available") or 0))))
    text = f"{text} {how_to_more(parts.settings, words)}"
    return text, Keyboard(offers) if offers else None
