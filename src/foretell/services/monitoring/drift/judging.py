"""Whether a field drifts: a judgement by how much and how surely, never by one of them alone.

With many rows, any difference is sure, also one that matters to nobody; with few, a large one may be chance. So a
field drifts only when the shift is large *and* more than chance explains, *and* more than days usually are apart: a
day's weather is one kind of weather. What is missing, outside of the reference's range or unknown to it is judged by
its share, in the same way; and so is what is there although the reference mostly lacks it. A bin or category in which
the reference counted nothing is outside of it, or unknown to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from foretell.contracts.reports.drift import Distribution, DriftStatus, FieldFinding
from foretell.inference.reference import Categories, Field, Numbers, is_never_there
from foretell.inference.stability import Counts, joined, psi, side_by_side
from foretell.services.monitoring.drift import statistics

#: From the best to the worst.
_ORDER: tuple[DriftStatus, ...] = ("no_reference", "not_enough_data", "stable", "shifting", "drifted")

#: Fewer rows than this say nothing of a distribution.
LEAST_ROWS = 500
LEAST_REFERENCE_ROWS = 200
#: How likely a stable model version is called unstable in one look, by chance alone; its fields share that.
CHANCE = 0.001
#: The population stability index from which a field shifts, and from which it has drifted.
SHIFTING_PSI, DRIFTED_PSI = 0.1, 0.25
#: A field that is farther than days usually are is shifting; so many times as far, it has drifted.
DRIFTED_BEYOND_USUAL = 1.25
#: So many days in a row are often alike, and average out as one.
DAYS_ALIKE = 2
#: In so many days together, good and bad ones have averaged out: nothing more is usual.
AVERAGED_OUT_DAYS = 28
#: The same of the share of rows that are missing, out of range or unknown, above that of the reference.
SHIFTING_SHARE, DRIFTED_SHARE = 0.01, 0.05
#: The ends of a reference's range are the extremes of a sample: so many rows of as many may well lie beyond.
_ROWS_BEYOND = 10


def worst(statuses: Sequence[DriftStatus]) -> DriftStatus:
    """The status of a whole by those of its parts; of nothing, not enough data."""
    return max(statuses, key=_ORDER.index, default="not_enough_data")


@dataclass(frozen=True, slots=True)
class Seen:
    """How often what was seen: in the bins of the reference, and beside them."""

    counts: Counts
    below: int = 0
    above: int = 0
    #: Of categories those that the reference doesn't have; of numbers what is no number.
    unseen: int = 0
    missing: int = 0

    @property
    def present(self) -> int:
        return int(self.counts.sum()) + self.below + self.above + self.unseen

    @property
    def rows(self) -> int:
        return self.present + self.missing


def judge(
    name: str, part: Literal["feature", "output"], field: Field, seen: Seen, fields: int, days: int = 1
) -> FieldFinding:
    """How this field, one of `fields` that are judged together, is distributed now compared with its reference.

    It was seen on so many `days`.
    """
    kind: Literal["numeric", "categorical"] = "numeric" if isinstance(field, Numbers) else "categorical"
    if seen.rows < LEAST_ROWS or _rows_of(field) + field.missing < LEAST_REFERENCE_ROWS:
        return FieldFinding(name, part, kind, "not_enough_data", [], seen.rows, LEAST_ROWS)
    chance = CHANCE / fields
    statuses: list[DriftStatus] = ["stable"]
    reasons: list[str] = []

    def judge_share(what: str, count: int, rows: int, known: int, known_rows: int) -> float:
        share = count / rows if rows else 0.0
        # With nothing to compare it with, there is nothing to say.
        status = _judge_share(count, rows, known, known_rows, chance) if known_rows else "stable"
        if status != "stable":
            statuses.append(status)
            usual = known / known_rows
            reasons.append(f"{share:.1%} of the rows {what}; it was {usual:.1%} in the reference.")
        return share

    reference_rows = _rows_of(field)
    missing = judge_share("lack it", seen.missing, seen.rows, field.missing, reference_rows + field.missing)
    judge_share("have it", seen.present, seen.rows, reference_rows, reference_rows + field.missing)
    in_empty = _in_empty_bins(field, seen)
    unknown = seen.unseen + (in_empty if isinstance(field, Categories) else 0)
    known_other = field.other if isinstance(field, Categories) else 0
    words = "are of no category of the reference" if kind == "categorical" else "are no numbers"
    unseen = judge_share(words, unknown, seen.present, known_other, reference_rows)
    outside = None
    if kind == "numeric":
        beyond = seen.below + seen.above + in_empty
        outside = judge_share("are outside of its range", beyond, seen.present, 0, reference_rows)
    distance = _distance(field, seen, chance)
    usual = _usual(field, days)
    if distance is not None:
        status = _judge_distance(distance, chance, usual)
        if status != "stable":
            statuses.append(status)
            reasons.append(
                f"Its distribution has moved: PSI {distance.psi:.2f}, by chance up to {distance.psi_by_chance:.2f}"
                + (f", usually up to {usual:.2f}." if usual else ".")
            )
        elif _judge_distance(distance, chance, 0.0) != "stable":
            reasons.append(
                f"PSI {distance.psi:.2f} is usual: single days of the training data have up to {field.usual_psi:.2f}"
                + ("." if days == 1 else f", {days} together up to {usual:.2f}.")
            )
    finding = FieldFinding(
        name,
        part,
        kind,
        worst(statuses),
        reasons,
        seen.rows,
        LEAST_ROWS,
        missing_share=missing,
        out_of_range_share=outside,
        unseen_share=unseen,
        distribution=_distribution(field, seen),
    )
    if distance is None:
        return finding
    return msgspec.structs.replace(
        finding,
        psi=distance.psi,
        psi_by_chance=distance.psi_by_chance,
        usual_psi=usual or None,
        test=distance.test,
        statistic=distance.statistic,
        p_value=distance.p_value,
        p_needed=chance,
    )


def _rows_of(field: Field) -> int:
    if isinstance(field, Numbers):
        return sum(field.counts)
    return sum(field.counts.values()) + field.other


def _in_empty_bins(field: Field, seen: Seen) -> int:
    """How many rows are in bins, or have categories, that are listed and in which the reference counted nothing."""
    counted = field.counts if isinstance(field, Numbers) else field.counts.values()
    return sum(int(count) for count, known in zip(seen.counts, counted, strict=True) if not known)


def _judge_share(count: int, rows: int, known: int, known_rows: int, chance: float) -> DriftStatus:
    """Whether a share of the rows has jumped. That of the reference may have been somewhat larger than was seen."""
    if not rows:
        return "stable"
    excess = count / rows - known / known_rows
    if excess < SHIFTING_SHARE:
        return "stable"
    usual = min((known + 3 * known**0.5 + _ROWS_BEYOND) / (known_rows + _ROWS_BEYOND), 1.0)
    if statistics.at_least(count, rows, usual) >= chance:
        return "stable"
    return "drifted" if excess >= DRIFTED_SHARE else "shifting"


@dataclass(frozen=True, slots=True)
class _Distance:
    psi: float
    psi_by_chance: float
    test: Literal["kolmogorov_smirnov", "chi_squared"]
    statistic: float
    p_value: float


def _distance(field: Field, seen: Seen, chance: float) -> _Distance | None:
    """How far the distributions are apart; None when too few rows have the field, or all are alike in the reference."""
    reference, counts = side_by_side(field, seen)
    rows = int(counts.sum())
    if rows < LEAST_ROWS or reference.sum() < LEAST_REFERENCE_ROWS:
        return None
    bins, bins_seen = joined(field, reference, counts)
    if len(bins) < 2:
        return None
    index = psi(bins, bins_seen)
    by_chance = statistics.psi_by_chance(len(bins), int(reference.sum()), rows, chance)
    if isinstance(field, Numbers):
        distance, p_value = statistics.kolmogorov_smirnov(reference, counts)
        return _Distance(index, by_chance, "kolmogorov_smirnov", distance, p_value)
    statistic, p_value = statistics.chi_squared(bins, bins_seen)
    return _Distance(index, by_chance, "chi_squared", statistic, p_value)


def _usual(field: Field, days: int) -> float:
    """How far so many days together are from the reference at most, as they usually are.

    The index grows with the square of what shares are off, and the mean of n days that have nothing to do with one
    another is off by 1/sqrt(n) of what one is.
    """
    return field.usual_psi / max(days / DAYS_ALIKE, 1) if days < AVERAGED_OUT_DAYS else 0.0


def _judge_distance(distance: _Distance, chance: float, usual: float) -> DriftStatus:
    if distance.p_value >= chance or distance.psi < max(SHIFTING_PSI, distance.psi_by_chance, usual):
        return "stable"
    return "drifted" if distance.psi >= max(DRIFTED_PSI, DRIFTED_BEYOND_USUAL * usual) else "shifting"


def _distribution(field: Field, seen: Seen) -> Distribution | None:
    if is_never_there(field):
        return None
    reference, counts = side_by_side(field, seen)
    rows = max(int(counts.sum()), 1)
    shares = [round(float(each), 6) for each in reference / reference.sum()]
    found = [round(float(each), 6) for each in counts / rows]
    if isinstance(field, Numbers):
        return Distribution(shares, found, edges=field.edges)
    # The last share is that of all others.
    return Distribution(shares, found, categories=list(field.counts))
