"""Questions as people read them."""

from typing import Any

import pytest

from foretell.contracts.fields import Field, fields_of
from foretell.services.bot.filling.asking import bounds, complaint, question, said
from foretell.services.bot.filling.form import Form
from foretell.services.bot.filling.reading import DoesNotFit, read
from foretell.services.bot.models import Model
from foretell.services.bot.words import Words


def field_of(schema: dict[str, Any], *, required: bool = True) -> Field:
    """The only field of a form."""
    needed = ["x"] if required else []
    (field,) = fields_of(
        {"type": "object", "properties": {"x": {"title": "X", "x-title-ru": "Икс", **schema}}, "required": needed}
    )
    return field


def asked(field: Field, language: str) -> tuple[str, list[str]]:
    """The question, and its buttons."""
    names = {"en": "M", "ru": "М"}
    model = Model("m", "1.0.0", 1, title=names, description=names, labels={}, fields=[field])
    text, keyboard = question(Form("id", "m", "1.0.0"), model, Words(language), private=True)
    return text, [button.text for row in keyboard.rows for button in row]


@pytest.mark.parametrize(
    ("schema", "english", "russian"),
    [
        ({"minimum": 1, "maximum": 9}, "From 1 to 9.", "От 1 до 9."),
        (
            {"exclusiveMinimum": 0, "maximum": 5000},
            "More than 0 and at most 5,000.",
            "Больше 0, но не больше 5\u00a0000.",
        ),
        (
            {"minimum": 0.5, "exclusiveMaximum": 1},
            "At least 0.5 and less than 1.",
            "Не меньше 0,5, но меньше 1.",
        ),
        (
            {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "More than 0 and less than 1.",
            "Больше 0, но меньше 1.",
        ),
        ({"exclusiveMinimum": 0}, "More than 0.", "Больше 0."),
        ({"maximum": 9, "multipleOf": 3}, "At most 9. In steps of 3.", "Не больше 9. С шагом 3."),
        ({}, "", ""),
    ],
)
def test_bounds_are_one_sentence(schema: dict[str, float], english: str, russian: str) -> None:
    field = field_of({"type": "number", **schema})
    assert (bounds(field, Words("en")), bounds(field, Words("ru"))) == (english, russian)


COLOURS = {"type": "array", "minItems": 1, "maxItems": 2, "items": {"enum": ["red", "<b>"]}}
BAG = {
    "type": "object",
    "properties": {
        "kg": {"type": "number", "maximum": 30, "title": "Weight", "x-title-ru": "Вес"},
        "kind": {"enum": ["soft", "hard"]},
    },
    "required": ["kg"],
}


@pytest.mark.parametrize(
    ("schema", "value", "english", "russian"),
    [
        ({"type": "string", "format": "date"}, "2026-12-31", "2026-12-31", "31.12.2026"),
        (
            {"type": "string", "format": "date-time"},
            "2026-12-31T08:45:00+01:00",
            "31 Dec 2026, 07:45 UTC",
            "31 дек. 2026, 07:45 UTC",
        ),
        # What a program sent, as the app let it pass.
        ({"type": "string", "x-format": "date"}, "someday", "someday", "someday"),
        ({"type": "string", "x-format": "date-time"}, "2026-12-31T08:45", "2026-12-31T08:45", "2026-12-31T08:45"),
        ({"type": "array", "items": {"type": "boolean"}}, [True, False], "yes, no", "да, нет"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, [[1]], "[[1]]", "[[1]]"),
        (BAG, {"kg": 1}, '{"kg": 1}', '{"kg": 1}'),
    ],
)
def test_values_are_said_as_people_write_them(schema: dict[str, Any], value: Any, english: str, russian: str) -> None:
    field = field_of(schema)
    assert (said(field, value, Words("en")), said(field, value, Words("ru"))) == (english, russian)


def test_a_list_says_how_many_of_what() -> None:
    assert "At least 1 item. At most 2 items. Each item: red, &lt;b&gt;" in asked(field_of(COLOURS), "en")[0]
    assert (
        "Не меньше 1 значения. Не больше 2 значений. Каждое значение: red, &lt;b&gt;"
        in asked(field_of(COLOURS), "ru")[0]
    )
    shares = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}}
    assert "Each item: From 0 to 1." in asked(field_of(shares), "en")[0]


def test_an_object_says_its_keys() -> None:
    assert '<code>{"kg": …, "kind": …}</code>' in asked(field_of(BAG), "ru")[0]


@pytest.mark.parametrize(
    ("schema", "text", "english", "russian"),
    [
        (COLOURS, "red, blue", "X: it is not one of the possible values.", "Икс: такого значения нет среди возможных."),
        (
            BAG,
            '{"kg": 31}',
            "Weight: That is too much: it can be at most 30.",
            "Вес: Это слишком много: нужно не больше 30.",
        ),
        (BAG, "{}", "Weight: An answer is needed here.", "Вес: Здесь нужен ответ."),
        (BAG, "[]", "It has to be a JSON object in braces.", "Нужен объект JSON в фигурных скобках."),
        (
            {"type": "array", "items": BAG},
            '[{"kg": 1}, {"kg": "2"}]',
            "X: Weight: I can't read that as a number. Digits only, please: 550 or 0.5.",
            "Икс: Вес: Не могу прочесть это как число. Пожалуйста, только цифры: 550 или 0,5.",
        ),
    ],
)
def test_what_is_wrong_within_a_value_is_named(schema: dict[str, Any], text: str, english: str, russian: str) -> None:
    for language, expected in (("en", english), ("ru", russian)):
        with pytest.raises(DoesNotFit) as wrong:
            read(field_of(schema), text, language)
        assert complaint(wrong.value, Words(language)) == expected


def test_no_button_says_what_another_one_says() -> None:
    note = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    tags = {"type": "array", "items": {"type": "string"}, "default": []}
    for schema in (note, tags, {"type": "string", "default": ""}):
        assert asked(field_of(schema, required=False), "en")[1] == ["Skip", "✖ Cancel"]
    assert asked(field_of({"type": "boolean", "examples": [True]}), "en")[1] == ["yes", "no", "✖ Cancel"]
    assert asked(field_of({"type": "integer", "default": 3}), "en")[1] == ["Usual: 3", "✖ Cancel"]
