"""What people do besides answering: tap twice, tap what is old, send pictures, flood, talk in groups."""

import sqlite3

from tests.integration.bot.conftest import RunningBot, ended
from tests.integration.bot.test_conversations import ENGLISH, FLIGHT, RUSSIAN, fill_in_a_flight
from tests.telegram.app_stand_in import problem
from tests.telegram.people import Person, quiet
from tests.telegram.server import Post, TelegramServer

GROUP = -100


async def signed_up(person: Person) -> Post:
    """Somebody with an account."""
    await person.types("/start")
    return await person.sees("100")


async def test_a_double_tap_sends_once(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    summary = await fill_in_a_flight(ada, ENGLISH)
    data = summary.button("✔ Send")["callback_data"]
    taps = [await ada.tap_data(summary, data) for _ in range(4)]
    answers = [await ada.answer_to(tap) for tap in taps]
    assert len(bot.app.predictions) == 1
    assert [answer.get("text") for answer in answers[1:]] == [
        "This form was sent already. Its result appears here and in /history."
    ] * 3
    assert [post.message_id for post in bot.telegram.posts_in(ada.id) if "Working on it" in post.text] == [
        summary.message_id
    ]


async def test_a_double_tap_on_an_answer_answers_one_question(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Flight delay")
    carrier = await ada.sees("question 1 of 4")
    data = carrier.button("American Airlines")["callback_data"]
    first, second = await ada.tap_data(carrier, data), await ada.tap_data(carrier, data)
    await ada.answer_to(first)
    assert (await ada.answer_to(second))["text"] == "This question is answered already."
    assert "question 2 of 4" in carrier.text


async def test_old_buttons_say_that_their_form_has_ended(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    summary = await fill_in_a_flight(ada, ENGLISH)
    data = summary.button("✔ Send")["callback_data"]
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Sentiment")
    answer = await ada.answer_to(await ada.tap_data(summary, data))
    assert "This form has ended" in answer["text"]
    assert answer["show_alert"]
    for nonsense in ("", "f", "f:x", "zz:1", "m:000000000000", "h:77", "d:x", "buy:1:1", "f:::", "lang:xx", "set:?"):
        await ada.answer_to(await ada.tap_data(summary, nonsense))
    assert bot.app.predictions == {}


async def test_pictures_edits_and_forwarded_commands(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.sends_photo()
    await ada.sees("I can't read that")
    await ada.forwards("/predict")
    await ada.sees("I do not carry out forwarded commands")
    await ada.types("hello?")
    await ada.sees("To get a prediction, send /predict")
    await ada.types("/nonsense")
    await ada.sees("I don't know this command")
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Flight delay")
    await ada.taps(await ada.sees("question 1 of 4"), "American Airlines")
    written = await ada.types("17:45")
    question = await ada.sees("question 3 of 4")
    await ada.sends_sticker()
    again = await ada.sees_new("I see a picture", after=question)
    await ada.edits(written, "18:00")
    await ada.sees("I have read your message as it was at first")
    await ada.forwards("/balance")
    await ada.sees_new("I do not carry out forwarded commands", after=again)
    await ada.forwards("550")
    assert "question 4 of 4" in (await ada.sees_new("question 4 of 4", after=again)).text


async def test_what_is_no_answer_at_the_summary_is_called_what_it_is(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    summary = await fill_in_a_flight(ada, ENGLISH)
    await ada.sends_sticker()
    summary = await ada.sees_new("I see a picture", after=summary)
    await ada.types("/nonsense")
    summary = await ada.sees_new("I don't know this command", after=summary)
    await ada.types("well?")
    await ada.sees_new("Everything is filled in. Press", after=summary)


async def test_a_refusal_of_the_app_is_said_in_russian(bot: RunningBot, vera: Person) -> None:
    await vera.types("/start")
    summary = await fill_in_a_flight(vera, RUSSIAN)
    errors = [{"pointer": "#/input/distance_miles", "detail": "must be a distance that is flown"}]
    for given in ({"errors": errors}, {}):
        bot.app.instead = lambda request, given=given: (  # type: ignore[misc]
            problem(422, "invalid_request", **given) if request.url.path == "/predictions/predict" else None
        )
        await vera.taps(summary, "✔ Отправить")
        if given:
            assert "flown" not in (await vera.sees("Модель не принимает этот ответ.")).text
            await vera.types("600")
            summary = await vera.sees("Расстояние: 600 миль")
    assert (await vera.sees("ничего не списано")).text == "Запрос не принят, ничего не списано."


async def test_a_forwarded_text_is_an_answer(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Sentiment")
    await ada.sees("question 1 of 1")
    await ada.forwards("What a lovely flight")
    await ada.taps(await ada.sees("Price: 2 credits"), "✔ Send")
    assert (await bot.asked())["input"] == {"text": "What a lovely flight"}


async def test_a_group_hears_answers_to_commands_only(bot: RunningBot, ada: Person, vera: Person) -> None:
    for person in (ada, vera):
        person.joins(GROUP)
        await signed_up(person)
    await ada.types("good morning", chat=GROUP)
    await ada.types("/weather@other_bot", chat=GROUP)
    await ada.types("/unknown", chat=GROUP)
    message = await ada.types(f"/predict@{bot.telegram.username}", chat=GROUP)
    which = await ada.sees("Choose a model", chat=GROUP)
    assert which.reply_to == message["message_id"]
    assert bot.telegram.posts_in(GROUP) == [which]
    await ada.taps(which, "Sentiment")
    question = await ada.sees("question 1 of 1", chat=GROUP)
    others = await vera.tap_data(question, question.button("Example")["callback_data"])
    assert "Это не ваша форма" in (await vera.answer_to(others))["text"]
    await vera.types("not an answer", chat=GROUP)
    await ada.types("not an answer either", chat=GROUP)
    await ada.types("What a lovely flight", chat=GROUP, reply_to=question)
    summary = await ada.sees("Price: 2 credits", chat=GROUP)
    assert "You have" not in summary.text
    bot.app.accounts[f"telegram-{ada.id}"].available = 1
    await ada.taps(summary, "✔ Send")
    short = await ada.sees("You don't have enough credits: it costs 2 credits. Nothing was charged", chat=GROUP)
    bot.app.accounts[f"telegram-{ada.id}"].available = 100
    await ada.taps(short, "Back to the form")
    await ada.taps(await ada.sees("Price: 2 credits", chat=GROUP), "✔ Send")
    waiting = await ada.sees("Working on it", chat=GROUP)
    await bot.finish((await bot.asked())["id"], {"label": "positive", "probabilities": {"positive": 0.9}})
    assert (await ada.sees("Positive", chat=GROUP)).message_id == waiting.message_id
    assert bot.app.accounts[f"telegram-{ada.id}"].available == 98
    assert bot.app.accounts[f"telegram-{vera.id}"].available == 100


async def test_whoever_has_no_account_is_led_to_one_in_private(bot: RunningBot, ada: Person) -> None:
    ada.joins(GROUP)
    await ada.types("/balance", chat=GROUP)
    invitation = await ada.sees("Write to me in private first", chat=GROUP)
    assert invitation.buttons[0][0]["url"] == f"https://t.me/{bot.telegram.username}?start=group"


async def test_a_flood_is_passed_over_and_said_so_once(
    bot: RunningBot, telegram: TelegramServer, ada: Person, vera: Person
) -> None:
    await signed_up(ada)
    await signed_up(vera)
    async with ended(bot):
        for number in range(80):
            await ada.types(f"/nonsense {number}")
        await vera.types("/help")
    await vera.sees("Что я умею")
    await ada.sees("faster than I can read")
    await quiet(telegram)
    answers = [post for post in telegram.posts_in(ada.id) if "don't know this command" in post.text]
    assert len(answers) == 30
    assert len([post for post in telegram.posts_in(ada.id) if "faster than I can read" in post.text]) == 1
    await ada.types("/help")
    await ada.sees("What I can do")


async def test_a_form_survives_a_restart(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Flight delay")
    carrier = await ada.sees("question 1 of 4")
    async with ended(bot):
        tap = await ada.begin_tap(carrier, "American Airlines")
    await ada.answer_to(tap)
    await ada.types("17:45")
    await ada.sees("question 3 of 4")
    async with ended(bot):
        await ada.types("1389.5")
    await ada.taps(await ada.sees("question 4 of 4"), "Rain")
    await ada.taps(await ada.sees("Price: 1 credit"), "✔ Send")
    assert (await bot.asked())["input"] == FLIGHT


async def test_a_form_survives_a_new_version_of_its_model(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    summary = await fill_in_a_flight(ada, ENGLISH)
    model = bot.app.models["flight-delay"]
    carrier, time, distance, weather = model["fields"]
    codes = [each for each in carrier["choices"] if each["value"] != "AA"]
    bot.app.models["flight-delay"] = {
        **model,
        "version": "2.0.0",
        "fields": [time, {**carrier, "choices": codes}, weather, distance],
    }
    assert bot.bot is not None
    bot.bot.parts.models.forget()
    await ada.taps(summary, "✔ Send")
    asked = await ada.sees("The model has a new version (2.0.0)")
    assert "question 2 of 4" in asked.text, "what does not fit is asked again"
    await ada.taps(asked, "Endeavor Air")
    await ada.taps(await ada.sees("Departure time: 17:45"), "✔ Send")
    assert (await bot.asked())["input"] == {**FLIGHT, "carrier": "9E"}


async def test_an_answer_that_the_app_refuses_is_asked_again(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    summary = await fill_in_a_flight(ada, ENGLISH)
    errors = [{"pointer": "#/input/distance_miles", "detail": "must be a distance that is flown"}]
    bot.app.instead = lambda request: (
        problem(422, "invalid_request", errors=errors) if request.url.path == "/predictions/predict" else None
    )
    await ada.taps(summary, "✔ Send")
    again = await ada.sees("The model does not take this answer: must be a distance that is flown")
    assert "question 3 of 4" in again.text
    bot.app.instead = lambda request: None
    await ada.types("600")
    await ada.taps(await ada.sees("Distance: 600 miles"), "✔ Send")
    assert (await bot.asked())["input"] == {**FLIGHT, "distance_miles": 600}


async def test_a_form_of_another_release_is_asked_anew(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Sentiment")
    question = await ada.sees("question 1 of 1")
    with sqlite3.connect(bot.settings.data_dir / "bot.db") as connection:
        connection.execute("UPDATE forms SET state = ?", (b'{"another": "release"}',))
    connection.close()
    assert "has ended" in (await ada.taps(question, "Example"))["text"]
    await ada.types("/predict")
    await ada.sees_new("Choose a model", after=question)
