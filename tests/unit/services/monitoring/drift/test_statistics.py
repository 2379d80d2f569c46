"""The statistics, against scipy's own tests on the rows themselves, and against chance."""

import numpy as np
import pytest
from scipy import stats

from foretell.inference.stability import Counts, psi
from foretell.services.monitoring.drift import statistics


def counts(*values: int) -> Counts:
    return np.array(values, dtype=np.int64)


def rows(of: Counts) -> Counts:
    """As many rows in each bin as were counted."""
    return np.repeat(np.arange(len(of)), of)


def test_psi_of_samples_of_one_distribution_exceeds_what_chance_explains_as_rarely_as_said() -> None:
    source = np.random.default_rng(5)
    shares = np.array([0.3, 0.25, 0.2, 0.1, 0.08, 0.05, 0.02])
    limit = statistics.psi_by_chance(len(shares), 3000, 1000, 0.05)
    looks = 2000
    beyond = sum(psi(source.multinomial(3000, shares), source.multinomial(1000, shares)) > limit for _ in range(looks))
    # 100 of them; the deviation of chance is 10.
    assert 60 < beyond < 150


def test_the_distance_of_kolmogorov_and_smirnov_is_that_of_the_rows() -> None:
    source = np.random.default_rng(1)
    reference, seen = source.multinomial(900, [0.2] * 5), source.multinomial(700, [0.3, 0.2, 0.2, 0.15, 0.15])
    theirs = stats.ks_2samp(rows(reference), rows(seen), method="asymp")
    distance, p_value = statistics.kolmogorov_smirnov(reference, seen)
    assert distance == pytest.approx(theirs.statistic)
    # Theirs corrects for small samples; both speak of the same order.
    assert np.log10(p_value) == pytest.approx(np.log10(theirs.pvalue), abs=0.5)


def test_bins_make_the_test_of_numbers_careful() -> None:
    source = np.random.default_rng(2)
    shares = [0.7, 0.2, 0.1]
    found = [
        statistics.kolmogorov_smirnov(source.multinomial(5000, shares), source.multinomial(800, shares))
        for _ in range(1000)
    ]
    assert sum(p_value < 0.05 for _, p_value in found) < 50


def test_chi_squared_is_that_of_the_table() -> None:
    reference, seen = counts(500, 300, 200, 0), counts(30, 40, 20, 8)
    theirs = stats.chi2_contingency(np.array([reference, seen]), correction=False)
    statistic, p_value = statistics.chi_squared(reference, seen)
    assert statistic == pytest.approx(theirs.statistic)
    assert p_value == pytest.approx(theirs.pvalue)


def test_a_bin_that_is_empty_on_both_sides_says_nothing() -> None:
    assert statistics.chi_squared(counts(5, 0, 9), counts(3, 0, 7)) == statistics.chi_squared(
        counts(5, 9), counts(3, 7)
    )


def test_how_likely_a_share_is() -> None:
    assert statistics.at_least(0, 100, 0.5) == 1.0
    assert statistics.at_least(1, 100, 0.0) == 0.0
    assert statistics.at_least(10, 100, 0.05) == pytest.approx(stats.binom.sf(9, 100, 0.05))
