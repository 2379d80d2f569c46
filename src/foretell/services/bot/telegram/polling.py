"""Polls for updates. Each batch is stored before the next poll, which confirms it to Telegram."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import structlog
from msgspec import Raw

from foretell.kit.clock import now
from foretell.kit.errors import Unavailable
from foretell.services.bot.storage.inbox import RENUMBERED_AFTER_S, Arrived
from foretell.services.bot.telegram.api import OtherPoller, TelegramError, TokenRefused, TooManyMessages
from foretell.services.bot.telegram.sender import Sender
from foretell.services.bot.telegram.types import WANTED, decode_update

log = structlog.get_logger()

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0

_decode_updates = msgspec.json.Decoder(list[Raw]).decode

Take = Callable[[list[Arrived]], Awaitable[None]]


def arrived(body: bytes) -> Arrived | None:
    """Decode an update; None without a person. Raises `msgspec.MsgspecError`."""
    update = decode_update(body)
    person = update.person
    return None if person is None else Arrived(update.update_id, person.id, body, update.of_money)


class Trouble:
    """Logs a problem with Telegram once when it begins and once when it ends."""

    def __init__(self) -> None:
        self.reason = "nothing was heard of Telegram yet"
        self._said = ""

    def begins(self, error: TelegramError) -> None:
        """A call failed."""
        self.reason = error.message
        if error.code != self._said:
            self._said = error.code
            log.warning("telegram_in_trouble", code=error.code, reason=error.message)

    def ends(self) -> None:
        """A call went well."""
        if self._said:
            log.info("telegram_well_again", code=self._said)
        self.reason = self._said = ""


class Poller:
    """Polls for updates."""

    def __init__(self, sender: Sender, trouble: Trouble, take: Take, *, poll_s: int, offset: int) -> None:
        """`take` stores updates; `offset` is the id of the first one wanted, 0 for all that Telegram has."""
        self._sender = sender
        self._trouble = trouble
        self._take = take
        self._poll_s = poll_s
        self._offset = offset
        self._heard_at = now()

    async def run(self, stopping: asyncio.Event) -> None:
        """Poll until `stopping` is set."""
        stopped = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                polling = asyncio.create_task(self._poll())
                await asyncio.wait({polling, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not polling.done():
                    polling.cancel()
                    with suppress(asyncio.CancelledError):
                        await polling
                    return
                pause_s = polling.result()
                if pause_s:
                    await asyncio.wait({stopped}, timeout=pause_s)
        finally:
            stopped.cancel()

    async def _poll(self) -> float:
        """Poll once; returns the pause before the next poll, in seconds."""
        if (now() - self._heard_at).total_seconds() > RENUMBERED_AFTER_S:
            self._offset = 0
        try:
            answer = await self._sender.call(
                "getUpdates",
                wait_s=self._poll_s,
                offset=self._offset or None,
                timeout=self._poll_s,
                allowed_updates=list(WANTED),
            )
        except TooManyMessages as error:
            return error.retry_after_s or 1.0
        except TelegramError as error:
            self._trouble.begins(error)
            patient = isinstance(error, (TokenRefused, OtherPoller))
            self._pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, self._pause_s * 2))
            return self._pause_s * (2 if patient else 1)
        self._pause_s = 0.0
        self._trouble.ends()
        bodies = [bytes(each) for each in _decode_updates(answer)]
        if bodies:
            self._heard_at = now()
            try:
                await self._take([each for each in map(_read, bodies) if each is not None])
            except Unavailable as error:
                # Not confirmed, so that Telegram sends them again.
                log.error("updates_not_stored", reason=error.message)
                return _LONGEST_PAUSE_S / 10
            self._offset = max(_number(body) for body in bodies) + 1
        return 0.0

    _pause_s = 0.0


class _Numbered(msgspec.Struct):
    update_id: int


_decode_number = msgspec.json.Decoder(_Numbered).decode


def _number(body: bytes) -> int:
    return _decode_number(body).update_id


def _read(body: bytes) -> Arrived | None:
    try:
        return arrived(body)
    except msgspec.MsgspecError as error:
        # Telegram may have changed this kind of update. Skip it, or it would be sent again forever.
        log.error("update_not_understood", reason=str(error))
        return None
