"""Polls for what no event has reported: unsent predictions, missing results, payments that are not booked."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec
import structlog

from foretell.client import ApiError, Unreachable
from foretell.kit.errors import ForetellError
from foretell.kit.pauses import set_within
from foretell.services.bot.accounts import NotLinked
from foretell.services.bot.measures import PAYMENTS_OPEN, WAITING
from foretell.services.bot.storage.asked import Asked
from foretell.services.bot.talk import Parts
from foretell.services.bot.telegram.api import TelegramError
from foretell.services.bot.words import Marked, Words

log = structlog.get_logger()

_NOT_FOUND = 404
_NOT_NOW = (409, 429)


class Reconciler:
    """Completes the open work in the bot's database when the dispatcher's events do not arrive."""

    def __init__(self, parts: Parts, interval_s: float, *resume: Callable[[], Awaitable[None]]) -> None:
        """`resume` are called in each run, to continue work that an error has interrupted."""
        self._parts = parts
        self._resume = resume
        self._interval_s = interval_s
        self._named = False
        #: Charges that the app refuses: logged once, but retried.
        self._refused: set[str] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Poll until `stopping` is set."""
        while not stopping.is_set():
            try:
                await self.look()
            except ForetellError as error:
                log.warning("look_failed", reason=error.message)
            except Exception:
                log.exception("look_failed")
            await set_within(stopping, self._interval_s)

    async def look(self) -> None:
        """Poll once."""
        await self._tell_name()
        for asked in await self._parts.asked.due():
            with suppress(Unreachable):
                try:
                    await (self._send(asked) if asked.prediction_id is None else self._ask_for(asked))
                except NotLinked:
                    # The chat was unlinked from the account that asked for it.
                    await self._parts.asked.refused(asked.key)
        await self._count_payments()
        for resume in self._resume:
            await resume()
        WAITING.set(await self._parts.outbox.waiting())

    async def _tell_name(self) -> None:
        """Send the bot's name to the app, which needs it for deep links."""
        if self._parts.username and not self._named:
            with suppress(ApiError, Unreachable):
                await self._parts.accounts.tell_name(self._parts.username)
                self._named = True

    async def _send(self, asked: Asked) -> None:
        """Submit again with the same idempotency key. If the app had accepted it, the answer is the same."""
        try:
            client = await self._parts.accounts.client_of(asked.user_id)
            prediction = await client.submit(asked.model, asked.input, idempotency_key=asked.key)
        except ApiError as error:
            if error.status_code >= 500 or error.status_code in _NOT_NOW:
                return
            await self._parts.asked.refused(asked.key)
            log.info("submission_refused", status=error.status_code, code=error.problem_code)
            with suppress(TelegramError):
                text = Words(asked.language).refusal("asked.refused_because", "asked.refused", error.message)
                await self._parts.sender.edit(asked.chat_id, asked.message_id, text)
            return
        await self._parts.asked.accepted(asked.key, prediction["id"])
        if prediction["status"] != "queued":
            await self._put(asked, prediction)

    async def _ask_for(self, asked: Asked) -> None:
        """Ask the app for the prediction; its end goes to the outbox."""
        try:
            client = await self._parts.accounts.client_of(asked.user_id)
            prediction = await client.prediction(str(asked.prediction_id))
        except ApiError as error:
            if error.status_code == _NOT_FOUND:
                # The prediction was deleted with its account, or the app has another database.
                await self._parts.asked.refused(asked.key)
                with suppress(TelegramError):
                    text = Words(asked.language)("history.gone")
                    await self._parts.sender.edit(asked.chat_id, asked.message_id, text, answering=False)
            return
        if prediction["status"] != "queued":
            await self._put(asked, prediction)

    async def _put(self, asked: Asked, prediction: Mapping[str, object]) -> None:
        await self._parts.outbox.put(
            str(prediction["id"]), asked.user_id, "prediction.finished", msgspec.json.encode(prediction)
        )

    async def _count_payments(self) -> None:
        open_ = await self._parts.payments.not_counted()
        PAYMENTS_OPEN.set(len(open_))
        for payment in open_:
            try:
                await self._parts.accounts.pay(payment.user_id, payment.charge_id, payment.stars, payment.credits)
            except Unreachable:
                return
            except ApiError as error:
                if payment.charge_id not in self._refused:
                    self._refused.add(payment.charge_id)
                    log.error("payment_not_counted", charge_id=payment.charge_id, reason=error.message)
                continue
            if await self._parts.payments.counted(payment.charge_id):
                words = Words((await self._parts.chats.of(payment.chat_id)).spoken)
                text = words("stars.thanks", credits=Marked(words.count("credits", payment.credits)))
                with suppress(TelegramError):
                    await self._parts.sender.send(payment.chat_id, text, answering=False)
                    await self._parts.payments.thanked(payment.charge_id)
