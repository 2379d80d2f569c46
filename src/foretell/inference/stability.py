"""The population stability index: the difference between observed counts and a reference, in the same bins.

It is used both for the usual difference of single days of the training data, and for live traffic.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foretell.inference.observing import counter
from foretell.inference.reference import Field, Numbers

Counts = NDArray[np.int64]

#: The least expected number of rows in a bin; below it the index and chi-squared are noise.
LEAST_EXPECTED = 5.0
#: Days with fewer rows are ignored; with fewer days there is no usual difference.
LEAST_DAY_ROWS = 300
LEAST_DAYS = 14
#: The share of days within the usual difference: one broken day of a hundred must not affect it.
_USUAL_SHARE = 0.99
#: An empty bin counts as half a row, but not as less than this share, because half of many rows is nearly nothing.
_LEAST_SHARE = 1e-4


class Seen(Protocol):
    """Observed counts: in the bins of the reference, and outside of them."""

    @property
    def counts(self) -> Sequence[int] | Counts: ...
    @property
    def below(self) -> int: ...
    @property
    def above(self) -> int: ...
    @property
    def unseen(self) -> int: ...


def side_by_side(field: Field, seen: Seen) -> tuple[Counts, Counts]:
    """Counts of the reference and of the observation in the same bins; outer bins are open, other categories one."""
    counts = np.array(seen.counts, dtype=np.int64)
    if isinstance(field, Numbers):
        counts[0] += seen.below
        counts[-1] += seen.above
        return np.array(field.counts, dtype=np.int64), counts
    reference = np.array([*field.counts.values(), field.other], dtype=np.int64)
    return reference, np.append(counts, seen.unseen)


def joined(field: Field, reference: Counts, seen: Counts) -> tuple[Counts, Counts]:
    """Both, after joining bins whose expected number of observed rows is too small."""
    if not isinstance(field, Numbers):
        return joined_rare(reference, seen)
    starts = joined_neighbours(reference, int(seen.sum()))
    return grouped(reference, starts), grouped(seen, starts)


def psi(reference: Counts, seen: Counts) -> float:
    """The population stability index: 0 for equal shares; by convention 0.1 is moderate, 0.25 large.

    A bin that is empty on one side counts as half a row there, or as one in ten thousand if that is more.
    """
    expected, found = reference / reference.sum(), seen / seen.sum()
    expected, found = _filled(expected, reference, found), _filled(found, seen, expected)
    return float(((found - expected) * np.log(found / expected)).sum())


def _filled(shares: NDArray[np.float64], counts: Counts, others: NDArray[np.float64]) -> NDArray[np.float64]:
    half = 0.5 / counts.sum()
    # If it is rare on the other side, too, it has not disappeared: it may have less than one in ten thousand.
    return np.where(counts == 0, np.maximum(half, np.minimum(others, _LEAST_SHARE)), shares)


def usual_psi(field: Field, values: Iterable[Any], days: Iterable[Any]) -> float:
    """The usual difference between the values of one day (None: missing) and all values, counted in `field`.

    It is the index that one day of a hundred exceeds; 0 if too few days have enough rows. `days` has the day of each
    value; values with the day None are left out.
    """
    counters: dict[Any, Any] = {}
    for value, day in zip(values, days, strict=True):
        if value is None or day is None:
            continue
        counting = counters.get(day)
        if counting is None:
            counting = counters[day] = counter(field)
        counting.count(value)
    found = []
    for counting in counters.values():
        reference, seen = side_by_side(field, counting.take())
        if seen.sum() >= LEAST_DAY_ROWS:
            bins, bins_seen = joined(field, reference, seen)
            found.append(psi(bins, bins_seen) if len(bins) > 1 else 0.0)
    return round(float(np.quantile(found, _USUAL_SHARE)), 4) if len(found) >= LEAST_DAYS else 0.0


def joined_neighbours(reference: Counts, rows: int) -> list[int]:
    """The starts of groups of neighbouring bins, each with a sufficient expected number of `rows`."""
    expected = reference / reference.sum() * rows
    starts, held = [0], 0.0
    for place, each in enumerate(expected):
        if held >= LEAST_EXPECTED:
            starts.append(place)
            held = 0.0
        held += float(each)
    if held < LEAST_EXPECTED and len(starts) > 1:
        # The rest is joined with the last group.
        starts.pop()
    return starts


def joined_rare(reference: Counts, seen: Counts) -> tuple[Counts, Counts]:
    """Both, after joining categories whose expected number of observed rows is too small.

    If these together are still too few, the rarest of the others is added.
    """
    expected = reference / reference.sum() * seen.sum()
    order = np.argsort(-expected, kind="stable")
    reference, seen, expected = reference[order], seen[order], expected[order]
    common = int((expected >= LEAST_EXPECTED).sum())
    if common < len(expected) and expected[common:].sum() < LEAST_EXPECTED:
        common = max(common - 1, 0)
    if common >= len(expected) - 1:
        return reference, seen
    return (
        np.append(reference[:common], reference[common:].sum()),
        np.append(seen[:common], seen[common:].sum()),
    )


def grouped(counts: Counts, starts: Sequence[int]) -> Counts:
    """The sums of the groups that begin at `starts`."""
    sums: Counts = np.add.reduceat(counts, starts)
    return sums
