"""Refunds of Stars: the credits first, then the Stars, and each of them once."""

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from foretell.domain.accounts import telegram, telegram_payments
from foretell.domain.credits import ledger
from foretell.kit.database import Database

from .conftest import CommandLine

TOKEN = "123456:AAbbCCdd"
CHAT = 987654321


class Telegram:
    """Answers as the Bot API does: a charge is refunded once, and only with the right token."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.away = False
        telegram = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, answer = telegram.answer(self.path, body)
                content = b"<html>" if telegram.away else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.away:
            return 502, {}
        if path != f"/bot{TOKEN}/refundStarPayment":
            return 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}
        if body in self.calls:
            return 400, {"ok": False, "error_code": 400, "description": "Bad Request: CHARGE_ALREADY_REFUNDED"}
        self.calls.append(body)
        return 200, {"ok": True, "result": True}


@pytest.fixture
def bot_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    made = Telegram()
    thread = Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("TELEGRAM_API_URL", made.url)
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def paid(database: str) -> str:
    """A database in which somebody paid 250 Stars for 500 credits."""

    async def pay() -> None:
        opened = Database(database)
        async with opened.transaction() as connection:
            await telegram.sign_up(connection, CHAT, password_hash="x", grant_credits=0)
            await telegram_payments.pay(connection, chat_id=CHAT, charge_id="charge-1", stars=250, credits=500)
        await opened.close()

    asyncio.run(pay())
    return database


def spend(url: str, credits: int) -> None:
    async def work() -> None:
        database = Database(url)
        async with database.transaction() as connection:
            user = (await telegram.find(connection, CHAT)).user
            await ledger.adjust(connection, user.id, -credits)
        await database.close()

    asyncio.run(work())


def available(foretell: CommandLine) -> int:
    (user,) = json.loads(foretell("users", "list", "--json").out)
    credits: int = user["available"]
    return credits


def test_credits_and_stars_go_back_once(foretell: CommandLine, paid: str, bot_api: Telegram) -> None:
    first = foretell("users", "refund-stars", "charge-1")
    assert (first.code, first.out) == (0, "Took 500 credits back.\nGave back 250 Stars.\n")
    assert bot_api.calls == [{"user_id": CHAT, "telegram_payment_charge_id": "charge-1"}]
    again = foretell("users", "refund-stars", "charge-1")
    assert (again.code, again.out) == (
        0,
        "500 credits were taken back before.\nTelegram gave back before: 250 Stars.\n",
    )
    assert available(foretell) == 0
    assert foretell("audit").code == 0


def test_one_star_is_one(foretell: CommandLine, database: str, bot_api: Telegram) -> None:
    async def pay() -> list[str | None]:
        opened = Database(database)
        async with opened.transaction() as connection:
            await telegram.sign_up(connection, CHAT, password_hash="x", grant_credits=0)
            paid = await telegram_payments.pay(connection, chat_id=CHAT, charge_id="one", stars=1, credits=1)
            await telegram_payments.refund(connection, "one", even_if_spent=False)
            notes = [each.note for each in await ledger.movements(connection, paid.user_id, limit=5)]
        await opened.close()
        return notes

    assert asyncio.run(pay()) == ["refund of 1 Telegram Star", "1 Telegram Star"]
    said = foretell("users", "refund-stars", "one")
    assert (said.code, said.out) == (0, "1 credit was taken back before.\nGave back 1 Star.\n")


def test_what_failed_half_way_is_done_by_the_next_call(
    foretell: CommandLine, paid: str, bot_api: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TELEGRAM_TOKEN")
    without = foretell("users", "refund-stars", "charge-1")
    assert (without.code, "TELEGRAM_TOKEN" in without.error, available(foretell)) == (1, True, 0)
    monkeypatch.setenv("TELEGRAM_TOKEN", "5:wrong")
    wrong = foretell("users", "refund-stars", "charge-1")
    assert (wrong.code, "Unauthorized" in wrong.error) == (1, True)
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    bot_api.away = True
    away = foretell("users", "refund-stars", "charge-1")
    assert (away.code, "502" in away.error) == (1, True)
    monkeypatch.setenv("TELEGRAM_API_URL", "http://127.0.0.1:1")
    silent = foretell("users", "refund-stars", "charge-1")
    assert (silent.code, "ConnectError" in silent.error) == (1, True)
    for answer in (without, wrong, away, silent):
        assert TOKEN not in answer.out + answer.error
    monkeypatch.setenv("TELEGRAM_API_URL", bot_api.url)
    bot_api.away = False
    assert foretell("users", "refund-stars", "charge-1").code == 0
    assert len(bot_api.calls) == 1
    assert available(foretell) == 0


def test_credits_that_were_spent_want_a_decision(foretell: CommandLine, paid: str, bot_api: Telegram) -> None:
    spend(paid, 200)
    refused = foretell("users", "refund-stars", "charge-1")
    assert (refused.code, "only 300 are still there" in refused.error, "--even-if-spent" in refused.error) == (
        1,
        True,
        True,
    )
    assert (bot_api.calls, available(foretell)) == ([], 300)
    done = foretell("users", "refund-stars", "charge-1", "--even-if-spent")
    assert (done.code, done.out) == (0, "Took 300 credits back; 200 had been spent.\nGave back 250 Stars.\n")
    assert available(foretell) == 0


def test_a_charge_that_nobody_told_is_refused(foretell: CommandLine, paid: str, bot_api: Telegram) -> None:
    answer = foretell("users", "refund-stars", "charge-2")
    assert (answer.code, answer.error) == (1, "There is no such payment.\n")
    assert bot_api.calls == []
