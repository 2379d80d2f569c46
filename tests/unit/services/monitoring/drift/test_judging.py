"""When a field drifts: only by much and surely; and what is missing, out of range or unknown."""

import numpy as np
import pytest

from foretell.contracts.reports.drift import Change, FieldFinding
from foretell.inference.reference import Categories, Field, Numbers
from foretell.services.monitoring.drift.judging import Seen, judge, worst

NUMBERS = Numbers([0.0, 1.0, 2.0, 3.0, 4.0], [4000, 3000, 2000, 1000])
COLOURS = Categories({"red": 5000, "green": 4000, "blue": 990}, other=10)


def look(field: Field, *counts: int, fields: int = 5, **beside: int) -> FieldFinding:
    return judge("x", "feature", field, Seen(np.array(counts, dtype=np.int64), **beside), fields)


def test_the_same_distribution_is_stable() -> None:
    found = look(NUMBERS, 400, 300, 200, 100)
    assert (found.status, found.reasons, found.psi, found.p_value) == ("stable", [], 0.0, 1.0)
    assert found.test == "kolmogorov_smirnov"
    found = look(COLOURS, 500, 400, 99, unseen=1)
    assert (found.status, found.test) == ("stable", "chi_squared")


def test_a_moderate_and_a_large_shift() -> None:
    found = look(NUMBERS, 270, 300, 260, 170)
    assert found.status == "shifting"
    assert found.psi is not None
    assert 0.1 < found.psi < 0.25
    found = look(NUMBERS, 100, 200, 300, 400)
    assert found.status == "drifted"
    assert found.reasons == ["Its distribution has moved: PSI 0.91, by chance up to 0.02."]
    assert found.changes == [Change("distribution")]
    assert look(COLOURS, 100, 800, 100).status == "drifted"


def test_a_difference_that_is_sure_but_small_is_stable() -> None:
    found = look(NUMBERS, 43_000, 30_000, 18_500, 8_500)
    assert found.p_value is not None
    assert found.p_value < 1e-6
    assert found.status == "stable"


def test_a_difference_that_is_large_but_not_sure_is_stable() -> None:
    # 40 bins and 500 rows: chance alone gives an index beyond 0.1 here.
    field = Numbers([float(edge) for edge in range(41)], [5] * 40)
    seen = np.random.default_rng(3).multinomial(500, [1 / 40] * 40)
    found = look(field, *seen.tolist())
    assert found.psi is not None
    assert found.psi > 0.07
    assert found.status == "stable"


def test_a_difference_that_days_usually_have_is_stable() -> None:
    field = Numbers(NUMBERS.edges, NUMBERS.counts, usual_psi=0.95)
    seen = Seen(np.array([100, 200, 300, 400]))
    found = judge("x", "feature", field, seen, 5)
    assert (found.status, found.usual_psi) == ("stable", 0.95)
    assert found.reasons == ["PSI 0.91 is usual: single days of the training data have up to 0.95."]
    assert found.changes == [Change("usual")]
    assert judge("x", "feature", field, seen, 5, days=2).status == "stable"
    found = judge("x", "feature", field, seen, 5, days=3)
    assert (found.status, found.usual_psi) == ("drifted", pytest.approx(0.95 / 1.5))
    assert found.reasons == ["Its distribution has moved: PSI 0.91, by chance up to 0.02, usually up to 0.63."]
    smaller = Numbers(NUMBERS.edges, NUMBERS.counts, usual_psi=0.8)
    assert judge("x", "feature", smaller, seen, 5).status == "shifting", "beyond what is usual, but not by far"
    assert judge("x", "feature", NUMBERS, seen, 5).usual_psi is None


def test_a_difference_is_not_said_to_be_usual_where_there_is_none() -> None:
    field = Numbers(NUMBERS.edges, NUMBERS.counts, usual_psi=0.95)
    assert judge("x", "feature", field, Seen(np.array([400, 300, 200, 100])), 5).reasons == []


