"""Identifiers that sort by their making."""

import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.kit import clock
from foretell.kit.clock import Identifiers, SteadyClock, uuid7, uuid7_at

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS = 1_000_000_000


def _milliseconds(identifier: UUID) -> int:
    return identifier.int >> 80


def test_the_bits_are_those_of_the_rfc() -> None:
    before = time.time_ns() // 1_000_000
    identifier = uuid7()
    assert identifier.version == 7
    assert identifier.variant == RFC_4122
    assert before <= _milliseconds(identifier) <= before + 60_000


def test_one_process_makes_them_in_order_and_no_two_alike() -> None:
    identifiers = [uuid7() for _ in range(20_000)]
    assert identifiers == sorted(identifiers)
    assert len(set(identifiers)) == len(identifiers)
    assert len({identifier.int & (2**62 - 1) for identifier in identifiers}) == len(identifiers)


def test_a_model_that_seeds_the_generator_of_all_does_not_bring_them_back() -> None:
    random_bits = set()
    for _ in range(100):
        random.seed(0)
        random_bits.add(uuid7().int & (2**62 - 1))
    assert len(random_bits) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_two_processes_forked_from_one_make_others() -> None:
    # In a process of its own, since this one may have threads.
    forking = """
import os
from foretell.kit.clock import uuid7
child = os.fork()
if child:
    # One after the other, lest their lines mix.
    os.waitpid(child, 0)
print(uuid7().int & (2**62 - 1), flush=True)
"""
    printed = subprocess.run(
        [sys.executable, "-c", forking], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert len(set(printed.split())) == 2


class MadeClock:
    """A time of day that is set, and the time that passes."""

    def __init__(self) -> None:
        self.wall_ns = 1_800_000_000 * _SECOND_NS
        self.elapsed_ns = 5_000 * _SECOND_NS

    def pass_s(self, seconds: float) -> None:
        self.wall_ns += int(seconds * _SECOND_NS)
        self.elapsed_ns += int(seconds * _SECOND_NS)

    def set_by_s(self, seconds: float) -> None:
        self.wall_ns += int(seconds * _SECOND_NS)

    def steady(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall_ns, lambda: self.elapsed_ns)


@pytest.fixture
def made() -> MadeClock:
    return MadeClock()


@pytest.mark.parametrize("seconds", [-4.9, -0.1, 0.1, 4.9])
def test_a_clock_that_is_set_by_little_is_followed(made: MadeClock, seconds: float) -> None:
    clock = made.steady()
    for _ in range(100):
        made.set_by_s(seconds)
        assert clock.ns() == made.wall_ns
        made.pass_s(0.01)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_jumps_and_comes_back_is_not_followed(made: MadeClock, hours: int) -> None:
    clock = made.steady()
    right = clock.ns()
    made.set_by_s(hours * 3600)
    for _ in range(50):
        assert clock.ns() == right
        made.pass_s(1)
        right += _SECOND_NS
    made.set_by_s(-hours * 3600)
    assert clock.ns() == right == made.wall_ns
    # It begins anew: the next jump has stood for no time.
    made.pass_s(30)
    made.set_by_s(hours * 3600)
    assert clock.ns() == right + 30 * _SECOND_NS


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_stays_where_it_was_set_is_believed(made: MadeClock, hours: int) -> None:
    clock = made.steady()
    made.set_by_s(hours * 3600)
    clock.ns()
    made.pass_s(59.9)
    assert clock.ns() == made.wall_ns - hours * 3600 * _SECOND_NS
    made.pass_s(0.1)
    assert clock.ns() == made.wall_ns
    made.pass_s(1)
    assert clock.ns() == made.wall_ns


def test_a_clock_that_jumps_about_is_not_believed(made: MadeClock) -> None:
    clock = made.steady()
    right = clock.ns()
    for _ in range(10):
        made.set_by_s(3600)
        assert clock.ns() == right
        made.pass_s(50)
        right += 50 * _SECOND_NS


def test_a_clock_that_goes_back_a_little_does_not_break_the_order(made: MadeClock) -> None:
    made_id = Identifiers(lambda: made.wall_ns).make
    first = made_id()
    made.set_by_s(-9)
    # More than the counter has room for, so that the next milliseconds have to be borrowed.
    later = [made_id() for _ in range(10_000)]
    assert [first, *later] == sorted([first, *later])
    assert all(identifier.version == 7 and identifier.variant == RFC_4122 for identifier in later)
    assert _milliseconds(later[-1]) - _milliseconds(first) <= 3


def test_a_clock_that_was_far_ahead_dates_nothing_once_it_is_right(made: MadeClock) -> None:
    made_id = Identifiers(lambda: made.wall_ns).make
    made.set_by_s(7200)
    ahead = made_id()
    made.set_by_s(-7200)
    assert _milliseconds(made_id()) == made.wall_ns // 1_000_000
    assert _milliseconds(ahead) == made.wall_ns // 1_000_000 + 7_200_000


def test_they_are_sorted_as_texts_too() -> None:
    identifiers = [uuid7() for _ in range(5_000)]
    assert [identifier.hex for identifier in identifiers] == sorted(identifier.hex for identifier in identifiers)


@given(st.integers(1, 2**42))
def test_the_bound_of_a_moment_is_exact(milliseconds: int) -> None:
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    bound = uuid7_at(moment)
    assert _milliseconds(bound) == milliseconds
    assert bound.version == 7
    assert bound.variant == RFC_4122
    assert uuid7_at(moment - timedelta(microseconds=1)) < bound
    assert uuid7_at(moment + timedelta(microseconds=999)) == bound


def test_the_bound_lies_between_what_was_made_before_and_after() -> None:
    moment = clock.now()
    assert uuid7_at(moment - timedelta(seconds=1)) < uuid7()
    assert uuid7() < uuid7_at(clock.now() + timedelta(minutes=2))


def test_now_is_aware_and_in_utc() -> None:
    assert clock.now().utcoffset() == timedelta(0)
