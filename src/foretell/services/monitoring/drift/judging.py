"""Decides whether a field drifts, by the size of the shift and by its significance.

With many rows even an unimportant difference is significant; with few rows a large difference may be chance. So a field
drifts only if the shift is large, significant, and larger than the usual difference between single days. The share of
rows that are missing, out of range or unknown is judged in the same way, and so is the share of rows that have the
field when it is mostly missing in the reference. A bin or category with a reference count of 0 counts as out of range
or unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from foretell.contracts.reports.drift import Change, Distribution, DriftStatus, FieldFinding
from foretell.inference.reference import Categories, Field, Numbers, is_never_there
from foretell.inference.stability import Counts, joined, psi, side_by_side
from foretell.services.monitoring.drift import statistics

#: From best to worst.
_ORDER: tuple[DriftStatus, ...] = ("no_reference", "not_enough_data", "stable", "shifting", "drifted")

#: The smallest number of rows for which a distribution is compared.
LEAST_ROWS = 500
LEAST_REFERENCE_ROWS = 200
#: The probability that a stable model version is called unstable in one run by chance. It is divided among its fields.
CHANCE = 0.001
#: The population stability index from which a field shifts, and from which it has drifted.
SHIFTING_PSI, DRIFTED_PSI = 0.1, 0.25
#: A field is shifting if its PSI exceeds the usual one of single days; it has drifted at this many times the usual one.
DRIFTED_BEYOND_USUAL = 1.25
#: This many consecutive days are often alike and count as one independent day.
DAYS_ALIKE = 2
#: Over this many days, differences between days have averaged out, and no PSI is usual any more.
AVERAGED_OUT_DAYS = 28
#: The same thresholds for the share of rows that are missing, out of range or unknown, above that of the reference.
SHIFTING_SHARE, DRIFTED_SHARE = 0.01, 0.05
#: The range of a reference is that of a sample, so this many rows of an equally large sample may well be outside.
_ROWS_BEYOND = 10


_Share = Literal["missing", "present", "unknown_category", "not_a_number", "out_of_range"]
#: What the rows do that are counted.
_WORDS: dict[_Share, str] = {
    "missing": "lack it",
    "present": "have it",
    "unknown_category": "are of no category of the reference",
    "not_a_number": "are no numbers",
    "out_of_range": "are outside of its range",
}


def worst(statuses: Sequence[DriftStatus]) -> DriftStatus:
    """The worst of these statuses; "not enough data" for none."""
    return max(statuses, key=_ORDER.index, default="not_enough_data")


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts in the bins of the reference and outside them."""

    counts: Counts
    below: int = 0
    above: int = 0
    #: Categories that the reference doesn't have; for a numeric field, values that are no numbers.
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
    """Compare the distribution of a field with its reference.

    `fields` is the number of fields judged together; `days` the number of days with observations.
    """
    kind: Literal["numeric", "categorical"] = "numeric" if isinstance(field, Numbers) else "categorical"
    if seen.rows < LEAST_ROWS or _rows_of(field) + field.missing < LEAST_REFERENCE_ROWS:
        return FieldFinding(name, part, kind, "not_enough_data", [], seen.rows, LEAST_ROWS)
    chance = CHANCE / fields
    statuses: list[DriftStatus] = ["stable"]
    changes: list[Change] = []
    reasons: list[str] = []

    def judge_share(what: _Share, count: int, rows: int, known: int, known_rows: int) -> float:
        share = count / rows if rows else 0.0
        # Without reference rows there is nothing to compare with.
        status = _judge_share(count, rows, known, known_rows, chance) if known_rows else "stable"
        if status != "stable":
            statuses.append(status)
            usual = known / known_rows
            changes.append(Change(what, share, usual))
            reasons.append(f"{share:.1%} of the rows {_WORDS[what]}; it was {usual:.1%} in the reference.")
        return share

    reference_rows = _rows_of(field)
    missing = judge_share("missing", seen.missing, seen.rows, field.missing, reference_rows + field.missing)
    judge_share("present", seen.present, seen.rows, reference_rows, reference_rows + field.missing)
    in_empty = _in_empty_bins(field, seen)
    unknown = seen.unseen + (in_empty if isinstance(field, Categories) else 0)
    known_other = field.other if isinstance(field, Categories) else 0
    what: _Share = "unknown_category" if kind == "categorical" else "not_a_number"
    unseen = judge_share(what, unknown, seen.present, known_other, reference_rows)
    outside = None
    if kind == "numeric":
        beyond = seen.below + seen.above + in_empty
        outside = judge_share("out_of_range", beyond, seen.present, 0, reference_rows)
    distance = _distance(field, seen, chance)
    usual = _usual(field, days)
    if distance is not None:
        status = _judge_distance(distance, chance, usual)
        if status != "stable":
            statuses.append(status)
            changes.append(Change("distribution"))
            reasons.append(
                f"Its distribution has moved: PSI {distance.psi:.2f}, by chance up to {distance.psi_by_chance:.2f}"
                + (f", usually up to {usual:.2f}." if usual else ".")
            )
        elif _judge_distance(distance, chance, 0.0) != "stable":
            changes.append(Change("usual"))
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
        changes=changes,
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
    """The rows in bins or categories that the reference lists with a count of 0."""
    counted = field.counts if isinstance(field, Numbers) else field.counts.values()
    return sum(int(count) for count, known in zip(seen.counts, counted, strict=True) if not known)


def _judge_share(count: int, rows: int, known: int, known_rows: int, chance: float) -> DriftStatus:
    """The status of a share of the rows. The reference's true share may be somewhat larger than its sample's."""
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
    """The distance of the distributions; None if too few rows have the field or the reference has only one bin."""
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
    """The usual PSI of this many days together.

    The PSI grows with the square of the deviation of the shares, and the mean of n independent days deviates by
    1/sqrt(n) of the deviation of one day. So the usual PSI falls with 1/n.
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
    # The last share is that of all other categories.
    return Distribution(shares, found, categories=list(field.counts))