def test_four_weeks_are_judged_plainly() -> None:
    field = Numbers(NUMBERS.edges, NUMBERS.counts, usual_psi=7.0)
    seen = Seen(np.array([190, 300, 290, 220]))
    assert [judge("x", "feature", field, seen, 5, days=days).status for days in (1, 27, 28, 90)] == [
        "stable", "stable", "drifted", "drifted",
    ]  # fmt: skip


def test_what_is_usual_excuses_nothing_that_is_missing_or_unknown() -> None:
    field = Categories({"red": 5000, "green": 4000, "blue": 990}, other=10, usual_psi=9.0)
    assert judge("x", "feature", field, Seen(np.array([500, 400, 99]), unseen=60), 5).status == "drifted"
    assert judge("x", "feature", field, Seen(np.array([500, 400, 99]), missing=500), 5).status == "drifted"


def test_few_rows_say_nothing() -> None:
    found = look(NUMBERS, 0, 0, 0, 499)
    assert (found.status, found.rows, found.rows_needed, found.psi) == ("not_enough_data", 499, 500, None)
    assert look(NUMBERS, 0, 0, 0, 500).status == "drifted"
    assert look(Numbers([0.0, 1.0], [199]), 500).status == "not_enough_data"


def test_what_is_missing_is_judged_by_its_share() -> None:
    assert look(NUMBERS, 4000, 3000, 2000, 1000, missing=50).status == "stable"
    found = look(NUMBERS, 4000, 3000, 2000, 1000, missing=300)
    assert (found.status, found.missing_share) == ("shifting", pytest.approx(300 / 10_300))
    found = look(NUMBERS, 400, 300, 200, 100, missing=500)
    assert found.status == "drifted"
    assert found.reasons == ["33.3% of the rows lack it; it was 0.0% in the reference."]
    assert found.changes == [Change("missing", 1 / 3, 0.0)]
    assert look(NUMBERS, 0, 0, 0, 0, missing=600).status == "drifted"
    usual = Numbers(NUMBERS.edges, NUMBERS.counts, missing=5000)
    assert look(usual, 400, 300, 200, 100, missing=500).status == "stable"


def test_what_is_out_of_range_is_judged_by_its_share() -> None:
    assert look(NUMBERS, 400, 300, 200, 100, above=5).status == "stable"
    found = look(NUMBERS, 400, 300, 200, 100, below=15, above=15)
    assert (found.status, found.out_of_range_share) == ("shifting", pytest.approx(30 / 1030))
    assert look(NUMBERS, 400, 300, 200, 100, above=100).status == "drifted"
    assert look(NUMBERS, 400, 300, 200, 100, unseen=100).reasons == [
        "9.1% of the rows are no numbers; it was 0.0% in the reference."
    ]


def test_the_ends_of_a_small_reference_are_not_taken_at_their_word() -> None:
    small = Numbers([0.0, 1.0, 2.0], [150, 150])
    assert look(small, 490, 490, below=10, above=10).status == "stable"


def test_unknown_categories_are_judged_by_their_share() -> None:
    found = look(COLOURS, 500, 400, 99, unseen=60)
    assert (found.status, found.unseen_share) == ("drifted", pytest.approx(60 / 1059))
    half_other = Categories({"red": 5000}, other=5000)
    assert look(half_other, 500, unseen=500).status == "stable"


def test_one_value_only_can_still_be_something_else() -> None:
    constant = Categories({"A": 1000})
    assert look(constant, 600).status == "stable"
    found = look(constant, 500, unseen=100)
    assert (found.status, found.psi) == ("drifted", None)
    assert look(Numbers([0.0, 1.0], [1000]), 500, above=500).status == "drifted"


