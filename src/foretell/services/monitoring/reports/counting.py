"""Increases of metrics in a period: the difference between the snapshots at its end and at its beginning.

A process's counters never decrease, and a restarted process is another instance, which counts from zero. So the
increases of all instances can be added up, including those that have ended.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import and_, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.monitoring import HEARTBEAT_EVERY_S, Family, Series
from foretell.kit.database import Moment
from foretell.services.monitoring.reports.histograms import Histogram
from foretell.services.monitoring.reports.period import Period
from foretell.services.monitoring.storage.instances import Instance, list_instances
from foretell.services.monitoring.storage.snapshots import families_of
from foretell.services.monitoring.storage.tables import instances, snapshots

Families = Mapping[str, Family]
Labels = tuple[str, ...]

#: A snapshot up to this long before a time counts as that of the time, because old ones are thinned to one a minute.
_STALE = timedelta(seconds=90)
_NOTHING: Families = {}
#: Instances whose snapshots one statement reads.
_TOGETHER = 50
#: In a crash loop of many days, the oldest instances are left out.
_MOST_INSTANCES = 5_000


@dataclass(frozen=True, slots=True)
class Taken:
    """The metrics of one process at one time."""

    at: datetime
    families: Families


@dataclass(frozen=True, slots=True)
class Counted:
    """One process and its metrics at each time of the period; the first is subtracted from the last."""

    instance: Instance
    taken: Sequence[Taken]

    @property
    def elapsed_s(self) -> float:
        """The time between the first and the last metrics, in seconds."""
        return max((self.taken[-1].at - self.taken[0].at).total_seconds(), HEARTBEAT_EVERY_S)


class Counts:
    """The increases of all instances in a period."""

    def __init__(self, period: Period, counted: Sequence[Counted], moments: Sequence[datetime] = ()) -> None:
        """`moments` are the bounds of the parts of the period; without them, it is one part."""
        self.period = period
        self.counted = counted
        self.moments = moments or (period.since, period.until)

    @property
    def span_s(self) -> float:
        """The seconds of the period that the snapshots cover; fewer if monitoring started later."""
        return self._covered_s(self.period.since, self.period.until)

    def increases(self, name: str, *by: str) -> dict[Labels, float]:
        """The increase of a counter by the values of these labels, which may include `service` and `instance`."""
        sums: dict[Labels, float] = defaultdict(float)
        for each in self.counted:
            for labels, increase in _increases(each, name, by, each.taken[0], each.taken[-1]):
                sums[labels] += increase
        return dict(sums)

    def increase(self, name: str) -> float:
        """The increase of a counter over all its series."""
        return sum(self.increases(name).values())

    def histograms(self, name: str, *by: str) -> dict[Labels, Histogram]:
        """The observations of a histogram, by the values of these labels."""
        found: dict[Labels, Histogram] = defaultdict(Histogram)
        for each in self.counted:
            family = each.taken[-1].families.get(name)
            if family is None or family.kind != "histogram":
                continue
            for series, counts, total in _observed(name, each.taken[0], each.taken[-1]):
                found[_picked(each.instance, series, by)].add(family.bounds, counts, total)
        return {labels: histogram for labels, histogram in found.items() if histogram.count}

    def histogram_parts(self, name: str) -> list[Histogram]:
        """The observations in each part of the period, over all series; spread evenly between two snapshots."""
        parts = list(pairwise(self.moments))
        found = [Histogram() for _ in parts]
        for each in self.counted:
            for earlier, later in pairwise(each.taken):
                elapsed_s = (later.at - earlier.at).total_seconds()
                family = later.families.get(name)
                if elapsed_s <= 0 or family is None or family.kind != "histogram":
                    continue
                observed = [(counts, total) for _, counts, total in _observed(name, earlier, later) if any(counts)]
                for histogram, (begin, end) in zip(found, parts, strict=True):
                    share = (min(end, later.at) - max(begin, earlier.at)).total_seconds() / elapsed_s
                    if share > 0:
                        for counts, total in observed:
                            histogram.add(family.bounds, [count * share for count in counts], total * share)
        return found

    def rates(self, name: str) -> list[float]:
        """The increase of a counter per second in each part of the period, spread evenly between two snapshots."""
        parts = list(pairwise(self.moments))
        grown = [0.0] * len(parts)
        for each in self.counted:
            for earlier, later in pairwise(each.taken):
                if later.at <= earlier.at:
                    continue
                increase = sum(increase for _, increase in _increases(each, name, (), earlier, later))
                if not increase:
                    continue
                elapsed_s = (later.at - earlier.at).total_seconds()
                for number, (begin, end) in enumerate(parts):
                    common_s = (min(end, later.at) - max(begin, earlier.at)).total_seconds()
                    if common_s > 0:
                        grown[number] += increase * common_s / elapsed_s
        return [increase / self._covered_s(begin, end) for increase, (begin, end) in zip(grown, parts, strict=True)]

    def _covered_s(self, begin: datetime, end: datetime) -> float:
        """The seconds of this time that the snapshots cover."""
        if not self.counted:
            return (end - begin).total_seconds()
        first = min(each.taken[0].at for each in self.counted)
        last = max(each.taken[-1].at for each in self.counted)
        return max((min(last, end) - max(first, begin)).total_seconds(), HEARTBEAT_EVERY_S)

    def newest(self, name: str, *by: str, service: str | None = None) -> dict[Labels, tuple[datetime, float]]:
        """The newest values, with their times, of a gauge that has the same value in several processes."""
        found: dict[Labels, tuple[datetime, float]] = {}
        for each in self.counted:
            family = each.taken[-1].families.get(name)
            if family is None or (service is not None and each.instance.service != service):
                continue
            at = each.taken[-1].at
            for series in family.series:
                labels = _picked(each.instance, series, by)
                if labels not in found or found[labels][0] < at:
                    found[labels] = (at, series.value)
        return found


def _observed(name: str, earlier: Taken, later: Taken) -> Iterator[tuple[Series, Sequence[float], float]]:
    """The increase of each series of a histogram: by bucket, and of its sum."""
    before = _by_labels(earlier.families.get(name))
    for series in later.families[name].series:
        known = before.get(_identity(series))
        if known is None:
            yield series, series.buckets, series.value
        else:
            grown = [max(0.0, now - then) for now, then in zip(series.buckets, known.buckets, strict=True)]
            yield series, grown, max(0.0, series.value - known.value)


def _increases(
    counted: Counted, name: str, by: Iterable[str], earlier: Taken, later: Taken
) -> Iterator[tuple[Labels, float]]:
    family = later.families.get(name)
    if family is None:
        return
    before = _by_labels(earlier.families.get(name))
    for series in family.series:
        known = before.get(_identity(series))
        yield (
            _picked(counted.instance, series, by),
            max(0.0, series.value - (known.value if known is not None else 0.0)),
        )


def _by_labels(family: Family | None) -> dict[frozenset[tuple[str, str]], Series]:
    return {_identity(series): series for series in family.series} if family is not None else {}


def _identity(series: Series) -> frozenset[tuple[str, str]]:
    return frozenset(series.labels.items())


def _picked(instance: Instance, series: Series, by: Iterable[str]) -> Labels:
    own = {"service": instance.service, "instance": instance.instance}
    return tuple(series.labels.get(name, own.get(name, "")) for name in by)


async def count(
    connection: AsyncConnection,
    period: Period,
    *,
    points: int = 1,
    service: str | None = None,
    names: Collection[str] | None = None,
) -> Counts:
    """The increases of the instances (of one service, or all) in `period`, in up to `points` parts of it.

    With `names`, only these metrics are read, which takes less time.
    """
    moments = period.moments(points)
    seen = await list_instances(connection, service=service, seen_since=period.since)
    if len(seen) > _MOST_INSTANCES:
        seen = sorted(seen, key=lambda each: each.last_seen_at)[-_MOST_INSTANCES:]
    known = {each.id: each for each in seen}
    if not known:
        return Counts(period, [], moments)
    times = await _times(connection, list(known), moments)
    first_after = await _first_after(connection, list(known), moments[0], moments[-1])
    plans = {
        number: plan
        for number, instance in known.items()
        if (plan := _plan(instance, times[number], first_after.get(number), moments)) is not None
    }
    wanted = {number: {at for at, snapped in plan if snapped} for number, plan in plans.items()}
    bodies = await _bodies(connection, wanted)
    # In a thread, because each snapshot takes a few milliseconds and would block the event loop.
    decoded = await asyncio.to_thread(_decode, bodies, names)
    return Counts(
        period,
        [
            Counted(
                known[number],
                [Taken(at, decoded.get((number, at), _NOTHING) if snapped else _NOTHING) for at, snapped in plan],
            )
            for number, plan in plans.items()
        ],
        moments,
    )


def _plan(
    instance: Instance, times: Sequence[datetime | None], first_after: datetime | None, moments: Sequence[datetime]
) -> list[tuple[datetime, bool]] | None:
    """The time of the snapshot to use at each moment, and whether it exists; None without any snapshot in the period.

    Without a snapshot near the first moment, a process that started later counts from zero, at its start. Another
    process counts from its first snapshot, since its earlier counts are unknown.
    """
    begin, end = moments[0], times[-1]
    if end is None or end < begin:
        return None
    first = times[0]
    if first is not None and first >= begin - _STALE:
        plan = [(first, True)]
    elif first is None and instance.started_at >= begin - _STALE:
        plan = [(min(instance.started_at, end), False)]
    elif first_after is not None:
        plan = [(first_after, True)]
    else:
        return None
    for at in times[1:]:
        plan.append((at, True) if at is not None and at > plan[-1][0] else plan[-1])
    if not plan[-1][1]:
        # Its start and its only snapshot have the same time.
        plan[-1] = (end, True)
    return plan


async def _times(
    connection: AsyncConnection, ids: Sequence[int], moments: Sequence[datetime]
) -> dict[int, list[datetime | None]]:
    """The time of each instance's last snapshot at or before each moment; None also when it was not running."""
    last = len(moments) - 1
    # A process's last snapshot may be up to one part before the moment that it counts for, and clocks differ.
    slack = moments[1] - moments[0] + _STALE
    asked = union_all(
        *(
            select(
                literal(number).label("number"),
                literal(at, Moment()).label("moment"),
                literal(at - slack, Moment()).label("not_gone_since"),
            )
            for number, at in enumerate(moments)
        )
    ).cte("asked")
    newest = (
        select(func.max(snapshots.c.at))
        .where(snapshots.c.instance_id == instances.c.id, snapshots.c.at <= asked.c.moment)
        .correlate(instances, asked)
        .scalar_subquery()
    )
    lived = and_(asked.c.moment >= instances.c.started_at, asked.c.not_gone_since <= instances.c.last_seen_at)
    query = (
        select(instances.c.id, asked.c.number, newest.label("at"))
        .join_from(instances, asked, or_(asked.c.number.in_([0, last]), lived))
        .where(instances.c.id.in_(ids))
    )
    times: dict[int, list[datetime | None]] = {number: [None] * len(moments) for number in ids}
    for row in await connection.execute(query):
        times[row.id][row.number] = row.at
    return times


