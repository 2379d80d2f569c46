"""Results and other events: stored before 204, told once, in order, whatever happens meanwhile."""

import asyncio
import json

import httpx
import pytest
from tests.integration.bot.conftest import RunningBot, ended
from tests.integration.bot.test_oddities import signed_up
from tests.telegram.app_stand_in import problem
from tests.telegram.people import Person
from tests.telegram.rules import Refusal
from tests.telegram.server import Limits, TelegramServer

from foretell.contracts.bot_secret import new_bot_secret

POSITIVE = {"label": "positive", "probabilities": {"positive": 0.9}}


async def ask(bot: RunningBot, person: Person, text: str = "What a flight") -> str:
    """Somebody asks for a prediction; returns its id."""
    count = len(bot.app.predictions) + 1
    await person.types(f"/predict {text}")
    identity: str = (await bot.asked(count))["id"]
    return identity


async def test_what_is_not_signed_is_refused(bot: RunningBot, ada: Person) -> None:
    body, headers = bot.app.event(ada.id, "balance.low", {"available": 1})
    assert (await bot.post("/notifications", body, {})).status_code == 401
    assert (await bot.post("/notifications", body + b" ", headers)).status_code == 401
    old = {**headers, "webhook-timestamp": "1700000000"}
    assert (await bot.post("/notifications", body, old)).status_code == 401
    for signature in ("v1", "v1,", "v1,not base64", "v2,abc"):
        refused = await bot.post("/notifications", body, {**headers, "webhook-signature": signature})
        assert refused.status_code == 401
    of_another = bot.app.signed(body, "msg_1", secret=new_bot_secret())
    assert (await bot.post("/notifications", *of_another)).status_code == 401
    for nonsense in (b"{}", b"[]", b"{", b'{"type": "a", "data": {}, "telegram": {"chat_id": "x"}}'):
        assert (await bot.post("/notifications", *bot.app.signed(nonsense, "msg_1"))).status_code == 422
    assert bot.telegram.log == []


