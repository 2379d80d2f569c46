"""Nothing invisible and nothing endless."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.services.monitoring.intake.text import (
    MAX_MESSAGE_BYTES,
    MAX_NAME,
    Names,
    json_visible,
    message_of,
    visible,
)

HIDDEN = [
    chr(each) for each in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0x202A, 0x202E, 0x2066, 0x200F)
]


def test_usual_text_stays_as_it_is() -> None:
    for text in ("", "plain", "Привет, мир!", "日本語 🎉 👩‍👩‍👧", "a\u00a0b", "back\\slash"):
        assert visible(text) == text


@pytest.mark.parametrize("character", HIDDEN)
def test_what_is_not_seen_is_shown(character: str) -> None:
    shown = visible(f"a{character}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert character not in json_visible(f'{{"x":"{character}"}}') or character < " "


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_no_text_has_more_than_one_line(text: str) -> None:
    assert len(message_of(text).splitlines()) <= 1
    assert "\0" not in message_of(text)


@given(st.integers(min_value=MAX_MESSAGE_BYTES - 20, max_value=MAX_MESSAGE_BYTES + 20), st.sampled_from("xü日🎉\n"))
def test_a_message_is_cut_between_characters_with_its_length(size: int, character: str) -> None:
    width = len(character.encode())
    text = character * (size // width)
    kept = message_of(text)
    if len(text.encode()) <= MAX_MESSAGE_BYTES and character != "\n":
        assert kept == text
    if len(text.encode()) > MAX_MESSAGE_BYTES:
        assert kept.endswith(f" …[cut: the message had {len(text.encode())} bytes]")
    assert len(kept.encode()) < MAX_MESSAGE_BYTES + 100


def test_names_are_short_and_visible() -> None:
    names = Names(remembered=1)
    for good in ("app", "ml_worker", "service with spaces", "сервис"):
        assert names.fault(good) is None
        assert names.fault(good) is None
    for bad in ("", " ", "a\n", "a\0", "\x1b[31m", "x" * (MAX_NAME + 1)):
        assert names.fault(bad)
