"""Errors explain themselves: the docstring is the message, and its fields are details."""

from typing import ClassVar

import pytest

from foretell.kit.errors import ForetellError, Overloaded, Unavailable


class TooFar(ForetellError):
    """It is {distance} miles to {place}, which is too far.

    This paragraph is for programmers.
    """

    code: ClassVar[str] = "too_far"
    status = 422


class Unexplained(ForetellError):
    pass


Unexplained.__doc__ = None


def test_the_first_line_is_the_message_and_the_fields_travel_as_details() -> None:
    error = TooFar(distance=30, place="Rome")
    assert str(error) == error.message == "It is 30 miles to Rome, which is too far."
    assert error.details == {"distance": 30, "place": "Rome"}
    assert (error.code, error.status, error.retry_after_s) == ("too_far", 422, None)


def test_a_value_in_braces_is_no_template() -> None:
    assert TooFar(distance="{place}", place="{0}").message == "It is {place} miles to {0}, which is too far."


@pytest.mark.parametrize("message", ["{nobody} is here", "{", "100%", "{0.__class__}"])
def test_a_message_of_ones_own_is_taken_to_the_letter(message: str) -> None:
    assert ForetellError(message, place="Rome").message == message


def test_the_pause_can_be_set_for_one_error_and_not_for_its_kind() -> None:
    assert Overloaded(retry_after_s=7.5).retry_after_s == 7.5
    assert Overloaded().retry_after_s == 1.0


def test_a_field_that_was_forgotten_is_noticed() -> None:
    with pytest.raises(KeyError):
        Unavailable()
    assert Unavailable(part="database").message.count("database") == 1


def test_an_error_without_words_has_its_name() -> None:
    assert Unexplained().message == "Unexplained"
