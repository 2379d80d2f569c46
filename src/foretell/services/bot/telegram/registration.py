"""Registers the bot with Telegram at the start: reads its name, sets the webhook, sets the menu of commands."""

import asyncio
from contextlib import suppress

import msgspec
import structlog

from foretell.kit.pauses import set_within
from foretell.services.bot.talk import Parts
from foretell.services.bot.telegram.api import TelegramError, TooManyMessages
from foretell.services.bot.telegram.polling import Trouble
from foretell.services.bot.telegram.types import WANTED, Identity
from foretell.services.bot.words import LANGUAGES, Words

log = structlog.get_logger()

COMMANDS = ("predict", "models", "balance", "history", "settings", "language", "cancel", "help", "start")
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0

_decode = msgspec.json.Decoder(Identity).decode


class Registration:
    """Retries the registration until it succeeds."""

    def __init__(self, parts: Parts, trouble: Trouble, webhook_url: str, webhook_secret: str) -> None:
        self._parts = parts
        self._trouble = trouble
        self._webhook_url = webhook_url
        self._webhook_secret = webhook_secret

    async def until_done(self, stopping: asyncio.Event) -> bool:
        """True after the registration; False when `stopping` is set before."""
        pause_s = _FIRST_PAUSE_S
        while not stopping.is_set():
            try:
                await self._greet()
            except TelegramError as error:
                self._trouble.begins(error)
                wait_s = error.retry_after_s if isinstance(error, TooManyMessages) and error.retry_after_s else pause_s
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                await set_within(stopping, wait_s)
            else:
                self._trouble.ends()
                return True
        return False

    async def _greet(self) -> None:
        call = self._parts.sender.call
        identity = _decode(await call("getMe"))
        if self._webhook_url:
            await call(
                "setWebhook",
                url=self._webhook_url,
                secret_token=self._webhook_secret,
                allowed_updates=list(WANTED),
            )
        else:
            # Removes a webhook of an earlier configuration; waiting updates are kept.
            await call("deleteWebhook")
        self._parts.name[:] = [identity.username]
        log.info("telegram_welcomed", username=identity.username, webhook=bool(self._webhook_url))
        for language in LANGUAGES:
            words = Words(language)
            commands = [{"command": name, "description": words.plain(f"command.{name}")} for name in COMMANDS]
            with suppress(TelegramError):
                # An error is ignored, since this is only the menu.
                await call("setMyCommands", commands=commands, language_code=None if language == "en" else language)
