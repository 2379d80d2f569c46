"""Whole conversations, in both languages: a person types and taps, and reads what comes."""

import pytest
from tests.integration.bot.conftest import RunningBot
from tests.telegram.people import Person
from tests.telegram.server import Post

FLIGHT = {"carrier": "AA", "departure_time": "17:45", "distance_miles": 1389.5, "weather_code": 3}
DELAYED = {"prediction": 1, "probability": 0.735}


async def fill_in_a_flight(person: Person, words: dict[str, str]) -> Post:
    """From `/predict` to the summary: buttons, a second page, a written time, a number with a comma."""
    await person.types("/predict")
    await person.taps(await person.sees(words["which"]), words["flight"])
    carrier = await person.sees(words["carrier"])
    await person.taps(carrier, "▶")
    await person.taps(carrier, "◀")
    await person.taps(carrier, "American Airlines")
    await person.sees(words["time"])
    await person.types("17:45")
    distance = await person.sees(words["distance"])
    assert words["bounds"] in distance.text
    await person.types("1389,5")
    await person.taps(await person.sees(words["weather"]), words["rain"])
    return await person.sees(words["price"])


ENGLISH = {
    "which": "Choose a model",
    "flight": "Flight delay · 1 credit",
    "carrier": "question 1 of 4",
    "time": "question 2 of 4",
    "distance": "question 3 of 4",
    "bounds": "More than 0 and at most 5,000.",
    "weather": "question 4 of 4",
    "rain": "Rain",
    "price": "Price: 1 credit. You have 100 credits.",
}
RUSSIAN = {
    "which": "Выберите модель",
    "flight": "Задержка рейса · 1 кредит",
    "carrier": "вопрос 1 из 4",
    "time": "вопрос 2 из 4",
    "distance": "вопрос 3 из 4",
    "bounds": "Больше 0, но не больше 5\u00a0000.",
    "weather": "вопрос 4 из 4",
    "rain": "Дождь",
    "price": "Цена: 1 кредит. У вас 100 кредитов.",
}


