"""The catalogues: both languages say the same things, and nothing is said that is in neither."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter

import pytest

import foretell.services.bot
from foretell.contracts.fields import Words as FieldWords
from foretell.services.bot.filling import reading
from foretell.services.bot.words import LANGUAGES, Marked, Words, catalogue, language_of

SOURCES = Path(foretell.services.bot.__file__).parent
CYRILLIC = re.compile("[а-яёА-ЯЁ]")
#: Words of a person that are read, not said.
READ_NOT_SAID = {Path(reading.__file__)}
#: What is said above a button.
NOTES = {
    *(
        "button.old",
        "form.ended",
        "form.step_past",
        "form.sent",
        "form.model_away",
        "form.below",
        "models.gone",
        "history.gone",
        "history.not_repeatable",
    ),
    *("error.away", "error.ours", "stars.offer_ended", "stars.private", "start.first"),
}
_TAGS = re.compile(r"</?(\w+)>")


def texts_of(language: str) -> dict[str, tuple[str, ...]]:
    """All texts by their keys, each with its plural forms."""
    found = {}
    for message in catalogue(language):
        if message.id:
            key = message.id if isinstance(message.id, str) else message.id[0]
            found[key] = (message.string,) if isinstance(message.string, str) else tuple(message.string)
    return found


def names_in(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def keys_in_code() -> Iterator[str]:
    """Every text in the code that looks like a key: `group.name`."""
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                yield f"{node.values[0].value}*"


def test_both_languages_have_the_same_texts_with_the_same_names_and_tags() -> None:
    english, russian = texts_of("en"), texts_of("ru")
    assert english.keys() == russian.keys()
    for key, forms in english.items():
        for text in (*forms, *russian[key]):
            assert text, key
            assert names_in(text) == names_in(forms[0]), key
            assert sorted(_TAGS.findall(text)) == sorted(_TAGS.findall(forms[0])), key


def test_russian_has_three_plural_forms() -> None:
    several = {key: len(forms) for key, forms in texts_of("ru").items() if len(forms) > 1}
    assert {key: count for key, count in several.items() if not key.startswith("unit.")} == dict.fromkeys(
        ("credits", "stars", "bounds.max_length", "bounds.min_items", "bounds.max_items"), 3
    )
    assert set(several.values()) == {3}
    words = Words("ru")
    assert [words.count("credits", number) for number in (1, 2, 5, 11, 21, 1000)] == [
        "1 кредит",
        "2 кредита",
        "5 кредитов",
        "11 кредитов",
        "21 кредит",
        "1\u00a0000 кредитов",
    ]
    assert [Words("en").count("credits", number) for number in (1, 2, 1000)] == [
        "1 credit",
        "2 credits",
        "1,000 credits",
    ]


def test_numbers_stand_with_the_form_of_their_unit_that_fits() -> None:
    miles, furlongs = FieldWords(en="miles", ru="мили"), FieldWords(en="furlongs", ru="фурлонги")
    english, russian = Words("en"), Words("ru")
    assert [english.measure(value, miles) for value in (1, 1.0, 550.0, 0.5, 0)] == [
        *("1 mile", "1 mile", "550 miles", "0.5 miles", "0 miles"),
    ]
    assert [russian.measure(value, miles) for value in (1, 2, 5, 11, 21, 1500, 1.5, -3, 0)] == [
        *("1 миля", "2 мили", "5 миль", "11 миль", "21 миля", "1\u00a0500 миль", "1,5 мили", "-3 мили", "0 миль"),
    ]
    # A unit that the catalogue does not know is there in one form only.
    assert (english.measure(3, furlongs), russian.measure(3, furlongs)) == ("3 (furlongs)", "3 (фурлонги)")
    assert {key.removeprefix("unit.") for key in texts_of("en") if key.startswith("unit.")} >= {"miles", "minutes"}


def test_every_text_is_said_somewhere_and_every_key_has_a_text() -> None:
    said = set(keys_in_code())
    groups = tuple(each.removesuffix("*") for each in said if each.endswith(".*"))
    texts = texts_of("en")
    assert [key for key in texts if key not in said and not key.startswith(groups)] == []
    known = {key.partition(".")[0] for key in texts if "." in key}
    looks_like_a_key = re.compile(rf"({'|'.join(sorted(known))})\.[a-z_]+(\.[a-z_]+)?")
    events = {"endpoint.disabled", "balance.low", "prediction.finished"}
    assert {each for each in said if looks_like_a_key.fullmatch(each)} - texts.keys() - events == set()


def test_no_text_of_a_language_stands_in_the_code() -> None:
    found = [
        f"{file.name}: {node.value}"
        for file in set(SOURCES.rglob("*.py")) - READ_NOT_SAID
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CYRILLIC.search(node.value)
    ]
    assert found == []


@pytest.mark.parametrize("code", [None, "", "de", "en", "en-GB", "uk"])
def test_whoever_does_not_speak_russian_is_spoken_to_in_english(code: str | None) -> None:
    assert language_of(code) == "en"


@pytest.mark.parametrize("code", ["ru", "RU", "ru-RU"])
def test_russian_by_the_language_of_telegram(code: str) -> None:
    assert language_of(code) == "ru"


def test_what_is_put_in_is_escaped_unless_it_is_marked() -> None:
    words = Words("en")
    assert words("value.as_is", value="<b>&") == "&lt;b&gt;&amp;"
    assert words("value.as_is", value=Marked("<b>a</b>")) == "<b>a</b>"
    assert words.plain("button.example", value="<b>") == "Example: <b>"
    assert words.of({"en": "<a>", "ru": "<б>"}) == "&lt;a&gt;"


def test_numbers_and_times_are_written_as_one_writes_them() -> None:
    moment = datetime(2026, 11, 28, 18, 5, tzinfo=UTC)
    assert (Words("en").number(1389.5), Words("ru").number(1389.5)) == ("1,389.5", "1\u00a0389,5")
    assert (Words("en").percent(0.735), Words("ru").percent(0.735)) == ("73.5%", "73,5%")
    assert (Words("en").moment(moment), Words("ru").moment(moment)) == (
        "28 Nov 2026, 18:05 UTC",
        "28 нояб. 2026, 18:05 UTC",
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_buttons_and_notes_to_taps_hold_what_telegram_takes(language: str) -> None:
    for key, forms in texts_of(language).items():
        if key.startswith("command."):
            assert all(3 <= len(text) <= 256 for text in forms), key
        if key in (
            "button.old",
            "form.ended",
            "form.step_past",
            "models.gone",
            "history.gone",
            "error.away",
            "error.ours",
        ):
            assert all(len(text) <= 200 for text in forms), key
