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
        """The value that this share (0 to 1) does not exceed, as `histogram_quantile` of Prometheus estimates it.

        Observations are taken to lie evenly within their bucket, and the first bucket to begin at 0. What lies above
        the last finite bound is only known to do so: then it is that bound. None of nothing.
        """
        rank = quantile * self.count
        if not self.count:
            return None
        lower = 0.0
        for upper in sorted(self._buckets):
            count = self._buckets[upper]
            if upper == inf:
                break
            if count and rank <= count:
                # Of a bucket below zero it is not known where it begins.
                return upper if upper <= lower else lower + (upper - lower) * (rank / count)
            rank -= count
            lower = upper
        return lower
