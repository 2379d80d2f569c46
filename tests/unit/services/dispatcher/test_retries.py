"""How often something is tried again: soon at first, for a day at least, and never at the same moment as all others."""

from foretell.services.dispatcher.notifying.retries import GIVEN_UP_AFTER, pause_s


def test_pauses_grow_to_an_hour() -> None:
    for failures, usual in ((1, 5.0), (2, 30.0), (5, 900.0), (7, 3600.0), (500, 3600.0)):
        drawn = [pause_s(failures, for_bot=False) for _ in range(200)]
        assert min(drawn) >= 0.8 * usual
        assert max(drawn) <= 1.2 * usual
        # Spread, so that those that failed together do not come back together.
        assert max(drawn) - min(drawn) > 0.1 * usual


def test_a_day_has_some_twenty_attempts() -> None:
    passed, failures = 0.0, 0
    while passed < GIVEN_UP_AFTER.total_seconds():
        failures += 1
        passed += pause_s(failures, for_bot=False)
    assert 20 <= failures <= 40


def test_what_is_asked_for_is_heeded_up_to_an_hour() -> None:
    assert pause_s(1, for_bot=False, asked_for_s=120.0) == 120.0
    assert pause_s(1, for_bot=False, asked_for_s=10**9) == 3600.0
    assert pause_s(7, for_bot=False, asked_for_s=1.0) >= 2880.0


def test_the_bot_is_asked_again_within_a_minute_or_so() -> None:
    assert max(pause_s(50, for_bot=True) for _ in range(200)) <= 72.0