async def test_a_whole_conversation_in_english(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    assert "100 credits" in (await ada.sees("Hello, Ada!")).text
    summary = await fill_in_a_flight(ada, ENGLISH)
    assert "Carrier: American Airlines" in summary.text
    await ada.taps(summary, "✔ Send")
    waiting = await ada.sees("Working on it")
    assert waiting.message_id == summary.message_id
    asked = await bot.asked()
    assert asked["input"] == FLIGHT
    await bot.finish(asked["id"], DELAYED)
    result = await ada.sees("73.5%")
    assert result.message_id == waiting.message_id, "edited in place"
    assert "Delayed" in result.text
    assert "▓▓▓▓▓▓▓░░░ 73.5%" in result.text
    assert "1 credit · worker worker-1 · 0.4 s" in result.text
    await ada.types("/balance")
    balance = await ada.sees("You have 99 credits.")
    assert "-1 · paid for a prediction" in balance.text
    assert "held for a prediction" not in balance.text
    await ada.types("/history")
    history = await ada.sees("Your predictions")
    await ada.taps(history, "✅ Flight delay: Delayed · ")
    details = await ada.sees("Departure time: 17:45")
    assert details.message_id == history.message_id
    await ada.types("/help")
    await ada.sees("What I can do")


async def test_a_whole_conversation_in_russian(bot: RunningBot, vera: Person) -> None:
    await vera.types("/start")
    assert "100 кредитов" in (await vera.sees("Здравствуйте, Вера!")).text
    summary = await fill_in_a_flight(vera, RUSSIAN)
    assert "Авиакомпания: American Airlines" in summary.text
    await vera.taps(summary, "✔ Отправить")
    await vera.sees("Считаю")
    asked = await bot.asked()
    assert asked["input"] == FLIGHT
    await bot.finish(asked["id"], {"prediction": 0, "probability": 0.1017})
    result = await vera.sees("Вовремя")
    assert "Вероятность задержки\n▓░░░░░░░░░ 10,2" in result.text
    await vera.types("/balance")
    assert "-1 · оплата прогноза" in (await vera.sees("У вас 99 кредитов.")).text
    await vera.types("/history")
    await vera.taps(await vera.sees("Ваши прогнозы"), "✅ Задержка рейса: Вовремя · ")
    await vera.sees("Время вылета: 17:45")


async def test_a_text_goes_straight_to_the_model_that_reads_texts(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/predict What a <b>lovely</b> flight!")
    await ada.sees("Working on it")
    asked = await bot.asked()
    assert asked["model"] == "sentiment"
    assert asked["input"] == {"text": "What a <b>lovely</b> flight!"}
    shares = {"negative": 0.1, "neutral": 0.2, "positive": 0.7}
    await bot.finish(asked["id"], {"label": "positive", "probabilities": shares})
    result = await ada.sees("Positive")
    assert result.text.index("Positive\n▓▓▓▓▓▓▓░░░ 70%") < result.text.index("Neutral\n▓▓░░░░░░░░ 20%")


async def test_of_several_models_that_read_texts_one_is_chosen(bot: RunningBot, ada: Person) -> None:
    sentiment = bot.app.models["sentiment"]
    bot.app.models["tone"] = {**sentiment, "name": "tone", "title": {"en": "Tone", "ru": "Тон"}}
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/predict What a flight\nand what a crew")
    which = await ada.sees("Choose a model")
    assert [row[0]["text"] for row in which.buttons] == ["Sentiment · 2 credits", "Tone · 2 credits"]
    await ada.types("hm?")
    await ada.sees("To get a prediction")
    await ada.taps(which, "Tone")
    summary = await ada.sees("Text: What a flight and what a crew")
    await ada.taps(summary, "✔ Send")
    asked = await bot.asked()
    assert (asked["model"], asked["input"]) == ("tone", {"text": "What a flight\nand what a crew"})


async def test_many_models_come_in_pages(bot: RunningBot, ada: Person) -> None:
    flight = bot.app.models["flight-delay"]
    for number in range(20):
        many = {"name": f"m{number}", "title": {"en": f"Model {number}", "ru": "М"}, "description": {"en": "d" * 900}}
        bot.app.models[f"m{number}"] = {**flight, **many}
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/models")
    first = await ada.sees("Models")
    assert first.text.endswith("…"), "cut at a line"
    await ada.taps(first, "▶")
    await ada.taps(first, "▶")
    assert "Model 10" in first.text
    await ada.types("/predict")
    which = await ada.sees("Choose a model")
    await ada.taps(which, "▶")
    await ada.taps(which, "Model 4")
    await ada.sees("Model 4 · question 1 of 4")


async def test_models_and_languages(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/models")
    models = await ada.sees("Models")
    assert "Sentiment: 2 credits" in models.text
    await ada.types("/language")
    await ada.taps(await ada.sees("Which language"), "Русский")
    await ada.sees("говорю здесь по-русски")
    await ada.types("/models")
    assert "2 кредита" in (await ada.sees("Доступные модели")).text
    await ada.types("/language en")
    await ada.sees("I now speak English")


async def test_a_prediction_that_fails_says_so_and_costs_nothing(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/predict Hm")
    await ada.sees("Working on it")
    await bot.finish((await bot.asked())["id"], None)
    assert "Nothing was charged." in (await ada.sees("The model failed")).text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("far", "can't read that as a number"),
        ("0", "it has to be more than 0"),
        ("5000.1", "it can be at most 5,000"),
        ("/nonsense", "I don't know this command"),
    ],
)
async def test_wrong_answers_get_a_kind_reply(bot: RunningBot, ada: Person, answer: str, said: str) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Flight delay")
    await ada.taps(await ada.sees("question 1 of 4"), "American Airlines")
    await ada.taps(await ada.sees("question 2 of 4"), "Example: 08:45")
    await ada.sees("question 3 of 4")
    await ada.types(answer)
    again = await ada.sees(said)
    assert "question 3 of 4" in again.text
    await ada.types("550")
    await ada.sees("question 4 of 4")


async def test_back_cancel_and_change_one_thing(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    summary = await fill_in_a_flight(ada, ENGLISH)
    await ada.taps(summary, "Change one field")
    await ada.taps(await ada.sees("Which answer do you want to change?"), "Departure time")
    assert "Now: 17:45" in (await ada.sees("question 2 of 4")).text
    await ada.types("6:05")
    changed = await ada.sees_new("Price: 1 credit", after=summary)
    assert "Departure time: 06:05" in changed.text
    await ada.taps(changed, "← Back")
    await ada.taps(await ada.sees("question 4 of 4"), "✖ Cancel")
    await ada.sees("The form is closed")
    assert bot.app.predictions == {}
    await ada.types("/cancel")
    await ada.sees("No form is open")


async def test_again_and_change_one_thing_of_a_result(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    summary = await fill_in_a_flight(ada, ENGLISH)
    await ada.taps(summary, "✔ Send")
    await ada.sees("Working on it")
    await bot.finish((await bot.asked())["id"], DELAYED)
    result = await ada.sees("73.5%")
    await ada.taps(result, "Again")
    again = await ada.sees_new("You have 99 credits.", after=result)
    await ada.taps(again, "✔ Send")
    await ada.sees_new("Working on it", after=result)
    assert (await bot.asked(2))["input"] == FLIGHT
    await ada.taps(result, "Change one field")
    which = await ada.sees("Which answer do you want to change?")
    await ada.taps(which, "Weather")
    await ada.taps(await ada.sees("question 4 of 4"), "Thunderstorm")
    await ada.taps(await ada.sees_new("You have 98 credits.", after=again), "✔ Send")
    assert (await bot.asked(3))["input"] == {**FLIGHT, "weather_code": 4}


async def test_credits_that_do_not_suffice(bot: RunningBot, ada: Person) -> None:
    bot.app.signup_credits = 1
    await ada.types("/start")
    await ada.sees("1 credit")
    await ada.types("/predict What a flight")
    short = await ada.sees("You don't have enough credits")
    assert "costs 2 credits, and you have 1 credit" in short.text
    bot.app.linked[ada.id].move("top_up", 10, 10, 0)
    await ada.taps(short, "Back to the form")
    await ada.taps(await ada.sees("Price: 2 credits"), "✔ Send")
    await ada.sees("Working on it")


async def test_whoever_wants_to_be_told_that_credits_run_low(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/settings")
    settings = await ada.sees("Low balance alert: off")
    await ada.taps(settings, "below 20")
    await ada.sees("Low balance alert: below 20 credits")
    assert bot.app.linked[ada.id].threshold == 20
    await ada.taps(settings, "off")
    await ada.sees("Low balance alert: off")
    assert bot.app.linked[ada.id].threshold is None


async def test_what_is_held_is_told_until_it_is_paid(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    account = bot.app.linked[ada.id]
    first, second, failed = (bot.app.new_prediction(account, "sentiment", {"text": "a"}) for _ in range(3))
    bot.app.finish(first["id"], {"label": "positive"})
    bot.app.finish(failed["id"], None)
    await ada.types("/balance")
    said = (await ada.sees("Recent transactions")).text.splitlines()
    assert [line.rsplit(" · ", 1)[0] for line in said if " · " in line] == [
        "+2 · returned",
        "-2 · paid for a prediction",
        "-2 · held for a prediction",
        "-2 · held for a prediction",
        "+100 · gift",
    ]
    assert second["status"] == "queued"


async def test_in_a_group_nobody_hears_of_a_balance(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    ada.joins(-100)
    await ada.types("/balance", chat=-100)
    assert (await ada.sees("balance", chat=-100)).text == "I show your balance in private only: write to me there."


async def test_in_a_group_nobody_hears_what_was_asked(bot: RunningBot, ada: Person) -> None:
    await ada.types("/start")
    await ada.sees("Hello")
    ada.joins(-100)
    await ada.types("/history", chat=-100)
    said = await ada.sees("predictions", chat=-100)
    assert said.text == "I show your predictions in private only: write to me there."
    # Pages that an earlier release showed there.
    for data in ("h:0", "h:1", f"d:{'0' * 32}:0"):
        tap = await ada.tap_data(said, data)
        assert (await ada.answer_to(tap))["text"] == "I show your predictions in private only: write to me there."
    assert bot.telegram.posts_in(-100) == [said]


async def test_the_example_is_in_the_language_of_whoever_is_asked(bot: RunningBot, ada: Person, vera: Person) -> None:
    for person, which, model, example in (
        (ada, "Choose a model", "Sentiment", "Example: The crew was kind"),
        (vera, "Выберите модель", "Тональность", "Пример: Экипаж был вежлив"),
    ):
        await person.types("/start")
        await person.types("/predict")
        await person.taps(await person.sees(which), model)
        question = await person.sees("1 of 1" if person is ada else "1 из 1")
        await person.taps(question, example)
        assert example[-9:] in (await person.sees("Price: 2" if person is ada else "Цена: 2")).text


@pytest.mark.parametrize("where", ["in the chat", "on the page"])
async def test_what_belonged_to_the_account_does_not_go_to_the_next_one(
    bot: RunningBot, ada: Person, where: str
) -> None:
    """Its wish to get all results, its history's pages, its unfinished forms, also in groups; the language stays."""
    await ada.types("/start")
    await ada.sees("Hello")
    await ada.types("/language ru")
    await ada.sees("по-русски")
    for _ in range(6):
        bot.app.new_prediction(bot.app.linked[ada.id], "sentiment", {"text": "a"})
    await ada.types("/history")
    history = await ada.sees("Ваши прогнозы")
    ada.joins(-100)
    await ada.types("/predict", chat=-100)
    await ada.taps(await ada.sees("Choose a model", chat=-100), "Sentiment")
    form = await ada.sees("1 of 1", chat=-100)
    await ada.types("/settings")
    settings = await ada.sees("Настройки")
    await ada.taps(settings, "Сообщать здесь все результаты")
    if where == "in the chat":
        await ada.taps(settings, "Отвязать этот счёт")
        await ada.taps(await ada.sees("Отвязать этот чат от счёта?"), "Да, отвязать")
        await ada.sees("Чат отвязан")
    else:
        del bot.app.linked[ada.id]
        await ada.types("/balance")
        await ada.sees("/start")
    # An old button of the settings changes nothing for the next account either.
    await ada.answer_to(await ada.tap_data(settings, "set:elsewhere"))
    bot.app.codes["next"] = bot.app.new_account("next")
    await ada.types("/start next")
    await ada.sees("next")
    await ada.types("/settings")
    again = await ada.sees_new("Настройки", after=settings)
    assert "в других местах: нет" in again.text
    assert "Эта кнопка устарела" in (await ada.taps(history, "▶"))["text"]
    assert (
        "it has ended" in (await ada.answer_to(await ada.tap_data(form, form.buttons[0][0]["callback_data"])))["text"]
    )


async def test_linking_and_unlinking(bot: RunningBot, ada: Person, vera: Person) -> None:
    await ada.types("/predict")
    await ada.sees("No account is linked to this chat")
    bot.app.codes["one-time"] = bot.app.new_account("ada")
    await ada.types("/start wrong")
    await ada.sees("This link no longer works")
    await ada.types("/start one-time")
    assert "ada" in (await ada.sees("this chat now uses the account")).text
    assert bot.app.names[ada.id] == "Ada"
    await vera.types("/start")
    await vera.sees("Здравствуйте")
    await vera.types("/start one-time")
    await vera.sees("связан с другим счётом")
    await ada.types("/settings")
    settings = await ada.sees("Account: ada")
    await ada.taps(settings, "Unlink")
    await ada.taps(await ada.sees("Unlink this chat from its account?"), "Yes, unlink")
    await ada.sees("This chat is unlinked")
    assert ada.id not in bot.app.linked
    await ada.types("/balance")
    await ada.sees_new("No account is linked to this chat", after=settings)
