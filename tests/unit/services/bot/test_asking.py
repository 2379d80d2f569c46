"""Questions as people read them."""

import pytest

from foretell.contracts.fields import fields_of
from foretell.services.bot.filling.asking import bounds
from foretell.services.bot.words import Words


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
    (field,) = fields_of({"type": "object", "properties": {"x": {"type": "number", **schema}}})
    assert (bounds(field, Words("en")), bounds(field, Words("ru"))) == (english, russian)