async def test_an_event_that_comes_twice_is_told_once(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    for _ in range(3):
        assert (await bot.tell(ada.id, "balance.low", {"available": 21}, name="msg_1")).status_code == 204
    assert (await bot.tell(ada.id, "balance.low", {"available": 1}, name="msg_2")).status_code == 204
    await ada.sees("Your balance is low: 1 credit left.")
    low = [post.text for post in bot.telegram.posts_in(ada.id) if "balance is low" in post.text]
    more = "Ask the operator of this service for more credits."
    assert low == [f"Your balance is low: 21 credits left. {more}", f"Your balance is low: 1 credit left. {more}"]


async def test_a_webhook_that_was_turned_off_is_told_here(bot: RunningBot, vera: Person) -> None:
    await signed_up(vera)
    await bot.tell(vera.id, "endpoint.disabled", {"url": "https://a.test/<hook>"})
    assert "https://a.test/<hook>" in (await vera.sees("Вебхук вашего счёта отключён")).text
    await bot.tell(vera.id, "endpoint.disabled", {"url": "https://b.test/", "reason": "gone"})
    assert "https://b.test/" in (await vera.sees("получатель отвечает, что его больше нет")).text
    await bot.tell(vera.id, "something.new", {})
    await bot.tell(vera.id, "balance.low", {"available": 2})
    await vera.sees("На вашем счёте 2 кредита")


async def test_whoever_asked_in_a_group_that_put_us_out_is_told_in_private(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    ada.joins(-100)
    await ada.types("/predict What a flight", chat=-100)
    identity = (await bot.asked())["id"]
    await ada.sees("Working on it", chat=-100)
    bot.telegram.blocked.add(-100)
    await bot.finish(identity, POSITIVE)
    await ada.sees("Positive")
    await bot.tell(ada.id, "balance.low", {"available": 3})
    await ada.sees("3 credits left")


async def test_a_chat_that_was_unlinked_elsewhere_spends_and_hears_nothing(bot: RunningBot, ada: Person) -> None:
    hello = await signed_up(ada)
    first, before = bot.app.linked[ada.id], await ask(bot, ada)
    await ada.sees("Working on it")
    del bot.app.linked[ada.id]
    bot.app.finish(before, POSITIVE)
    for type_, data in (("prediction.finished", bot.app.predictions[before]), ("balance.low", {"available": 1})):
        assert (await bot.tell(ada.id, type_, data)).status_code == 204
    await ada.types("/predict What a flight")
    await ada.sees("No account is linked to this chat")
    assert len(bot.app.predictions) == 1
    bot.app.codes["one-time"] = second = bot.app.new_account("second")
    await ada.types("/start one-time")
    await ada.sees_new("this chat now uses the account second", after=hello)
    # What comes late of the first account is not for the second one's chat.
    late = bot.app.new_prediction(first, "sentiment", {"text": "a"})
    await bot.tell(ada.id, "prediction.finished", bot.app.finish(late["id"], POSITIVE))
    await bot.tell(ada.id, "balance.low", {"available": 7})
    await ada.sees("7 credits left")
    said = [post.text for post in bot.telegram.posts_in(ada.id)]
    assert not [text for text in said if "Positive" in text or " 1 credit left" in text]
    await ask(bot, ada)
    assert (first.available, second.available) == (98 - 2, 98)


async def test_a_wrong_secret_loses_nothing_that_waits(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    prediction = await ask(bot, ada)
    await ada.sees("Working on it")
    refused: list[str] = []

    def to_strangers(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/telegram/tokens":
            refused.append(request.url.path)
            return problem(404, "not_found")
        # The token that the bot has is at its end.
        return problem(401, "unauthorized") if request.url.path.startswith("/predictions/") else None

    bot.app.instead = to_strangers
    await bot.tell(ada.id, "prediction.finished", bot.app.finish(prediction, POSITIVE))
    await bot.telegram.until(lambda: len(refused) > 1, "the bot to ask twice for a token")
    bot.app.instead = lambda _: None
    await ada.sees("Positive")


async def test_what_happened_to_the_account_before_is_not_told_when_it_comes_late(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    before = bot.app.linked.pop(ada.id)
    bot.app.codes["another"] = bot.app.new_account("another")
    await ada.types("/start another")
    await ada.sees("now uses the account another")
    await bot.tell(ada.id, "balance.low", {"available": 3}, account=before)
    await bot.tell(ada.id, "endpoint.disabled", {"url": "https://before.example"}, account=before)
    await bot.tell(ada.id, "balance.low", {"available": 7})
    assert "7 credits" in (await ada.sees("7 credits")).text
    assert not [post for post in bot.telegram.posts_in(ada.id) if "3 credits" in post.text or "before" in post.text]


async def test_what_was_not_sent_yet_is_not_sent_for_the_next_account(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    bot.app.instead = lambda request: (
        problem(503, "unavailable", outcome="unknown") if request.url.path == "/predictions/predict" else None
    )
    await ada.types("/predict What a flight")
    await ada.sees("I keep trying")
    async with ended(bot):
        del bot.app.linked[ada.id]
        bot.app.instead = lambda request: None
    await ada.types("/start")
    await ada.sees("This chat has an account")
    async with ended(bot):
        pass
    identity = await ask(bot, ada)
    await bot.finish(identity, POSITIVE)
    await ada.sees("Positive")
    assert list(bot.app.predictions) == [identity]


async def test_a_result_is_here_before_the_answer_to_whoever_asked(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    told = asyncio.Event()

    submitting = bot.app._submit

    def submit_and_tell(account, key, body):  # type: ignore[no-untyped-def]
        answer = submitting(account, key, body)
        identity = json.loads(answer.content)["id"]
        prediction = dict(bot.app.finish(identity, POSITIVE))

        async def tell() -> None:
            await bot.tell(ada.id, "prediction.finished", prediction)
            told.set()

        bot.app.tasks = asyncio.create_task(tell())  # type: ignore[attr-defined]
        return answer

    bot.app._submit = submit_and_tell  # type: ignore[method-assign]
    await ada.types("/predict What a flight")
    await told.wait()
    result = await ada.sees("Positive")
    assert result.history[0].startswith("⏳")
    assert len([post for post in bot.telegram.posts_in(ada.id) if "Positive" in post.text]) == 1


async def test_predictions_made_elsewhere_are_told_to_whoever_wants_it(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    account = bot.app.linked[ada.id]
    first = bot.app.new_prediction(account, "sentiment", {"text": "a"})
    await bot.finish(first["id"], POSITIVE)
    await bot.tell(ada.id, "balance.low", {"available": 1})
    await ada.sees("balance is low")
    assert not [post for post in bot.telegram.posts_in(ada.id) if "Positive" in post.text]
    await ada.types("/settings")
    await ada.taps(await ada.sees("Settings"), "Show all results here")
    await ada.sees("made elsewhere: yes")
    second = bot.app.new_prediction(account, "sentiment", {"text": "b"})
    await bot.finish(second["id"], POSITIVE)
    await ada.sees("Positive")


async def test_a_result_that_nobody_told_is_found(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    identity = await ask(bot, ada)
    await ada.sees("Working on it")
    async with ended(bot):
        bot.app.finish(identity, POSITIVE)
    await ada.sees("Positive")
    await bot.tell(ada.id, "prediction.finished", bot.app.predictions[identity])
    await bot.tell(ada.id, "balance.low", {"available": 1})
    await ada.sees("balance is low")
    assert len([text for kind, _, text in bot.telegram.log if "Positive" in text]) == 1


async def test_a_prediction_that_is_gone_is_waited_for_no_more(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    identity = await ask(bot, ada)
    waiting = await ada.sees("Working on it")
    async with ended(bot):
        del bot.app.predictions[identity]
    assert (await ada.sees("This prediction no longer exists")).message_id == waiting.message_id


async def test_an_app_that_is_away_gets_it_later_and_once(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    bot.app.instead = lambda request: (
        problem(503, "unavailable", outcome="unknown") if request.url.path == "/predictions/predict" else None
    )
    await ada.types("/predict What a flight")
    await ada.sees("I keep trying")
    async with ended(bot):
        bot.app.instead = lambda request: None
    identity = (await bot.asked())["id"]
    await bot.finish(identity, POSITIVE)
    await ada.sees("Positive")
    assert len(bot.app.predictions) == 1
    bot.app.instead = lambda request: problem(503, "unavailable")
    await ada.types("/balance")
    await ada.sees("The service does not answer right now")


async def test_the_message_of_a_result_was_deleted(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    identity = await ask(bot, ada)
    waiting = await ada.sees("Working on it")
    del bot.telegram.posts[ada.id, waiting.message_id]
    await bot.finish(identity, POSITIVE)
    assert (await ada.sees("Positive")).message_id != waiting.message_id


async def test_telegram_is_away_for_a_while(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    identity = await ask(bot, ada)
    await ada.sees("Working on it")
    await bot.telegram.stop()
    await bot.finish(identity, POSITIVE)
    for number in range(3):
        assert (await bot.tell(ada.id, "balance.low", {"available": number})).status_code == 204
    await bot.telegram.start()
    await ada.sees("Positive")
    await ada.sees("2 credits left")
    said = [text for _, post, text in bot.telegram.log if "credits left" in text or "credit left" in text]
    assert [int(text.split()[4]) for text in said] == [0, 1, 2]
    assert len([text for kind, _, text in bot.telegram.log if "Positive" in text]) == 1
    await ada.types("/help")
    await ada.sees("What I can do")


async def test_whoever_blocked_us_is_told_nothing_until_they_are_back(
    bot: RunningBot, ada: Person, vera: Person
) -> None:
    await signed_up(ada)
    await signed_up(vera)
    bot.telegram.blocked.add(ada.id)
    for number in range(3):
        await bot.tell(ada.id, "balance.low", {"available": number})
    await bot.tell(vera.id, "balance.low", {"available": 5})
    await vera.sees("На вашем счёте 5 кредитов")
    bot.telegram.blocked.discard(ada.id)
    await bot.tell(ada.id, "balance.low", {"available": 7})
    await ada.types("/help")
    await ada.sees("What I can do")
    await bot.tell(ada.id, "balance.low", {"available": 8})
    await ada.sees("8 credits left")
    assert not [post for post in bot.telegram.posts_in(ada.id) if " 0 credits left" in post.text]
    await ada.blocks()
    await ada.unblocks()
    await ada.types("/help")
    await bot.tell(ada.id, "balance.low", {"available": 9})
    await ada.sees("9 credits left")


async def test_what_telegram_refuses_for_good_holds_up_nothing(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    refused = Refusal(400, "Bad Request: TEXT_STRANGE")
    bot.telegram.refuses = lambda method, given: refused if "13 credits" in given.get("text", "") else None
    for available in (13, 14):
        await bot.tell(ada.id, "balance.low", {"available": available})
    await ada.sees("14 credits left")


@pytest.mark.parametrize("storm", [False, True], ids=["quiet", "storm"])
async def test_a_burst_of_results_comes_in_order_within_the_limits(
    start_bot, telegram: TelegramServer, storm: bool
) -> None:  # type: ignore[no-untyped-def]
    # A hundred times as fast as Telegram allows; the proportions are the same.
    telegram.limits = Limits(per_second=400, chat_rest_s=0.02, retry_after=0.05)
    bot = await start_bot(bot_messages_per_second=300, bot_chat_messages_per_second=40)
    people = [Person(telegram, 2000 + number) for number in range(8)]
    for person in people:
        await person.types("/start")
        await person.sees("Hello")
    seen = len(telegram.log)
    if storm:
        beaten = {"left": 60}

        def beat(method: str, given: object) -> Refusal | None:
            if method != "sendMessage" or beaten["left"] <= 0:
                return None
            beaten["left"] -= 1
            return Refusal(429, "Too Many Requests: retry after 0.05", retry_after=0.05)

        telegram.refuses = beat  # type: ignore[assignment]
    for number in range(25):
        told = [bot.tell(person.id, "balance.low", {"available": number}) for person in people]
        assert {answer.status_code for answer in await asyncio.gather(*told)} == {204}
    await telegram.until(lambda: len(telegram.log) >= seen + 200, "200 messages", within_s=60)
    for person in people:
        said = [text for _, post, text in telegram.log[seen:] if post.chat_id == person.id]
        assert [int(text.split()[4]) for text in said] == list(range(25))
