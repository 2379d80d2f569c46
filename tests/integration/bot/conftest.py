"""A bot that runs in the test's own loop, between a Bot API server over real HTTP and a stand-in of the app."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ports import free_port
from tests.telegram.app_stand_in import Account, AppStandIn
from tests.telegram.people import Person
from tests.telegram.server import TelegramServer, telegram_server

from foretell.services.bot.app import Bot
from foretell.services.bot.settings import BotSettings


class RunningBot:
    """One bot with what is around it."""

    def __init__(self, folder: Path, telegram: TelegramServer, app: AppStandIn, **settings: Any) -> None:
        self.telegram = telegram
        self.app = app
        self.settings = BotSettings(
            data_dir=folder,
            host="127.0.0.1",
            port=free_port(),
            telegram_api_url=telegram.url,
            bot_secret=app.secret,
            **{
                "telegram_token": telegram.token,
                "bot_poll_s": 5,
                "bot_messages_per_second": 10_000,
                "bot_chat_messages_per_second": 10_000,
                "bot_patience_s": 0.0,
                "bot_look_interval_s": 0.1,
                "stop_grace_s": 5,
                **settings,
            },
        )
        self._http = httpx.AsyncClient(trust_env=False)
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self.bot: Bot | None = None

    @property
    def url(self) -> str:
        """Where the bot answers."""
        return f"http://127.0.0.1:{self.settings.port}"

    async def start(self, *, welcome: bool = True) -> None:
        """Run; with `welcome`, until Telegram knows it."""
        self._stopping = asyncio.Event()
        self.bot = Bot(self.settings, self.app.secret, "bot-1", app_transport=self.app.transport())
        self._running = asyncio.create_task(self.bot.run(self._stopping))
        if welcome:
            bot = self.bot
            await self.telegram.until(lambda: bot.parts.username, "the bot to know its name")

    async def stop(self) -> None:
        """End it as a supervisor does."""
        self._stopping.set()
        if self._running is not None:
            await self._running
            self._running = None

    async def close(self) -> None:
        """End it, and what we talk to it with."""
        await self.stop()
        await self._http.aclose()

    async def tell(
        self, chat_id: int, type_: str, data: dict[str, Any], *, name: str = "", account: Account | None = None
    ) -> httpx.Response:
        """Post an event as the dispatcher does."""
        body, headers = self.app.event(chat_id, type_, data, name=name, account=account)
        return await self.post("/notifications", body, headers)

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """Post to the bot."""
        return await self._http.post(f"{self.url}{path}", content=body, headers=headers)

    async def finish(self, identity: str, output: dict[str, Any] | None = None) -> None:
        """End a prediction, and tell of it."""
        prediction = self.app.finish(identity, output)
        owner = self.app.owners[identity]
        for chat_id in [chat for chat, account in self.app.linked.items() if account is owner]:
            answer = await self.tell(chat_id, "prediction.finished", prediction)
            assert answer.status_code == 204, answer.text

    async def asked(self, count: int = 1) -> dict[str, Any]:
        """The newest prediction, as soon as there are `count`."""
        found = self.app.predictions
        await self.telegram.until(lambda: len(found) >= count, f"{count} predictions")
        return list(found.values())[-1]


Start = Callable[..., Awaitable[RunningBot]]


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    async with telegram_server() as server:
        yield server


@pytest.fixture
async def start_bot(tmp_path: Path, telegram: TelegramServer) -> AsyncIterator[Start]:
    """Starts bots on one data folder; they are ended with the test."""
    async with AsyncExitStack() as stack:

        async def start(*, app: AppStandIn | None = None, welcome: bool = True, **settings: Any) -> RunningBot:
            running = RunningBot(tmp_path / "data", telegram, app or AppStandIn(), **settings)
            stack.push_async_callback(running.close)
            await running.start(welcome=welcome)
            return running

        yield start


@pytest.fixture
async def bot(start_bot: Start) -> RunningBot:
    return await start_bot()


@pytest.fixture
def ada(telegram: TelegramServer) -> Person:
    return Person(telegram, 1001, language="en", name="Ada")


@pytest.fixture
def vera(telegram: TelegramServer) -> Person:
    return Person(telegram, 1002, language="ru", name="Вера")


@asynccontextmanager
async def ended(running: RunningBot) -> AsyncIterator[None]:
    """The bot is ended inside, and starts again afterwards."""
    await running.stop()
    yield
    await running.start()
