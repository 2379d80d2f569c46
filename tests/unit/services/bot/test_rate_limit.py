"""How fast the bot may speak, by a clock of the test."""

import pytest

from foretell.services.bot.telegram.rate_limit import RateLimit


class Clock:
    """Time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pace_by(clock: Clock) -> RateLimit:
    return RateLimit(30, 1, clock=clock.time, sleep=clock.sleep)


async def test_the_first_message_goes_at_once(clock: Clock) -> None:
    await pace_by(clock).turn(1, answering=False)
    assert clock.now == 100.0


async def test_a_chat_hears_one_a_second_and_all_together_thirty(clock: Clock) -> None:
    pace = pace_by(clock)
    for _ in range(11):
        await pace.turn(1, answering=False)
    assert clock.now == pytest.approx(110.5)
    begun = clock.now
    for chat in range(2, 302):
        await pace.turn(chat, answering=False)
    assert 300 / (clock.now - begun) <= 30


async def test_answers_may_be_early_for_a_moment(clock: Clock) -> None:
    pace = pace_by(clock)
    for _ in range(4):
        await pace.turn(1, answering=True)
    assert clock.now < 100.2
    for _ in range(20):
        await pace.turn(1, answering=True)
    assert clock.now == pytest.approx(100 + 20 * 1.05, abs=0.1)


async def test_what_telegram_says_counts_even_for_answers(clock: Clock) -> None:
    pace = pace_by(clock)
    await pace.turn(1, answering=True)
    pace.told_to_wait(1, 7.0)
    await pace.turn(2, answering=True)
    assert clock.now < 101
    await pace.turn(1, answering=True)
    assert clock.now >= 107.0


async def test_limits_of_one_chat_after_another_are_those_of_all(clock: Clock) -> None:
    pace = pace_by(clock)
    pace.told_to_wait(1, 5.0)
    pace.told_to_wait(2, 5.0)
    await pace.turn(3, answering=True)
    assert clock.now >= 105.0


async def test_many_chats_are_not_remembered_for_ever(clock: Clock) -> None:
    pace = RateLimit(1e9, 1, clock=clock.time, sleep=clock.sleep)
    for chat in range(25_000):
        await pace.turn(chat, answering=False)
        clock.now += 0.001
    assert len(pace._next_of) <= 10_000


async def test_a_message_that_was_long_on_its_way_holds_up_the_next(clock: Clock) -> None:
    pace = pace_by(clock)
    await pace.turn(1, answering=False)
    clock.now += 5
    pace.said(1)
    await pace.turn(1, answering=False)
    assert clock.now == pytest.approx(106.05)