def test_the_distribution_is_told_in_shares() -> None:
    found = look(NUMBERS, 400, 300, 200, 50, above=50)
    assert found.distribution is not None
    assert found.distribution.edges == NUMBERS.edges
    assert found.distribution.reference == found.distribution.seen == [0.4, 0.3, 0.2, 0.1]
    found = look(COLOURS, 250, 250, 0, unseen=500)
    assert found.distribution is not None
    assert found.distribution.categories == ["red", "green", "blue"]
    assert found.distribution.seen == [0.25, 0.25, 0.0, 0.5]


@pytest.mark.parametrize("rows", [500, 1000, 5000, 20_000])
@pytest.mark.parametrize("bins", [2, 4, 10, 24, 100])
def test_chance_alone_is_no_drift(rows: int, bins: int) -> None:
    source = np.random.default_rng(rows + bins)
    shares = source.dirichlet([1.0] * bins)
    for _ in range(100):
        reference = source.multinomial(3000, shares)
        seen = source.multinomial(rows, shares)
        numeric = Numbers([float(edge) for edge in range(bins + 1)], reference.tolist())
        categorical = Categories({str(place): int(count) for place, count in enumerate(reference)})
        assert look(numeric, *seen.tolist()).status == "stable"
        assert look(categorical, *seen.tolist()).status == "stable"


def test_the_worst_part_is_the_whole() -> None:
    assert worst(["stable", "drifted", "shifting"]) == "drifted"
    assert worst(["stable", "not_enough_data"]) == "stable"
    assert worst([]) == "not_enough_data"


def test_another_value_than_the_only_one_has_drifted() -> None:
    constant = Numbers([7 - 7e-6, 7 + 7e-6], [5000], mean=7.0, std=0.0)
    assert look(constant, 1000).status == "stable"
    found = look(constant, 0, above=1000)
    assert found.status == "drifted"
    assert found.reasons == ["100.0% of the rows are outside of its range; it was 0.0% in the reference."]
    assert found.changes == [Change("out_of_range", 1.0, 0.0)]
    assert look(constant, 970, below=30).status == "shifting"


def test_a_truth_value_that_was_always_the_same_has_drifted() -> None:
    always_false = Categories({"false": 5000, "true": 0})
    assert look(always_false, 1000, 0).status == "stable"
    found = look(always_false, 400, 600)
    assert (found.status, found.unseen_share) == ("drifted", 0.6)
    assert found.reasons[0] == "60.0% of the rows are of no category of the reference; it was 0.0% in the reference."
    assert found.changes[0] == Change("unknown_category", 0.6, 0.0)


def test_a_bin_in_which_nothing_was_counted_is_outside_of_the_range() -> None:
    gap = Numbers([0.0, 1.0, 2.0, 3.0], [3000, 0, 2000])
    assert look(gap, 600, 0, 400).status == "stable"
    found = look(gap, 540, 100, 360)
    assert (found.status, found.out_of_range_share) == ("drifted", 0.1)


def test_what_was_never_there_has_drifted_when_it_is() -> None:
    never = Categories({}, missing=5000)
    assert look(never, missing=1000).status == "stable"
    assert look(never, missing=1000).reasons == []
    found = look(never, unseen=1000)
    assert (found.status, found.missing_share, found.distribution) == ("drifted", 0.0, None)
    assert found.reasons == ["100.0% of the rows have it; it was 0.0% in the reference."]
    assert look(never, unseen=30, missing=970).status == "shifting"


def test_what_half_of_the_rows_lacked_has_drifted_when_all_have_it() -> None:
    half = Numbers(NUMBERS.edges, NUMBERS.counts, missing=10_000)
    assert look(half, 200, 150, 100, 50, missing=500).status == "stable"
    found = look(half, 400, 300, 200, 100)
    assert found.reasons == ["100.0% of the rows have it; it was 50.0% in the reference."]
    assert found.changes == [Change("present", 1.0, 0.5)]


def test_a_reference_of_too_few_values_says_nothing_of_them() -> None:
    few = Categories({"a": 100}, missing=9900)
    assert look(few, 10, missing=990).status == "stable"
    assert look(few, 10, missing=990).psi is None