async def _first_after(
    connection: AsyncConnection, ids: Sequence[int], since: datetime, until: datetime
) -> dict[int, datetime]:
    oldest = (
        select(func.min(snapshots.c.at))
        .where(snapshots.c.instance_id == instances.c.id, snapshots.c.at > since, snapshots.c.at <= until)
        .correlate(instances)
        .scalar_subquery()
    )
    rows = await connection.execute(select(instances.c.id, oldest.label("at")).where(instances.c.id.in_(ids)))
    return {row.id: row.at for row in rows if row.at is not None}


async def _bodies(
    connection: AsyncConnection, wanted: Mapping[int, set[datetime]]
) -> dict[tuple[int, datetime], bytes]:
    bodies = {}
    numbers = sorted(wanted)
    for start in range(0, len(numbers), _TOGETHER):
        # Not a list of pairs, for which SQLite would read the whole table.
        some = or_(
            *(
                and_(snapshots.c.instance_id == number, snapshots.c.at.in_(sorted(wanted[number])))
                for number in numbers[start : start + _TOGETHER]
            )
        )
        for row in await connection.execute(
            select(snapshots.c.instance_id, snapshots.c.at, snapshots.c.body).where(some)
        ):
            bodies[row.instance_id, row.at] = row.body
    return bodies


def _decode(
    bodies: Mapping[tuple[int, datetime], bytes], names: Collection[str] | None
) -> dict[tuple[int, datetime], Families]:
    return {key: {family.name: family for family in families_of(body, names)} for key, body in bodies.items()}
