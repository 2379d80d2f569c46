"""The population stability index, and how far days usually are from all of them."""

import numpy as np
import pytest

from foretell.contracts.monitoring import Observed
from foretell.inference import stability
from foretell.inference.reference import Categories, Numbers
from foretell.inference.stability import Counts, usual_psi


def counts(*values: int) -> Counts:
    return np.array(values, dtype=np.int64)


def test_psi_is_its_formula() -> None:
    expected, found = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    by_hand = ((found - expected) * np.log(found / expected)).sum()
    assert stability.psi(counts(500, 300, 200), counts(40, 40, 20)) == pytest.approx(by_hand)
    assert stability.psi(counts(500, 300, 200), counts(50, 30, 20)) == 0


def test_an_empty_bin_counts_as_half_a_row() -> None:
    with_half = (0.5 / 1000 - 0.5) * np.log(0.5 / 1000 / 0.5) + 0.5 * np.log(2)
    assert stability.psi(counts(500, 500), counts(0, 1000)) == pytest.approx(with_half)
    assert np.isfinite(stability.psi(counts(0, 1000), counts(1000, 0)))


def test_neighbours_are_joined_until_enough_is_expected_of_them() -> None:
    reference = counts(0, 0, 1, 10, 1, 1, 50, 36, 1)
    starts = stability.joined_neighbours(reference, 100)
    assert starts == [0, 4, 7]
    assert stability.grouped(reference, starts).tolist() == [11, 52, 37]
    assert stability.joined_neighbours(counts(1, 1), 3) == [0]


def test_rare_categories_are_joined() -> None:
    reference, seen = stability.joined_rare(counts(500, 3, 400, 97, 0), counts(40, 9, 40, 10, 1))
    assert reference.tolist() == [500, 400, 100]
    assert seen.tolist() == [40, 40, 20]
    reference, seen = stability.joined_rare(counts(500, 30, 400, 30, 40), counts(50, 10, 20, 10, 10))
    assert reference.tolist() == [500, 400, 100]
    assert seen.tolist() == [50, 20, 30]
    reference, seen = stability.joined_rare(counts(500, 500), counts(1, 99))
    assert (reference.tolist(), seen.tolist()) == ([500, 500], [1, 99])
    reference, seen = stability.joined_rare(counts(500, 0), counts(1, 99))
    assert (reference.tolist(), seen.tolist()) == ([500], [100])


def test_an_empty_bin_of_very_many_rows_counts_as_one_in_ten_thousand() -> None:
    assert stability.psi(counts(500, 500), counts(0, 10**6)) == stability.psi(counts(500, 500), counts(0, 10**8))
    # What is rarer than that in the reference has not moved when it is not seen.
    assert stability.psi(counts(10**9 - 10, 10), counts(10**8, 0)) == pytest.approx(0, abs=1e-6)
    assert stability.psi(counts(10**8, 0), counts(10**9 - 10, 10)) == pytest.approx(0, abs=1e-6)


def test_seen_and_reference_side_by_side() -> None:
    reference, seen = stability.side_by_side(Numbers([0.0, 1.0, 2.0], [5, 6]), Observed([1, 2], 3, 4, 5, 6))
    assert (reference.tolist(), seen.tolist()) == ([5, 6], [4, 6])
    reference, seen = stability.side_by_side(Categories({"a": 5}, other=1), Observed([1], unseen=7))
    assert (reference.tolist(), seen.tolist()) == ([5, 1], [1, 7])


def days_of(odd: int, rows: int = 400, days: int = 100) -> tuple[list[str], list[int]]:
    """Values and days: half and half on each but `odd` of them, when all is "b"."""
    values = [value for day in range(days) for value in (["b", "b"] if day < odd else ["a", "b"]) * (rows // 2)]
    return values, [day for day in range(days) for _ in range(rows)]


def usual(values: list[str], days: list[int]) -> float:
    return usual_psi(Categories({name: values.count(name) for name in ("a", "b")}), values, days)


def test_days_that_are_alike_are_usually_close() -> None:
    assert usual(*days_of(0)) == 0


def test_one_odd_day_of_a_hundred_is_not_usual_and_five_are() -> None:
    values, days = days_of(1, days=101)
    assert usual(values, days) < 0.01
    values, days = days_of(5)
    all_of_one = stability.psi(counts(values.count("a"), values.count("b")), counts(0, 400))
    assert usual(values, days) == pytest.approx(all_of_one, abs=1e-3)
    assert all_of_one > 2


def test_too_few_days_or_rows_say_nothing_is_usual() -> None:
    assert usual(*days_of(5, days=14)) > 1
    assert usual(*days_of(5, days=13)) == 0
    assert usual(*days_of(5, rows=298)) == 0


def test_what_has_no_value_or_no_day_is_left_out() -> None:
    values, days = days_of(5)
    known = Categories({"a": values.count("a"), "b": values.count("b")})
    more = [*values, *(["a"] * 400), *([None] * 400)]
    assert usual_psi(known, more, [*days, *([None] * 400), *([0] * 400)]) == usual(values, days)
