"""A whole Foretell with its bot: real processes of this machine, and Telegram in the test."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from foretell.contracts.bot_secret import new_bot_secret
from tests.ports import free_port
from tests.services_system import Backends
from tests.system import Running, System
from tests.telegram.server import TelegramServer


class BotSystem(System):
    """App, dispatcher, workers and bot."""

    telegram: TelegramServer

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)  # type: ignore[arg-type]
        self.bot_port = free_port()
        self.bot_secret = new_bot_secret()

    def environment(self, service: str, instance: str, port: int) -> Mapping[str, str]:
        return {
            "FORETELL_APP_URL": self.url,
            "FORETELL_BOT_URL": f"http://127.0.0.1:{self.bot_port}",
            "FORETELL_BOT_SECRET": self.bot_secret,
            "TELEGRAM_TOKEN": self.telegram.token,
            "TELEGRAM_API_URL": self.telegram.url,
            "FORETELL_BOT_MESSAGES_PER_SECOND": "10000",
            "FORETELL_BOT_CHAT_MESSAGES_PER_SECOND": "10000",
            "FORETELL_BOT_POLL_S": "5",
            "FORETELL_BOT_LOOK_INTERVAL_S": "0.25",
            "FORETELL_BOT_LOOK_AFTER_S": "0.5",
            **super().environment(service, instance, port),
        }

    def spawn(self, service: str, *, port: int | None = None) -> Running:
        return super().spawn(service, port=port or (self.bot_port if service == "bot" else None))


@asynccontextmanager
async def bot_system(
    backends: Backends, folder: Path, telegram: TelegramServer, *, workers: int = 1, **environment: str
) -> AsyncIterator[BotSystem]:
    """A system with a bot that is healthy inside."""
    # The faulty model is called as the one that it is made of: nobody could tell their buttons apart.
    environment = {"FORETELL_MODELS_DIR": str(folder / "no-models"), **environment}
    system = backends.system(folder, BotSystem, **environment)
    assert isinstance(system, BotSystem)
    system.telegram = telegram
    try:
        await system.start(workers=workers)
        system.wanted["bot"] = 1
        system.replace_missing()
        await system.wait_healthy()
        yield system
    finally:
        await system.stop()
