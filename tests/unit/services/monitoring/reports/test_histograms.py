"""Quantiles as Prometheus' `histogram_quantile` computes them, and nearer to the truth where the sum tells more."""

import math
from bisect import bisect_left
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.kit.metrics import LATENCY_BUCKETS_S
from foretell.services.monitoring.reports.histograms import Histogram


def histogram(bounds: Sequence[float], counts: Sequence[float], total: float = 0.0) -> Histogram:
    made = Histogram()
    made.add(bounds, counts, total)
    return made


def test_nothing_has_no_quantile_and_no_mean() -> None:
    empty = histogram([1.0], [0, 0])
    assert (empty.count, empty.mean, empty.quantile(0.5)) == (0, None, None)
    assert Histogram().quantile(0.99) is None


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [
        # 10 up to 1, 20 up to 2, 10 up to 4: rank 20 is the 10th of 20 between 1 and 2.
        (0.5, 1.5),
        (0.25, 1.0),
        (0.75, 2.0),
        # Rank 38: the 8th of 10 between 2 and 4.
        (0.95, 3.6),
        (0.125, 0.5),
        (1.0, 4.0),
        (0.0, 0.0),
    ],
)
def test_values_lie_evenly_in_their_bucket(quantile: float, expected: float) -> None:
    assert histogram([1, 2, 4, 8], [10, 20, 10, 0, 0]).quantile(quantile) == pytest.approx(expected)


def test_one_observation_is_told_as_it_was() -> None:
    one = histogram([0.1, 0.25, 0.5], [0, 1, 0, 0], total=0.141)
    assert [one.quantile(quantile) for quantile in (0.5, 0.95, 0.99)] == [0.141] * 3


def test_what_is_alike_is_not_spread_over_its_bucket() -> None:
    # A model that sleeps for two seconds and a bit.
    sleeps = histogram([1.0, 2.5, 5.0], [0, 1000, 0, 0], total=2003.0)
    assert sleeps.quantile(0.5) == pytest.approx(2.07, abs=0.01)
    near = histogram([1.0, 2.0, 2.5], [0, 0, 1000, 0], total=2003.0)
    assert near.quantile(0.99) == pytest.approx(2.0 + 0.5 * 0.99 ** (1 / 0.006 - 1))
    assert near.quantile(0.99) < 2.1


@given(
    st.lists(st.floats(0.001, 50), min_size=1, max_size=200),
    st.floats(0.01, 1),
)
def test_the_estimate_lies_in_the_bucket_of_the_true_one(values: list[float], quantile: float) -> None:
    bounds = [*LATENCY_BUCKETS_S]
    counts = [0.0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    found = histogram(bounds, counts, total=sum(values)).quantile(quantile)
    true = sorted(values)[max(0, math.ceil(quantile * len(values)) - 1)]
    place = bisect_left(bounds, true)
    assert found is not None
    assert (0.0, *bounds)[place] <= found <= bounds[place]


@settings(max_examples=30)
@given(st.lists(st.floats(0.001, 50), min_size=2, max_size=200))
def test_the_quantiles_have_the_sum_that_was_observed(values: list[float]) -> None:
    bounds = [*LATENCY_BUCKETS_S]
    counts = [0.0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    made = histogram(bounds, counts, total=sum(values))
    steps = 1000
    found = [made.quantile((step + 0.5) / steps) for step in range(steps)]
    assert math.fsum(each for each in found if each is not None) / steps == pytest.approx(
        sum(values) / len(values), rel=0.05
    )


def test_a_sum_that_does_not_fit_says_nothing() -> None:
    assert histogram([1, 2], [0, 4, 0], total=1.0).quantile(0.5) == 1.5
    assert histogram([1, 2], [0, 4, 0], total=100.0).quantile(0.5) == 1.5
    assert histogram([1, 2], [0, 1, 0], total=100.0).quantile(0.5) == 1.5


def test_above_the_last_bound_nothing_is_known_but_that() -> None:
    some_above = histogram([1, 2], [1, 1, 8])
    assert some_above.quantile(0.99) == 2
    assert some_above.quantile(0.1) == 1
    assert histogram([1, 2], [0, 0, 5]).quantile(0.5) == 2


def test_empty_buckets_are_passed_over() -> None:
    # The only one that holds something is that from 2 to 4.
    assert histogram([1, 2, 4], [0, 0, 4, 0]).quantile(0.5) == 3
    assert histogram([1, 2, 4], [0, 0, 4, 0]).quantile(0.0) == 2


def test_a_first_bucket_below_zero_begins_nowhere() -> None:
    below = histogram([-1, 1], [4, 4, 0])
    assert below.quantile(0.25) == -1
    assert below.quantile(0.75) == 0
    assert histogram([0, 1], [4, 0, 0]).quantile(0.5) == 0


def test_instances_are_added_up() -> None:
    made = histogram([1, 2], [1, 0, 0], total=0.5)
    made.add([1, 2], [0, 3, 0], total=4.5)
    assert (made.count, made.mean) == (4, 1.25)
    # Rank 2 is the first of 3 between 1 and 2.
    assert made.quantile(0.5) == pytest.approx(1 + 1 / 3)


def test_other_bounds_of_another_release_are_added_too() -> None:
    made = histogram([1, 4], [2, 2, 0])
    made.add([2, 4], [4, 0, 0], 0)
    # Up to 1: 2, up to 2: 4 more, up to 4: 2 more.
    assert made.quantile(0.5) == pytest.approx(1.5)
    assert made.count == 8


def test_counts_that_do_not_fit_the_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        histogram([1, 2], [1, 2])


@given(
    st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_quantiles_grow_and_stay_within_the_bounds(counts: list[int], one: float, other: float) -> None:
    made = histogram([0.1, 1, 10], counts)
    low, high = made.quantile(min(one, other)), made.quantile(max(one, other))
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= 10
