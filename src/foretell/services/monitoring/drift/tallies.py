"""Counts of a model version in sliding windows, in memory; each new observation is one addition.

A window consists of sixty complete slices and the current one, so it may be up to one slice longer than its setting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foretell.contracts.monitoring import Observation, Observed
from foretell.inference.reference import Field, Reference
from foretell.services.monitoring.drift.judging import Seen

_SLICES = 60
#: Allowed difference between clocks. Observations from later times are ignored.
_AHEAD_S = 300.0

Part = Literal["feature", "output"]


@dataclass(slots=True)
class Total:
    """The counts of a window."""

    rows: int = 0
    passed: int = 0
    since: datetime | None = None
    until: datetime | None = None
    #: The number of days (UTC) with observations, at most the rounded length of their span: one night counts as one.
    days: int = 1
    fields: dict[tuple[Part, str], Seen] = field(default_factory=dict)


@dataclass(slots=True)
class _Slice:
    counts: NDArray[np.int64]
    rows: int
    passed: int
    since: datetime
    until: datetime


class Tally:
    """The windows of one model version with one reference."""

    def __init__(self, reference: Reference, windows_s: Sequence[float]) -> None:
        self.sha256 = reference.sha256
        self._layout = _layout(reference)
        self._length = sum(bins + _BESIDE for _, _, bins in self._layout)
        self._longest_s = max(windows_s)
        self._windows: dict[float, dict[int, _Slice]] = {window_s: {} for window_s in windows_s}

    def add(self, observation: Observation, now: datetime) -> None:
        """Count an observation, unless it has another reference, is too old or has invalid counts."""
        age_s = (now - observation.until).total_seconds()
        if observation.reference_sha256 != self.sha256 or not -_AHEAD_S <= age_s <= self._longest_s:
            return
        counts = self._counts(observation)
        if counts is None:
            return
        for window_s, slices in self._windows.items():
            key = _key(observation.until, window_s)
            known = slices.get(key)
            if known is None:
                slices[key] = _Slice(
                    counts.copy(), observation.rows, observation.passed, observation.since, observation.until
                )
            else:
                known.counts += counts
                known.rows += observation.rows
                known.passed += observation.passed
                known.since = min(known.since, observation.since)
                known.until = max(known.until, observation.until)

    def total(self, window_s: float, now: datetime) -> Total:
        """The counts of that window until `now`; older slices are dropped."""
        slices = self._windows[window_s]
        oldest = _key(now, window_s) - _SLICES
        for key in [key for key in slices if key < oldest]:
            del slices[key]
        counts = np.zeros(self._length, dtype=np.int64)
        total = Total()
        dates = set()
        for each in slices.values():
            counts += each.counts
            total.rows += each.rows
            total.passed += each.passed
            total.since = each.since if total.since is None else min(total.since, each.since)
            total.until = each.until if total.until is None else max(total.until, each.until)
            dates |= {each.since.date(), each.until.date()}
        if total.since is not None and total.until is not None:
            total.days = max(1, min(len(dates), round((total.until - total.since) / _DAY)))
        start = 0
        for part, name, bins in self._layout:
            below, above, unseen, missing = (int(each) for each in counts[start + bins : start + bins + _BESIDE])
            total.fields[part, name] = Seen(counts[start : start + bins], below, above, unseen, missing)
            start += bins + _BESIDE
        return total

    def _counts(self, observation: Observation) -> NDArray[np.int64] | None:
        values: list[int] = []
        parts: Mapping[Part, Mapping[str, Observed]] = {"feature": observation.features, "output": observation.outputs}
        for part, name, bins in self._layout:
            seen = parts[part].get(name)
            if seen is None or len(seen.counts) != bins:
                values += [0] * (bins + _BESIDE)
            else:
                values += [*seen.counts, seen.below, seen.above, seen.unseen, seen.missing]
        if not 0 <= observation.rows <= observation.passed or min(values, default=0) < 0:
            return None
        # A count can't exceed the rows, and bounded values can't overflow the sums.
        return np.array(values, dtype=np.int64) if max(values, default=0) <= observation.rows < _MOST_ROWS else None


#: The counts after the bins of each field: below, above, unseen, missing.
_BESIDE = 4
_MOST_ROWS = 2**40


def _layout(reference: Reference) -> list[tuple[Part, str, int]]:
    """Part, name and number of bins of each field, in order."""

    def of(part: Part, fields: Mapping[str, Field]) -> list[tuple[Part, str, int]]:
        return [(part, name, len(each.counts)) for name, each in fields.items()]

    return of("feature", reference.features) + of("output", reference.outputs)


def _key(moment: datetime, window_s: float) -> int:
    return int((moment - _EPOCH).total_seconds() * _SLICES / window_s)


_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
