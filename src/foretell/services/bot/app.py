"""Assembles the bot."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import structlog

import foretell
from foretell.kit.asgi import Application, Operations
from foretell.kit.errors import Unavailable
from foretell.kit.lifecycle import run, serve_http
from foretell.kit.request_log import RequestLog
from foretell.kit.routing import Routes
from foretell.services.bot.accounts import Accounts
from foretell.services.bot.conversation import Conversation
from foretell.services.bot.delivery import Delivery
from foretell.services.bot.filling.form import Forms
from foretell.services.bot.models import Models
from foretell.services.bot.notifications import Notifications
from foretell.services.bot.reconciling import Reconciler
from foretell.services.bot.routers import all_routers
from foretell.services.bot.settings import BotSettings
from foretell.services.bot.storage.asked import AskedPredictions
from foretell.services.bot.storage.chats import Chats
from foretell.services.bot.storage.database import BotDatabase
from foretell.services.bot.storage.inbox import Arrived, Inbox
from foretell.services.bot.storage.outbox import Outbox
from foretell.services.bot.storage.payments import Payments
from foretell.services.bot.talk import Parts
from foretell.services.bot.telegram.api import BotApi
from foretell.services.bot.telegram.polling import Poller, Trouble
from foretell.services.bot.telegram.rate_limit import RateLimit
from foretell.services.bot.telegram.registration import Registration
from foretell.services.bot.telegram.sender import Sender
from foretell.services.bot.webhook import WebhookUpdates, webhook_secret

log = structlog.get_logger()

_MAX_BODY_BYTES = 4 * 1024 * 1024


class Bot:
    """The bot of one installation."""

    def __init__(
        self,
        settings: BotSettings,
        secret: str,
        instance: str,
        *,
        app_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`secret` is shared by app, dispatcher and bot. Tests pass `app_transport` to reach the app."""
        self._settings = settings
        self._secret = secret
        self._instance = instance
        self._database = BotDatabase(settings.data_dir / "bot.db")
        self._api = BotApi(settings.telegram_api_url, settings.telegram_token.get_secret_value())
        rate_limit = RateLimit(settings.bot_messages_per_second, settings.bot_chat_messages_per_second)
        self.parts = Parts(
            settings=settings,
            sender=Sender(self._api, rate_limit),
            accounts=Accounts(settings.app_url, secret, patience_s=settings.bot_patience_s, transport=app_transport),
            models=Models(),
            chats=Chats(self._database),
            forms=Forms(self._database),
            asked=AskedPredictions(self._database, settings.bot_look_after_s),
            outbox=Outbox(self._database),
            payments=Payments(self._database),
        )
        self._inbox = Inbox(self._database)
        self._conversation = Conversation(self.parts, self._inbox, all_routers())
        self._delivery = Delivery(self.parts)
        self._reconciler = Reconciler(
            self.parts, settings.bot_look_interval_s, self._conversation.resume, self._delivery.resume
        )
        self.trouble = Trouble()

    async def take(self, updates: list[Arrived]) -> None:
        """Store updates and start to handle them."""
        people, flooding = await self._inbox.take(updates)
        for person_id in people:
            self._conversation.wake(person_id)
        for person_id in flooding:
            self._conversation.flooded(person_id)

    def http(self) -> Application:
        """The bot's own HTTP routes."""

        async def check_telegram() -> None:
            if self.trouble.reason:
                raise Unavailable(self.trouble.reason)

        operations = Operations(
            "bot",
            instance=self._instance,
            version=foretell.__version__,
            checks={"telegram": check_telegram, "database": self._database.ping},
            needed_to_serve=["database"],
            details=lambda: {"username": self.parts.username},
            metrics_token=self._settings.metrics_token,
        )
        routes = [Notifications(self.parts.outbox, self._secret).route]
        if self._settings.bot_webhook_url:
            routes.append(WebhookUpdates(webhook_secret(self._secret), self.take).route)
        return RequestLog(Routes(routes, max_body_bytes=_MAX_BODY_BYTES, body_setting="", parts=[operations]))

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until `stopping` is set."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.close)
            stack.push_async_callback(self._api.close)
            stack.push_async_callback(self.parts.accounts.close)
            await self._database.open()
            http = asyncio.create_task(serve_http(self.http(), self._settings, stopping))
            working = asyncio.create_task(self._work(stopping))
            try:
                # When one ends, by a stop or by an error, the other is ended, too.
                await asyncio.wait({http, working}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.set()
                await asyncio.gather(http, working)

    async def _work(self, stopping: asyncio.Event) -> None:
        await self.parts.asked.look_at_once()
        await self._delivery.resume()
        await self._conversation.resume()
        reconciling = asyncio.create_task(self._reconciler.run(stopping))
        try:
            await self._receive(stopping)
        finally:
            await self._conversation.close(self._settings.stop_grace_s / 2)
            await self._delivery.close()
            await reconciling

    async def _receive(self, stopping: asyncio.Event) -> None:
        """Receive updates by polling or by the webhook."""
        registration = Registration(
            self.parts, self.trouble, self._settings.bot_webhook_url, webhook_secret(self._secret)
        )
        if not await registration.until_done(stopping):
            return
        if self._settings.bot_webhook_url:
            await stopping.wait()
            return
        poller = Poller(
            self.parts.sender,
            self.trouble,
            self.take,
            poll_s=self._settings.bot_poll_s,
            offset=await self._inbox.next_update_id(),
        )
        await poller.run(stopping)


async def serve(settings: BotSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run the bot until `stopping` is set. Without a token, log that and return."""
    if not settings.telegram_token.get_secret_value():
        log.info("bot_off", reason="TELEGRAM_TOKEN is not set")
        return
    await Bot(settings, settings.bot_secret.get_secret_value(), instance).run(stopping)


def main() -> None:
    """Run the bot in the foreground, with its settings from the environment."""
    settings = BotSettings()
    run("bot", settings, lambda instance, stopping: serve(settings, instance, stopping))
