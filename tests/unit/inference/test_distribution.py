"""References made from rows: bins that suit the values, counted as live rows are."""

import random
from typing import Any

import pytest

from foretell.inference.distribution import describe
from foretell.inference.observing import Sampler, counter
from foretell.inference.reference import Categories, Field, Numbers


def field(*values: Any) -> Field:
    reference, left_out = describe([{"x": value} for value in values], [])
    assert left_out == []
    return reference.features["x"]


def test_few_different_numbers_have_a_bin_each() -> None:
    made = field(0, 0, 5, 5.0, 15, 30)
    assert made == Numbers([0.0, 2.5, 10.0, 22.5, 30.0], [2, 2, 1, 1], mean=9.166667, std=10.573815)
    assert field(0, 1, 1) == Numbers([0.0, 0.5, 1.0], [1, 2], mean=0.666667, std=0.471405)


@pytest.mark.parametrize(
    ("value", "same", "others"),
    [
        (7, 7.000001, [6, 8, 7.1]),
        (0.0, -0.0, [1e-6, -1, 0.01]),
        (0.1, 0.1 + 2**-54, [0.10001, 0.0]),
        (0.5, 0.5000001, [0.501, 0.499]),
        (2**31, 2**31, [2**31 + 1, 2**31 - 1]),
        (2**60, 2**60, [2**60 + 4096, 0]),
        (-1e300, -1e300 * (1 + 1e-9), [-1.1e300, 1e300]),
        (5e-324, 5e-324, [1e-9]),
    ],
)
def test_one_number_has_a_bin_for_itself_and_what_rounding_makes_of_it(
    value: float, same: float, others: list[float]
) -> None:
    made = field(value, value)
    assert isinstance(made, Numbers)
    assert (made.counts, made.std) == ([2], 0.0)
    counting = counter(made)
    for other in (value, same, *others):
        counting.count(other)
    seen = counting.take()
    assert (sum(seen.counts), seen.below + seen.above) == (2, len(others))


def test_a_field_that_no_row_has_is_kept_as_one() -> None:
    assert field(None, None, None) == Categories({}, missing=3)


def test_many_numbers_have_bins_of_about_as_many_rows_each() -> None:
    source = random.Random(1)
    values = [source.lognormvariate(0, 1) for _ in range(10_000)]
    made = field(*values)
    assert isinstance(made, Numbers)
    assert len(made.counts) == 20
    assert all(450 < count < 550 for count in made.counts)
    assert (made.edges[0], made.edges[-1]) == (min(values), max(values))
    assert sum(made.counts) == 10_000


def test_a_value_that_many_rows_have_is_a_bin_of_its_own() -> None:
    source = random.Random(1)
    made = field(*[0.0] * 7000, *[source.uniform(1, 100) for _ in range(3000)])
    assert isinstance(made, Numbers)
    assert made.counts[0] == 7000
    assert 1.0 <= made.edges[1] < 1.1
    made = field(*[100.0] * 7000, *[source.uniform(1, 99) for _ in range(3000)])
    assert isinstance(made, Numbers)
    assert made.counts[-1] == 7000


def test_texts_are_categories_or_counted_by_their_length() -> None:
    assert field("b", "a", "b", "b") == Categories({"a": 1, "b": 3})
    lengths = field(*("x" * length for length in range(60)))
    assert isinstance(lengths, Numbers)
    assert (lengths.of, lengths.edges[-1]) == ("length", 59.0)
    often = field(*[f"code {number}" for number in range(150) for _ in range(number + 1)])
    assert isinstance(often, Categories)
    assert len(often.counts) == 100
    assert often.other == sum(range(1, 51))


def test_truth_values_and_mixtures_are_categories() -> None:
    assert field(True, True, None) == Categories({"false": 0, "true": 2}, missing=1)
    assert field(1, "one", 1) == Categories({"1": 2, "one": 1})


def test_nested_fields_are_named_by_their_way_and_lists_are_left_out() -> None:
    reference, left_out = describe(
        [{"a": 1, "inner": {"b": 2, "deep": {"c": "x"}}, "list": [1]}, {"a": 2, "list": []}], [{"y": None}]
    )
    assert reference.rows == 2
    assert list(reference.features) == ["a", "inner.b", "inner.deep.c"]
    assert reference.features["inner.b"].missing == 1
    assert left_out == ["list"]
    assert reference.outputs == {"y": Categories({}, missing=1)}


def test_the_rows_of_which_it_was_made_are_within_it() -> None:
    source = random.Random(2)
    rows = [
        {
            "number": source.gauss(0, 1),
            "whole": source.randint(0, 5),
            "flag": source.random() < 0.3,
            "colour": source.choice(["red", "green", None]),
            "text": "x" * source.randint(0, 200) + str(source.random()),
        }
        for _ in range(500)
    ]
    reference, _ = describe(rows, rows)
    sampler = Sampler("m", "1.0.0", reference, 500)
    sampler.offer(rows, rows)
    observation = sampler.take()
    assert observation is not None
    for fields, seen in ((reference.features, observation.features), (reference.outputs, observation.outputs)):
        assert set(fields) == set(rows[0])
        for name, made in fields.items():
            counts = made.counts if isinstance(made, Numbers) else list(made.counts.values())
            assert seen[name].counts == counts
            assert seen[name].missing == made.missing
            assert seen[name].below == seen[name].above == seen[name].unseen == 0
