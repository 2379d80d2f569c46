"""Adds up histograms of several processes, and estimates mean and quantiles."""

from collections import defaultdict
from collections.abc import Sequence
from math import inf


class Histogram:
    """The number of observations in each bucket, by its upper bound; the last bound is infinite.

    If releases with different bounds run side by side, the buckets have the bounds of all of them.
    """

    __slots__ = ("_buckets", "total")

    def __init__(self) -> None:
        self._buckets: dict[float, float] = defaultdict(float)
        #: The sum of the observations.
        self.total = 0.0

    def add(self, bounds: Sequence[float], counts: Sequence[float], total: float) -> None:
        """Add observations: counts by bucket (not cumulative, one more than `bounds`) and their sum."""
        for bound, count in zip((*bounds, inf), counts, strict=True):
            self._buckets[bound] += count
        self.total += total

    @property
    def count(self) -> float:
        """The number of observations."""
        return sum(self._buckets.values())

    @property
    def mean(self) -> float | None:
        """The mean; None without observations."""
        count = self.count
        return self.total / count if count else None

    def quantile(self, quantile: float) -> float | None:
        """The estimated quantile (0 to 1); None without observations.

        Like `histogram_quantile` of Prometheus, but it also uses the sum: observations are placed within their buckets
        so that they have the observed sum, and the first bucket begins at 0. So a single observation is exact, and a
        thousand of 2.003 s are not spread from 2 to 2.5. Above the last finite bound, the result is that bound.
        """
        rank = quantile * self.count
        if not self.count:
            return None
        bend = self._bend()
        if bend is None:
            bend = 1.0
        elif self.count == 1:
            return self.total
        lower = 0.0
        for upper in sorted(self._buckets):
            count = self._buckets[upper]
            if upper == inf:
                break
            if count and rank <= count:
                # The lower bound of a bucket below zero is unknown.
                return upper if upper <= lower else lower + (upper - lower) * (rank / count) ** bend
            rank -= count
            lower = upper
        return lower

    def _bend(self) -> float | None:
        """The exponent k: the position u within a bucket (0 to 1) becomes u ** k, so that the sum is the observed one.

        The mean of u ** k is 1 / (k + 1). None if the sum can't be used: observations above the last bound or below
        zero, or a sum that does not fit the counts.
        """
        least = room = lower = 0.0
        for upper in sorted(self._buckets):
            count = self._buckets[upper]
            if count and (upper == inf or upper <= 0):
                return None
            least += count * lower
            room += count * (upper - lower) if count else 0.0
            lower = max(upper, 0.0)
        place = (self.total - least) / room if room else 0.0
        # Tolerance for rounded sums, when all observations are at the upper bound.
        return max(0.0, 1.0 / place - 1.0) if 0.0 < place < 1.0 + 1e-9 else None
