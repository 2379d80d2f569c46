"""The tests' Bot API server keeps the documented rules, each of which our bot relies on."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.telegram.people import Person
from tests.telegram.server import Limits, TelegramServer, telegram_server


class Caller:
    """A bot by hand."""

    def __init__(self, server: TelegramServer, token: str | None = None) -> None:
        self._base = f"{server.url}/bot{token or server.token}"

    async def call(self, method: str, *, leaves_after_s: float = 30, **given: Any) -> dict[str, Any]:
        """The whole answer."""
        async with httpx.AsyncClient(trust_env=False, timeout=leaves_after_s) as http:
            answer: dict[str, Any] = (await http.post(f"{self._base}/{method}", json=given)).json()
        return answer

    async def refused(self, method: str, **given: Any) -> tuple[int, str]:
        """Code and words of a refusal."""
        answer = await self.call(method, **given)
        assert not answer["ok"], answer
        return answer["error_code"], answer["description"]


@pytest.fixture
def caller(telegram: TelegramServer) -> Caller:
    return Caller(telegram)


async def test_updates_come_until_they_are_confirmed(caller: Caller, ada: Person) -> None:
    await ada.types("one")
    await ada.types("two")
    first = (await caller.call("getUpdates"))["result"]
    assert [each["message"]["text"] for each in first] == ["one", "two"]
    assert (await caller.call("getUpdates", limit=1))["result"] == first[:1]
    rest = (await caller.call("getUpdates", offset=first[1]["update_id"]))["result"]
    assert rest == first[1:]
    assert (await caller.call("getUpdates", offset=rest[0]["update_id"] + 1))["result"] == []
    assert (await caller.call("getUpdates"))["result"] == []


async def test_a_request_waits_for_updates(caller: Caller, ada: Person) -> None:
    waiting = asyncio.create_task(caller.call("getUpdates", timeout=20))
    await asyncio.sleep(0)
    await ada.types("at last")
    assert [each["message"]["text"] for each in (await waiting)["result"]] == ["at last"]


async def test_only_the_kinds_that_are_asked_for(caller: Caller, ada: Person) -> None:
    message = await ada.types("one")
    await ada.edits(message, "two")
    updates = (await caller.call("getUpdates", allowed_updates=["edited_message"]))["result"]
    assert [each["edited_message"]["text"] for each in updates] == ["two"]


async def test_of_two_who_ask_the_first_hears_409(telegram: TelegramServer, caller: Caller, ada: Person) -> None:
    first = asyncio.create_task(caller.call("getUpdates", timeout=20))
    await telegram.until(lambda: telegram.calls, "the first to ask")
    second = asyncio.create_task(Caller(telegram).call("getUpdates", timeout=20))
    assert (await first)["error_code"] == 409
    await ada.types("for the second")
    assert len((await second)["result"]) == 1


async def test_whoever_left_is_no_second_poller(telegram: TelegramServer, ada: Person) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await Caller(telegram).call("getUpdates", timeout=20, leaves_after_s=0.2)
    await ada.types("one")
    assert len((await Caller(telegram).call("getUpdates"))["result"]) == 1


async def test_tokens(telegram: TelegramServer) -> None:
    assert await Caller(telegram, "1:wrong").refused("getMe") == (401, "Unauthorized")
    assert await Caller(telegram, "nonsense").refused("getMe") == (404, "Not Found")
    assert (await Caller(telegram).call("getMe"))["result"]["username"] == telegram.username


async def test_limits_for_all_and_for_each_chat() -> None:
    async with telegram_server(Limits(per_second=3, second_s=60, chat_rest_s=60, retry_after=7)) as server:
        for number in range(1, 6):
            Person(server, number)
        caller = Caller(server)
        assert (await caller.call("sendMessage", chat_id=1, text="a"))["ok"]
        too_soon = await caller.call("sendMessage", chat_id=1, text="b")
        assert (too_soon["error_code"], too_soon["parameters"]) == (429, {"retry_after": 7})
        for chat in (2, 3):
            assert (await caller.call("sendMessage", chat_id=chat, text="a"))["ok"]
        assert (await caller.refused("sendMessage", chat_id=4, text="a"))[0] == 429


async def test_messages_that_are_refused(telegram: TelegramServer, caller: Caller, ada: Person) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"text": " "}, "message text is empty"),
        ({"text": "a" * 4097}, "message is too long"),
        ({"text": "<b>a", "parse_mode": "HTML"}, "can't parse entities"),
        ({"text": "<p>a</p>", "parse_mode": "HTML"}, "can't parse entities"),
        (
            {"text": "a", "reply_markup": {"inline_keyboard": [[{"text": "a", "callback_data": "ж" * 33}]]}},
            "BUTTON_DATA_INVALID",
        ),
        ({"text": "a", "chat_id": 77}, "chat not found"),
    ]
    for given, words in wrong:
        code, said = await caller.refused("sendMessage", **{"chat_id": ada.id, **given})
        assert code == 400
        assert words in said
    await ada.blocks()
    assert (await caller.refused("sendMessage", chat_id=ada.id, text="a"))[0] == 403


async def test_edits(caller: Caller, ada: Person) -> None:
    sent = (await caller.call("sendMessage", chat_id=ada.id, text="a"))["result"]
    place = {"chat_id": ada.id, "message_id": sent["message_id"]}
    assert (await caller.call("editMessageText", **place, text="b"))["ok"]
    assert "message is not modified" in (await caller.refused("editMessageText", **place, text="b"))[1]
    gone = {**place, "message_id": 999}
    assert "message to edit not found" in (await caller.refused("editMessageText", **gone, text="b"))[1]


async def test_taps_are_answered_once_they_are_known(telegram: TelegramServer, caller: Caller, ada: Person) -> None:
    keyboard = {"inline_keyboard": [[{"text": "Yes", "callback_data": "y"}]]}
    await caller.call("sendMessage", chat_id=ada.id, text="a", reply_markup=keyboard)
    number = await ada.begin_tap(telegram.posts_in(ada.id)[0], "Yes")
    update = (await caller.call("getUpdates"))["result"][0]["callback_query"]
    assert (update["data"], update["message"]["text"]) == ("y", "a")
    assert (await caller.call("answerCallbackQuery", callback_query_id=number, text="ok"))["ok"]
    assert (await ada.answer_to(number))["text"] == "ok"
    assert (await caller.refused("answerCallbackQuery", callback_query_id="x"))[0] == 400


async def test_stars(telegram: TelegramServer, caller: Caller, ada: Person) -> None:
    invoice = {
        "chat_id": ada.id,
        "title": "500 credits",
        "description": "For predictions",
        "payload": "p",
        "currency": "XTR",
        "prices": [{"label": "500", "amount": 250}],
    }
    for wrong in ({"currency": "EUR"}, {"prices": []}, {"payload": ""}, {"provider_token": "x"}, {"title": "a" * 33}):
        assert (await caller.refused("sendInvoice", **{**invoice, **wrong}))[0] == 400
    await caller.call("sendInvoice", **invoice)
    paying = asyncio.create_task(ada.pays(telegram.posts_in(ada.id)[0]))
    asked = (await caller.call("getUpdates", timeout=20))["result"][0]["pre_checkout_query"]
    assert (asked["total_amount"], asked["invoice_payload"]) == (250, "p")
    await caller.call("answerPreCheckoutQuery", pre_checkout_query_id=asked["id"], ok=True)
    charge = await paying
    paid = (await caller.call("getUpdates"))["result"][-1]["message"]["successful_payment"]
    assert paid["telegram_payment_charge_id"] == charge
    refund = {"user_id": ada.id, "telegram_payment_charge_id": charge}
    assert (await caller.call("refundStarPayment", **refund))["ok"]
    assert "CHARGE_ALREADY_REFUNDED" in (await caller.refused("refundStarPayment", **refund))[1]
    assert "CHARGE_NOT_FOUND" in (await caller.refused("refundStarPayment", **{**refund, "user_id": 1}))[1]


async def test_webhooks_and_polling_exclude_one_another(caller: Caller) -> None:
    assert (await caller.refused("setWebhook", url="http://a.test/"))[0] == 400
    assert (await caller.call("setWebhook", url="https://a.test/", secret_token="s"))["ok"]
    assert (await caller.refused("getUpdates"))[0] == 409
    assert (await caller.call("deleteWebhook"))["ok"]
    assert (await caller.call("getUpdates"))["ok"]


async def test_a_server_that_was_away_knows_what_happened(
    telegram: TelegramServer, caller: Caller, ada: Person
) -> None:
    await ada.types("one")
    await telegram.stop()
    await ada.types("two")
    with pytest.raises(httpx.TransportError):
        await caller.call("getMe")
    await telegram.start()
    assert len((await caller.call("getUpdates"))["result"]) == 2
