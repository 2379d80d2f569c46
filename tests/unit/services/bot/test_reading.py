"""What people write, as values of fields."""

from typing import Any

import pytest

from foretell.contracts.fields import Choice, Field, Words
from foretell.services.bot.filling.reading import DoesNotFit, read

CHOICES = [
    Choice("AA", Words("American Airlines", "Американ")),
    Choice("AS", Words("Alaska", "Аляска")),
    Choice(3, Words("Rain", "Дождь")),
]


def field(kind: Any, **more: Any) -> Field:
    """A field of that kind."""
    return Field(name="a", kind=kind, title=Words("A", "А"), description=None, required=True, nullable=False, **more)


@pytest.mark.parametrize(
    ("text", "language", "value"),
    [
        ("550", "en", 550.0),
        ("1,389.5", "en", 1389.5),
        ("1,389", "en", 1389.0),
        ("1 389,5", "ru", 1389.5),
        ("1\u00a0389,5", "ru", 1389.5),
        ("1,389", "ru", 1.389),
        ("−5", "ru", -5.0),
        (".5", "en", 0.5),
        ("0,5", "en", 0.5),
    ],
)
def test_numbers(text: str, language: str, value: float) -> None:
    assert read(field("number"), text, language) == value


@pytest.mark.parametrize("text", ["", "far", "1e999", "inf", "nan", "1,2,3,4", "5 miles", "0x10", "٣٤٫", "9" * 60])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(DoesNotFit, match="wrong"):
        read(field("number"), text, "en")


def test_whole_numbers() -> None:
    assert read(field("integer"), "7.0", "en") == 7
    assert isinstance(read(field("integer"), "7", "en"), int)
    with pytest.raises(DoesNotFit, match=r"wrong\.integer"):
        read(field("integer"), "7.5", "en")


@pytest.mark.parametrize(
    ("bounds", "text", "key"),
    [
        ({"minimum": 0}, "-1", "minimum"),
        ({"exclusive_minimum": 0}, "0", "exclusive_minimum"),
        ({"maximum": 10}, "10.5", "maximum"),
        ({"exclusive_maximum": 10}, "10", "exclusive_maximum"),
        ({"multiple_of": 0.1}, "0.25", "multiple_of"),
    ],
)
def test_bounds(bounds: dict[str, float], text: str, key: str) -> None:
    with pytest.raises(DoesNotFit) as wrong:
        read(field("number", **bounds), text, "en")
    assert wrong.value.key == f"wrong.{key}"
    assert wrong.value.values == {"bound": next(iter(bounds.values()))}
    assert read(field("number", multiple_of=0.1), "0.3", "en") == 0.3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8:45", "08:45"),
        ("08.45", "08:45"),
        ("845", "08:45"),
        ("1745", "17:45"),
        ("8", "08:00"),
        ("5:30 pm", "17:30"),
        ("12:10am", "00:10"),
        ("12 pm", "12:00"),
        ("8:45:30", "08:45:30"),
    ],
)
def test_times(text: str, value: str) -> None:
    assert read(field("time"), text, "en") == value


@pytest.mark.parametrize("text", ["", "25:00", "8:60", "soon", "8:4", "13:00:99", "99"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(DoesNotFit):
        read(field("time"), text, "en")


def test_dates() -> None:
    assert {read(field("date"), text, "ru") for text in ("2026-03-31", "31.03.2026", "31/03/2026")} == {"2026-03-31"}
    assert read(field("datetime"), "31.03.2026 8:45", "ru") == "2026-03-31T08:45:00+00:00"
    assert read(field("datetime"), "2026-03-31T08:45:00+03:00", "ru") == "2026-03-31T08:45:00+03:00"
    for text in ("31.02.2026", "tomorrow", "2026-13-01", "31.03.2026 noon"):
        with pytest.raises(DoesNotFit):
            read(field("date"), text, "en")
        with pytest.raises(DoesNotFit):
            read(field("datetime"), text, "en")


@pytest.mark.parametrize(("text", "value"), [("aa", "AA"), ("Американ", "AA"), ("alaska", "AS"), ("дож", 3), ("3", 3)])
def test_choices_by_value_label_or_beginning(text: str, value: Any) -> None:
    assert read(field("choice", choices=CHOICES), text, "en") == value


@pytest.mark.parametrize("text", ["", "a", "Lufthansa"])
def test_what_is_no_choice(text: str) -> None:
    with pytest.raises(DoesNotFit):
        read(field("choice", choices=CHOICES), text, "en")


def test_yes_and_no() -> None:
    assert [read(field("boolean"), text, "ru") for text in ("да", "НЕТ", "yes", "0")] == [True, False, True, False]
    with pytest.raises(DoesNotFit):
        read(field("boolean"), "perhaps", "en")


def test_lists() -> None:
    numbers = field("list", items=field("number", maximum=5), max_items=3)
    assert read(numbers, "1, 2.5", "en") == [1.0, 2.5]
    assert read(numbers, "1,5\n2", "ru") == [1.5, 2.0]
    assert read(numbers, "[1, 2]", "en") == [1, 2]
    for text in ("1, 2, 3, 4", "1, 9", "[1, 9]", "a", "[1, ", '["a"]'):
        with pytest.raises(DoesNotFit):
            read(numbers, text, "en")


def test_json() -> None:
    assert read(field("json"), '{"a": [1]}', "en") == {"a": [1]}
    for text in ("{", "hello", "[" * 100_000, "\ud800"):
        with pytest.raises(DoesNotFit, match=r"wrong\.json"):
            read(field("object"), text, "en")


def test_texts() -> None:
    text = field("text", min_length=2, max_length=4)
    assert read(text, " abcd ", "en") == "abcd"
    for wrong in ("a", "abcde"):
        with pytest.raises(DoesNotFit):
            read(text, wrong, "en")
