"""Whole conversations with everything real but Telegram: app, workers, dispatcher and bot as processes."""

import asyncio
from pathlib import Path

from tests.services_system import Backends
from tests.telegram.people import Person
from tests.telegram.server import telegram_server
from tests.telegram.system import bot_system

ENGLISH = {
    "hello": "Hello, Ada!",
    "grant": "100 credits",
    "low": "Low balance alert",
    "below": "below 100",
    "is low": "Your balance is low: 99 credits left.",
    "which": "Choose a model",
    "flight": "Flight delay",
    "carrier": "EV",
    "questions": "question {} of 4",
    "storm": "Thunderstorm",
    "send": "✔ Send",
    "delayed": "Delayed",
    "balance": "You have 99 credits.",
    "paid": "paid for a prediction",
    "text": "/predict What a lovely flight, thank you!",
    "positive": "Positive",
    "left": "You have 97 credits.",
    "history": "Your predictions",
    "details": "Departure time: 19:30",
    "again": "Again",
    "changed": "You have 97 credits.",
}
RUSSIAN = {
    "hello": "Здравствуйте, Вера!",
    "grant": "100 кредитов",
    "low": "Сообщать о низком балансе",
    "below": "меньше 100",
    "is low": "Кредиты заканчиваются. На вашем счёте 99 кредитов.",
    "which": "Выберите модель",
    "flight": "Задержка рейса",
    "carrier": "EV",
    "questions": "вопрос {} из 4",
    "storm": "Гроза",
    "send": "✔ Отправить",
    "delayed": "Задержка",
    "balance": "У вас 99 кредитов.",
    "paid": "оплата прогноза",
    "text": "/predict Отличный рейс, экипаж очень вежливый, спасибо!",
    "positive": "Положительная",
    "left": "У вас 97 кредитов.",
    "history": "Ваши прогнозы",
    "details": "Время вылета: 19:30",
    "again": "Ещё раз",
    "changed": "У вас 97 кредитов.",
}


async def converse(person: Person, words: dict[str, str]) -> None:
    """Start, predict, result, balance, a text, history, and the way to the same again."""
    await person.types("/start")
    assert words["grant"] in (await person.sees(words["hello"])).text
    await person.types("/settings")
    await person.taps(await person.sees(words["low"]), words["below"])
    await person.types("/predict")
    await person.taps(await person.sees(words["which"]), words["flight"])
    await person.sees(words["questions"].format(1))
    await person.types(words["carrier"])
    await person.sees(words["questions"].format(2))
    await person.types("19:30")
    await person.sees(words["questions"].format(3))
    await person.types("229")
    await person.taps(await person.sees(words["questions"].format(4)), words["storm"])
    summary = await person.sees(words["grant"])
    await person.taps(summary, words["send"])
    result = await person.sees("▓▓▓▓▓▓▓░░░ 73")
    assert result.message_id == summary.message_id
    assert words["delayed"] in result.text
    await person.sees(words["is low"])
    await person.types("/balance")
    assert words["paid"] in (await person.sees(words["balance"])).text
    await person.types(words["text"])
    await person.sees(words["positive"])
    await person.types("/balance")
    await person.sees(words["left"])
    await person.types("/history")
    history = await person.sees(words["history"])
    assert sum(len(row) for row in history.buttons) == 2
    await person.taps(history, f"✅ {words['flight']}")
    details = await person.sees(words["details"])
    await person.taps(details, words["again"])
    again = await person.sees_new(words["changed"], after=details)
    assert "19:30" in again.text


async def test_whole_conversations_in_both_languages(backends: Backends, tmp_path: Path) -> None:
    async with (
        telegram_server() as telegram,
        # The dispatcher alone tells of results.
        bot_system(backends, tmp_path, telegram, FORETELL_BOT_LOOK_AFTER_S="3600") as system,
    ):
        ada, vera = Person(telegram, 1001, name="Ada"), Person(telegram, 1002, language="ru", name="Вера")
        await asyncio.gather(converse(ada, ENGLISH), converse(vera, RUSSIAN))
        assert await system.audit() == []
        assert await system.count() == 4
