"""Receives updates by Telegram's webhook, if the operator has configured its URL."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from foretell.kit.errors import ForetellError
from foretell.kit.routing import Answer, Request, Route
from foretell.services.bot.storage.inbox import Arrived
from foretell.services.bot.telegram.polling import arrived

log = structlog.get_logger()

_SECRET_HEADER = b"x-telegram-bot-api-secret-token"
PATH = "/telegram/webhook"


class NotTelegram(ForetellError):
    """There is nothing here."""

    code = "not_found"
    status = 404


def webhook_secret(bot_secret: str) -> str:
    """The secret that Telegram sends with every update; a one-way hash of the installation's secret."""
    return hmac.new(bot_secret.encode(), b"telegram webhook", hashlib.sha256).hexdigest()


class WebhookUpdates:
    """Stores each update, then answers 200."""

    def __init__(self, secret: str, take: Callable[[list[Arrived]], Awaitable[None]]) -> None:
        self._secret = secret.encode()
        self._take = take

    @property
    def route(self) -> Route:
        """The route of the webhook."""
        return Route("POST", PATH, self.receive)

    async def receive(self, request: Request) -> Answer:
        """Store one update."""
        if not hmac.compare_digest(request.header(_SECRET_HEADER) or b"", self._secret):
            raise NotTelegram
        body = bytes(await request.body())
        try:
            update = arrived(body)
        except msgspec.MsgspecError as error:
            # Still 200, because Telegram would resend a refused update again and again.
            log.error("update_not_understood", reason=str(error))
            update = None
        if update is not None:
            await self._take([update])
        return Answer(200, [(b"content-length", b"0")], b"")
