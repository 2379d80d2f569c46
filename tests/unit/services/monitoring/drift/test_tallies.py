"""Sliding windows of counts, and what has no place in them."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from foretell.contracts.monitoring import Observation, Observed
from foretell.inference.reference import Categories, Numbers, Reference
from foretell.kit.clock import now
from foretell.services.monitoring.drift.judging import Seen
from foretell.services.monitoring.drift.tallies import Tally, Total

REFERENCE = Reference(
    10, {"x": Numbers([0.0, 1.0, 2.0], [5, 5]), "c": Categories({"a": 10})}, {"x": Numbers([0.0, 1.0], [1])}, sha256="S"
)
HOUR, DAY = 3600.0, 86_400.0


def observation(until: datetime, *, rows: int = 3, **changed: Any) -> Observation:
    made = Observation(
        model="m",
        version="1.0.0",
        reference_sha256="S",
        since=until - timedelta(seconds=5),
        until=until,
        rows=rows,
        passed=10 * rows,
        features={"x": Observed([1, 2], below=1, above=2, unseen=3, missing=1), "c": Observed([3])},
        outputs={"x": Observed([2], missing=1)},
    )
    return msgspec.structs.replace(made, **changed)


def same(seen: Seen, counts: list[int], *beside: int) -> bool:
    return seen.counts.tolist() == counts and (seen.below, seen.above, seen.unseen, seen.missing) == beside


def total_of(*observations: Observation, window_s: float = DAY, at: datetime | None = None) -> Total:
    moment = at or now()
    tally = Tally(REFERENCE, [HOUR, DAY])
    for each in observations:
        tally.add(each, moment)
    return tally.total(window_s, moment)


def test_what_was_seen_adds_up() -> None:
    moment = now()
    total = total_of(observation(moment), observation(moment - timedelta(minutes=10)), at=moment)
    assert (total.rows, total.passed) == (6, 60)
    assert (total.since, total.until) == (moment - timedelta(minutes=10, seconds=5), moment)
    assert same(total.fields["feature", "x"], [2, 4], 2, 4, 6, 2)
    assert same(total.fields["feature", "c"], [6], 0, 0, 0, 0)
    assert same(total.fields["output", "x"], [4], 0, 0, 0, 2)


def days_of(*ago_h: float) -> int:
    """On how many days something was seen when it was seen so many hours ago; at noon."""
    moment = now().replace(hour=12)
    window_s = 28 * DAY
    tally = Tally(REFERENCE, [window_s])
    for each in ago_h:
        tally.add(observation(moment - timedelta(hours=each)), moment)
    return tally.total(window_s, moment).days


def test_days_are_those_on_which_something_was_seen() -> None:
    assert days_of() == days_of(0) == days_of(0, 1) == days_of(0, 24) == 1
    assert days_of(0, 13) == 1, "an evening and a morning make no two days"
    assert days_of(0, 48) == 2
    assert days_of(0, 20 * 24) == 2, "days without anything do not count"
    assert days_of(*range(0, 27 * 24 + 20, 4)) == 28


def test_a_window_slides() -> None:
    began = now()
    tally = Tally(REFERENCE, [HOUR, DAY])
    rows = []
    for minute in range(0, 3 * 24 * 60, 10):
        moment = began + timedelta(minutes=minute)
        tally.add(observation(moment), moment)
        rows.append((tally.total(HOUR, moment).rows, tally.total(DAY, moment).rows))
    # Six of three rows each an hour, 144 a day; a slice more or less is its sixtieth.
    for hour_rows, day_rows in rows[200:]:
        assert hour_rows in (18, 21)
        assert 144 * 3 <= day_rows <= 147 * 3
    end = began + timedelta(days=10)
    assert tally.total(DAY, end).rows == tally.total(HOUR, end).rows == 0


def test_what_comes_late_is_counted_where_it_belongs() -> None:
    moment = now()
    late = observation(moment - timedelta(hours=2))
    assert total_of(late, at=moment, window_s=HOUR).rows == 0
    assert total_of(late, at=moment, window_s=DAY).rows == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"reference_sha256": "T"},
        {"rows": -1},
        {"rows": 10, "passed": 5},
        {"features": {"x": Observed([1, -2])}},
        {"features": {"x": Observed([1, 10**30])}},
        {"rows": 10**30, "passed": 10**30, "features": {"x": Observed([1, 10**30])}},
        {"features": {"x": Observed([1, 2], below=4)}},
    ],
)
def test_what_cannot_be_right_is_left_out(wrong: dict[str, Any]) -> None:
    moment = now()
    assert total_of(observation(moment, **wrong), at=moment).rows == 0


@pytest.mark.parametrize("age", [timedelta(hours=-1), timedelta(days=2)])
def test_what_is_of_another_time_is_left_out(age: timedelta) -> None:
    moment = now()
    assert total_of(observation(moment - age), at=moment).rows == 0


def test_a_field_with_other_bins_is_left_out_alone() -> None:
    moment = now()
    total = total_of(observation(moment, features={"x": Observed([1, 1, 1]), "c": Observed([3])}), at=moment)
    assert np.array_equal(total.fields["feature", "x"].counts, [0, 0])
    assert same(total.fields["feature", "c"], [3], 0, 0, 0, 0)
    assert total.rows == 3
