"""A wrong token, a second poller, Telegram away, its limits: each has its behaviour and its line in the log."""

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from tests.integration.bot.conftest import RunningBot, Start
from tests.integration.bot.test_oddities import signed_up
from tests.service_process import running_service
from tests.telegram.app_stand_in import AppStandIn
from tests.telegram.people import Person
from tests.telegram.rules import Refusal
from tests.telegram.server import TOKEN, TelegramServer

from foretell.services.bot.conversation import Conversation
from foretell.services.bot.storage.inbox import Waiting
from foretell.services.bot.telegram.api import BotApi, TelegramAway


async def health(bot: RunningBot) -> dict[str, Any]:
    """What the bot says of itself."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer: dict[str, Any] = (await client.get(f"{bot.url}/health")).json()
    return answer


async def test_health_ready_and_metrics(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await bot.telegram.until(lambda: bot.app.bot_name, "the bot to say what it is called")
    said = await health(bot)
    assert (said["status"], said["service"], said["username"]) == ("healthy", "bot", bot.telegram.username)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{bot.url}/health/ready")).status_code == 200
        metrics = (await client.get(f"{bot.url}/metrics")).text
    assert 'foretell_bot_updates_total{outcome="handled"}' in metrics
    assert 'foretell_bot_telegram_calls_total{method="sendMessage",outcome="ok"}' in metrics
    assert bot.app.bot_name == bot.telegram.username


async def test_a_wrong_token_is_said_once_and_tried_again(start_bot: Start, telegram: TelegramServer) -> None:
    telegram.token = "123456789:another"
    with structlog.testing.capture_logs() as logs:
        bot = await start_bot(welcome=False, telegram_token=TOKEN)
        await telegram.until(lambda: len(telegram.calls) >= 2, "a second attempt")
        said = await health(bot)
    assert said["status"] == "unhealthy"
    assert "Telegram does not know this TELEGRAM_TOKEN" in said["failing"]["telegram"]
    assert [line["code"] for line in logs if line["event"] == "telegram_in_trouble"] == ["telegram_token_refused"]
    assert TOKEN not in json.dumps(logs, default=str)
    telegram.token = TOKEN
    assert bot.bot is not None
    parts = bot.bot.parts
    await telegram.until(lambda: parts.username, "the bot to be welcome")


async def test_a_second_poller_is_said_once(bot: RunningBot, ada: Person) -> None:
    conflict = Refusal(409, "Conflict: terminated by other getUpdates request")
    with structlog.testing.capture_logs() as logs:
        bot.telegram.refuses = lambda method, given: conflict if method == "getUpdates" else None
        await ada.types("/start")
        bot.telegram.refuses = lambda method, given: conflict if method == "getUpdates" else None
        count = len(bot.telegram.calls)
        await bot.telegram.until(lambda: len(bot.telegram.calls) >= count + 2, "two more attempts")
        failing = (await health(bot))["failing"]["telegram"]
        bot.telegram.refuses = lambda method, given: None
        await ada.sees("Hello")
    assert "Another program takes the updates of this bot" in failing
    assert [line["code"] for line in logs if line["event"] == "telegram_in_trouble"] == ["telegram_conflict"]
    assert [line["event"] for line in logs].count("telegram_well_again") == 1
    assert (await health(bot))["status"] == "healthy"


async def test_a_limit_is_waited_for_as_long_as_telegram_says(bot: RunningBot, ada: Person) -> None:
    left = [3]

    def refuses(method: str, given: dict[str, Any]) -> Refusal | None:
        if method != "sendMessage" or not left[0]:
            return None
        left[0] -= 1
        return Refusal(429, "Too Many Requests: retry after 0.01", retry_after=0.01)

    bot.telegram.refuses = refuses
    with structlog.testing.capture_logs() as logs:
        await ada.types("/start")
        await ada.sees("Hello")
    assert [line["wait_s"] for line in logs if line["event"] == "telegram_limit_reached"] == [0.01] * 3
    assert len(bot.telegram.posts_in(ada.id)) == 1


async def test_an_answer_that_telegram_does_not_take_comes_later(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    left = [6]

    def refuses(method: str, given: dict[str, Any]) -> Refusal | None:
        if method != "sendMessage" or not left[0]:
            return None
        left[0] -= 1
        return Refusal(502, "Bad Gateway")

    bot.telegram.refuses = refuses
    with structlog.testing.capture_logs() as logs:
        await ada.types("/predict What a flight")
        await ada.sees("Working on it")
    assert [line["event"] for line in logs].count("answer_not_sent") == 1
    assert (await bot.asked())["input"] == {"text": "What a flight"}
    assert len(bot.app.predictions) == 1


async def test_a_handler_that_fails_apologizes_and_nobody_waits_behind_it(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    bot.app.instead = lambda request: httpx.Response(200, json={"nonsense": True})
    with structlog.testing.capture_logs() as logs:
        await ada.types("/balance")
        await ada.sees("Something went wrong on our side")
        bot.app.instead = lambda request: None
        await ada.types("/balance")
        await ada.sees("You have 100 credits.")
    assert [line["event"] for line in logs].count("update_failed") == 1


async def test_an_update_that_ends_the_process_again_and_again_is_given_up(
    bot: RunningBot, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    await signed_up(ada)
    assert bot.bot is not None
    await bot.stop()
    await ada.types("/help")
    await bot.start()
    await ada.sees("What I can do")
    await bot.stop()
    body = {"message_id": 1, "chat": {"id": ada.id, "type": "private"}, "from": ada.user, "text": "/models"}
    with sqlite3.connect(bot.settings.data_dir / "bot.db") as connection:
        # As if it had ended the process five times.
        connection.execute(
            "INSERT INTO inbox (update_id, person_id, body, attempts) VALUES (1, ?, ?, 5)",
            (ada.id, json.dumps({"update_id": 1, "message": body}).encode()),
        )
    connection.close()
    with structlog.testing.capture_logs() as logs:
        await bot.start()
        await ada.sees("One of your messages could not be handled")
        await ada.types("/balance")
        await ada.sees("You have 100 credits.")
    assert [line["update_id"] for line in logs if line["event"] == "update_given_up"] == [1]
    assert not [post for post in bot.telegram.posts_in(ada.id) if "Models" in post.text]


async def test_what_was_in_hand_when_the_process_ended_is_handled_one_by_one(
    bot: RunningBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bot.stop()
    with sqlite3.connect(bot.settings.data_dir / "bot.db") as connection:
        connection.executemany(
            "INSERT INTO inbox (update_id, person_id, body, attempts) VALUES (?, ?, x'', ?)",
            [(number, number, int(number < 5)) for number in range(10)],
        )
    connection.close()
    suspects, others, handled = 0, asyncio.Barrier(5), 0

    async def handle(self: Conversation, waiting: Waiting) -> None:
        nonlocal suspects, handled
        if waiting.suspect:
            suspects += 1
            assert suspects == 1
            await asyncio.sleep(0.01)
            suspects -= 1
        else:
            # Goes on only once all of them are in hand.
            await others.wait()
        handled += 1

    monkeypatch.setattr(Conversation, "_handle", handle)
    await bot.start()
    async with asyncio.timeout(60):
        while handled < 10:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("attempts", [0, 1])
async def test_a_stop_is_no_attempt(bot: RunningBot, monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
    await bot.stop()
    with sqlite3.connect(bot.settings.data_dir / "bot.db") as connection:
        connection.execute("INSERT INTO inbox (update_id, person_id, body, attempts) VALUES (1, 1, x'', ?)", [attempts])
    connection.close()
    begun = asyncio.Event()

    async def handle(self: Conversation, waiting: Waiting) -> None:
        begun.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(Conversation, "_handle", handle)
    await bot.start()
    async with asyncio.timeout(30):
        await begun.wait()
    await bot.stop()
    with sqlite3.connect(bot.settings.data_dir / "bot.db") as connection:
        assert connection.execute("SELECT attempts FROM inbox").fetchall() == [(attempts,)]
    connection.close()


async def test_the_token_is_in_no_error(telegram: TelegramServer) -> None:
    api = BotApi(telegram.url, TOKEN)
    await telegram.stop()
    with pytest.raises(TelegramAway) as raised:
        await api.call("getMe")
    assert TOKEN not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    await api.close()
    strange = BotApi("http://[not an address", TOKEN)
    with pytest.raises(TelegramAway) as raised:
        await strange.call("getMe")
    assert TOKEN not in str(raised.value)
    await strange.close()
    assert logging.getLogger("httpx").level == logging.WARNING


async def test_updates_are_brought_to_a_webhook(start_bot: Start, telegram: TelegramServer, ada: Person) -> None:
    address = "https://foretell.test/telegram/webhook"
    bot = await start_bot(welcome=False, bot_webhook_url=address)
    telegram.webhook_leads_to[address] = f"{bot.url}/telegram/webhook"
    await telegram.until(lambda: telegram.webhook["url"] == address, "the webhook to be set")
    await signed_up(ada)
    await ada.types("/help")
    await ada.sees("What I can do")
    assert set(telegram.webhook_answers) == {200}
    assert "getUpdates" not in {method for method, _ in telegram.calls}
    update = json.dumps({"update_id": 9}).encode()
    assert (await bot.post("/telegram/webhook", update, {})).status_code == 404
    wrong = {"x-telegram-bot-api-secret-token": "wrong"}
    assert (await bot.post("/telegram/webhook", update, wrong)).status_code == 404
    right = {"x-telegram-bot-api-secret-token": telegram.webhook["secret_token"]}
    assert (await bot.post("/telegram/webhook", b"{", right)).status_code == 200
    seen = len(telegram.log)
    again = {"update_id": 1000, "message": {"message_id": 1, "chat": {"id": ada.id}, "from": ada.user, "text": "/help"}}
    assert (await bot.post("/telegram/webhook", json.dumps(again).encode(), right)).status_code == 200
    await ada.types("/balance")
    await ada.sees("You have 100 credits.")
    assert len(telegram.log) == seen + 1, "an update that comes twice counts once"


async def test_polling_takes_the_place_of_a_webhook(bot: RunningBot, telegram: TelegramServer, ada: Person) -> None:
    await bot.stop()
    telegram.webhook = {"url": "https://elsewhere.test/"}
    await bot.start()
    await signed_up(ada)


def test_without_a_token_it_says_so_once_and_ends(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "foretell.cli", "serve", "bot"],
        env={"PATH": "/usr/bin:/bin", "FORETELL_DATA_DIR": str(tmp_path / "data"), "FORETELL_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["message"] for line in lines if "TELEGRAM_TOKEN" in json.dumps(line)] == ["bot_off"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"TELEGRAM_TOKEN": "nonsense"}, "TELEGRAM_TOKEN is no token"),
        ({"TELEGRAM_TOKEN": "1:a"}, "FORETELL_BOT_SECRET"),
        ({"TELEGRAM_TOKEN": "1:a", "FORETELL_STARS_OFFERS": "500"}, "CREDITS:STARS"),
        ({"TELEGRAM_TOKEN": "1:a", "TELEGRAM_API_URL": "telegram"}, "TELEGRAM_API_URL"),
    ],
)
def test_settings_that_can_not_work_are_refused_by_name(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    given = {"FORETELL_BOT_SECRET": AppStandIn().secret} if "FORETELL_BOT_SECRET" not in said else {}
    ended = subprocess.run(
        [sys.executable, "-m", "foretell.cli", "serve", "bot"],
        env={"PATH": "/usr/bin:/bin", "FORETELL_DATA_DIR": str(tmp_path), "FORETELL_PORT": "0", **given, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert said in ended.stdout + ended.stderr
    assert settings["TELEGRAM_TOKEN"] not in (ended.stdout + ended.stderr).replace("TELEGRAM_TOKEN", "")


async def test_a_process_of_it_never_logs_the_token(telegram: TelegramServer, tmp_path: Path, ada: Person) -> None:
    app = AppStandIn()
    settings = {
        "TELEGRAM_TOKEN": TOKEN,
        "TELEGRAM_API_URL": telegram.url,
        "FORETELL_BOT_SECRET": app.secret,
        "FORETELL_APP_URL": "http://127.0.0.1:9",
        "FORETELL_BOT_PATIENCE_S": "0",
        "FORETELL_LOG_LEVEL": "debug",
    }
    stack = ExitStack()
    try:
        bot = await asyncio.to_thread(stack.enter_context, running_service("bot", tmp_path, **settings))
        await ada.types("/start")
        await ada.sees("The service does not answer right now")
        telegram.refuses = lambda method, given: Refusal(500, f"Internal: {TOKEN}") if method == "sendMessage" else None
        await ada.types("/help")
        await telegram.until(lambda: bot.lines("answer_not_sent"), "the answer to be given up")
        await telegram.stop()
        assert await asyncio.to_thread(bot.stop) == 0
    finally:
        await asyncio.to_thread(stack.close)
    log = (tmp_path / "bot.log").read_text()
    assert TOKEN not in log
    assert TOKEN.partition(":")[2] not in log
    assert app.secret not in log
