"""What a prediction that failed says, in the language of whoever reads it."""

from dataclasses import replace
from typing import Any

import pytest
from tests.telegram.app_stand_in import shipped_model

from foretell.services.bot.models import Model, _model
from foretell.services.bot.results import headline, outcome_message
from foretell.services.bot.words import Words

ENGLISH = "carrier must be one of 9E, AA; distance must be at most 5000; dep_hour is missing."


@pytest.fixture
def model() -> Model:
    return _model(shipped_model("flight_delay"))


def failed(values: Any, code: str = "invalid_input", message: str = ENGLISH) -> dict[str, Any]:
    return {
        "id": "0192f0c1-0000-7000-8000-000000000000",
        "model": "flight-delay",
        "status": "failed",
        "error": {"code": code, "message": message},
        "input": values,
        "price": 1,
        "created_at": "2026-01-31T09:30:00+00:00",
    }


def test_what_is_wrong_is_said_field_by_field_in_the_readers_language(model: Model) -> None:
    values = {"carrier": "ZZ", "departure_time": "17:45", "distance_miles": 9000.0}
    said, _ = outcome_message(failed(values), model, Words("ru"))
    assert "Модель не смогла использовать данные:" in said
    assert "• Авиакомпания: такого значения нет среди возможных." in said
    assert "• Расстояние: Это слишком много: нужно не больше 5\u00a0000." in said
    assert "Ничего не списано." in said
    assert "must be" not in said
    assert "is missing" not in said
    english, _ = outcome_message(failed(values), model, Words("en"))
    assert "not one of the possible values" in english


def test_what_is_missing_is_named(model: Model) -> None:
    said, _ = outcome_message(failed({"carrier": "AA", "departure_time": "17:45"}), model, Words("ru"))
    assert "• Расстояние: Здесь нужен ответ." in said


@pytest.mark.parametrize(
    "values", [{"carrier": "AA", "departure_time": "17:45", "distance_miles": 550.0, "weather_code": 1}, None]
)
def test_where_the_fields_say_nothing_the_models_own_reason_is_quoted(model: Model, values: Any) -> None:
    said, _ = outcome_message(failed(values, message="carrier AA did not fly <then>."), model, Words("ru"))
    assert "Модель не смогла использовать данные. Она сообщила: «carrier AA did not fly &lt;then&gt;.»" in said
    unknown, _ = outcome_message(failed(values, code="odd", message="Odd."), None, Words("ru"))
    assert "Не удалось. Сервис сообщил: «Odd.»" in unknown


def test_the_label_is_the_headline_as_plain_text(model: Model) -> None:
    prediction = {"output": {"prediction": 1, "probability": 0.9}}
    assert headline(prediction, model, Words("ru")) == "Задержка"
    odd = replace(model, labels={"1": {"en": "<late> & lost", "ru": ""}})
    assert headline(prediction, odd, Words("en")) == "<late> & lost"
    assert headline(prediction, None, Words("en")) == ""
    assert headline({"output": {"probability": 0.9}}, model, Words("en")) == ""
    assert headline(failed({}), model, Words("en")) == ""
