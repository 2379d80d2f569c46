"""Histograms of several processes added up, and what can be read off them."""

from collections import defaultdict
from collections.abc import Sequence
from math import inf


class Histogram:
    """How many observations there were in each bucket, by the bucket's upper bound; the last one's is infinite.

    Releases with different bounds may run side by side: then a bucket is as wide as the bounds of all leave it.
    """

    __slots__ = ("_buckets", "total")

    def __init__(self) -> None:
        self._buckets: dict[float, float] = defaultdict(float)
        #: The sum of what was observed.
        self.total = 0.0

    def add(self, bounds: Sequence[float], counts: Sequence[float], total: float) -> None:
        """Add so many observations in each bucket (not cumulative, one more than `bounds`), with this sum."""
        for bound, count in zip((*bounds, inf), counts, strict=True):
            self._buckets[bound] += count
        self.total += total

    @property
    def count(self) -> float:
        """How many observations there were."""
        return sum(self._buckets.values())

    @property
    def mean(self) -> float | None:
        """The mean; None of nothing."""
        count = self.count
        return self.total / count if count else None

    def quantile(self, quantile: float) -> float | None:
        """The value that this share (0 to 1) does not exceed, estimated; None of nothing.

        As `histogram_quantile` of Prometheus, but for what the sum tells: observations lie within their bucket such
        that their sum is the one observed, and the first bucket begins at 0. So one observation alone is told as it
        was, and a thousand of 2.003 s are not spread from 2 to 2.5. What lies above the last finite bound is only known
        to do so: then it is that bound.
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
                # Of a bucket below zero it is not known where it begins.
                return upper if upper <= lower else lower + (upper - lower) * (rank / count) ** bend
            rank -= count
            lower = upper
        return lower

    def _bend(self) -> float | None:
        """The power of the place within a bucket (0 to 1) with which the observations have their sum.

        The mean of u ** k for u from 0 to 1 is 1 / (k + 1). None where the sum says nothing: some lie above the last
        bound, some below zero, or it does not fit the counts.
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
        # Sums are rounded: all may lie at the upper end.
        return max(0.0, 1.0 / place - 1.0) if 0.0 < place < 1.0 + 1e-9 else None
