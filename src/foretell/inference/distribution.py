"""Makes a reference from rows: chooses bins for the values, and counts them.

The counters are the same as those for live rows.
"""

import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ulp
from typing import Any

from foretell.inference.observing import category, counter
from foretell.inference.reference import MAX_FIELDS, Categories, Field, Numbers, Reference

Row = Mapping[str, Any]

#: Up to so many different numbers have a bin each; otherwise there are fewer bins with about as many rows each.
_MOST_VALUES = 30
_BINS = 20
#: Up to so many different texts are categories; more only if most of them repeat. Otherwise the length is counted.
_MOST_TEXTS = 50
_MOST_CATEGORIES = 100
_OFTEN = 20
#: For a constant number, the difference that counts as equal (rounding errors): relative to the number, and absolute
#: at 0.
_ROUNDING = 1e-6
_SMALLEST = 1e-12


def describe(features: Sequence[Row], outputs: Sequence[Row]) -> tuple[Reference, list[str]]:
    """The reference of these rows and answers, and the names of fields that can't be counted, such as lists."""
    left_out: list[str] = []
    parts: list[dict[str, Field]] = []
    for rows in (features, outputs):
        flat = [dict(flattened(row)) for row in rows]
        names = list(dict.fromkeys(name for row in flat for name in row))
        fields: dict[str, Field] = {}
        for name in names:
            field = _field([row.get(name) for row in flat]) if len(fields) < MAX_FIELDS else None
            if field is None:
                left_out.append(name)
            else:
                fields[name] = field
        parts.append(fields)
    return Reference(len(features), parts[0], parts[1]), left_out


def flattened(row: Row, before: str = "") -> Iterable[tuple[str, Any]]:
    """Names and values of a row; names in nested objects are joined by dots."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _field(values: Sequence[Any]) -> Field | None:
    present = [value for value in values if value is not None]
    missing = len(values) - len(present)
    kinds = {type(value) for value in present}
    if not present:
        return Categories({}, missing=missing)
    if any(category(value) is None for value in present):
        return None
    if kinds <= {int, float}:
        return _numbers(present, missing)
    if kinds == {str} and not _are_categories(present):
        lengths = _numbers([len(value) for value in present], missing)
        return Numbers(lengths.edges, lengths.counts, lengths.mean, lengths.std, of="length", missing=missing)
    return _categories(present, missing)


def _are_categories(texts: Sequence[str]) -> bool:
    different = Counter(texts)
    if len(different) <= _MOST_TEXTS and len(texts) >= 2 * len(different):
        return True
    return sum(count for count in different.values() if count >= _OFTEN) > len(texts) / 2


def _categories(values: Sequence[Any], missing: int) -> Categories:
    counts = Counter(text for value in values if (text := category(value)) is not None)
    if set(counts) <= {"true", "false"}:
        return Categories({"false": counts["false"], "true": counts["true"]}, missing=missing)
    listed = dict(sorted(counts.most_common(_MOST_CATEGORIES)))
    return Categories(listed, other=len(values) - sum(listed.values()), missing=missing)


def _numbers(values: Sequence[float], missing: int) -> Numbers:
    edges = _edges(sorted(float(value) for value in values), all(type(value) is int for value in values))
    counting = counter(Numbers(edges, [0] * (len(edges) - 1)))
    for value in values:
        counting.count(value)
    return Numbers(
        edges,
        counting.take().counts,
        mean=round(statistics.fmean(values), 6),
        std=round(statistics.pstdev(values), 6),
        missing=missing,
    )


def _edges(ordered: Sequence[float], whole: bool) -> list[float]:
    different = sorted(set(ordered))
    low, high = different[0], different[-1]
    if low == high:
        around = max(abs(low) * _ROUNDING, _SMALLEST)
        # The bin needs a width, and that of a whole number must not include the next number.
        around = max(min(around, 0.5) if whole else around, ulp(low))
        return [low - around, low + around]
    if len(different) <= _MOST_VALUES:
        between = [before / 2 + after / 2 for before, after in pairwise(different)]
        return sorted({low, *between, high})
    inner: set[float] = set()
    quantiles = [ordered[place * len(ordered) // _BINS] for place in range(1, _BINS)]
    for before, quantile in pairwise([low, *quantiles]):
        # A frequent value gets its own bin, from it up to the next value.
        above = min(bisect_right(different, quantile), len(different) - 1)
        inner.add(different[above] if quantile == before else quantile)
    if high in inner:
        # The same for the last value.
        inner.add(different[-2] / 2 + high / 2)
    return sorted({low, *inner, high})
