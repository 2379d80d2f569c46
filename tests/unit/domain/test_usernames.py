"""User names: which are allowed and which are the same."""

import pytest

from foretell.domain.accounts.usernames import username_key
from foretell.domain.errors import InvalidUsername


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna", "anna"),
        ("ﬁona", "fiona"),
        ("Straße", "STRASSE"),
        ("Ёлка", "ё" + "лка"),
        ("ａｎｎａ", "anna"),
        ("é" + "ric", "É" + "ric"),
    ],
)
def test_names_that_look_alike_are_one_name(one: str, other: str) -> None:
    assert username_key(one) == username_key(other)


@pytest.mark.parametrize("username", ["abc", "a.b_c-d@e+f", "мария", "李小龙", "x" * 64, "test"])
def test_usual_names_are_allowed(username: str) -> None:
    assert username_key(username)


@pytest.mark.parametrize(
    "username",
    [
        "",
        "ab",
        "x" * 65,
        "x" * 1_000_000,
        "an na",
        "anna\0",
        "anna\n",
        "anna\u200b",
        "\u202eanna",
        "an/na",
        "<b>anna",
        "ﷺ" * 20,  # 18 characters each, once normalised
        "\ud800abc",
    ],
)
def test_other_names_are_refused(username: str) -> None:
    with pytest.raises(InvalidUsername):
        username_key(username)
