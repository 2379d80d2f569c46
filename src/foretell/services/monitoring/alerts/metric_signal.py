"""The signal `metric`: values, growth, rates, shares and quantiles, over all instances of a subject."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from statistics import fmean
from typing import NamedTuple

from foretell.contracts.monitoring import Family, Series
from foretell.contracts.reports.alert_rules import Aggregate, Pattern, Rule
from foretell.services.monitoring.alerts.alert import Measurement
from foretell.services.monitoring.alerts.snapshot import Snapshot
from foretell.services.monitoring.reports.histograms import Histogram
from foretell.services.monitoring.storage.instances import Instance

_Group = tuple[str, ...]

#: Over a shorter time, a single event would give a high rate.
_SHORTEST_RATE_S = 10.0
_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {
    "max": max,
    "min": min,
    "sum": sum,
    "avg": fmean,
}


class _Found(NamedTuple):
    """A series of one instance that a rule selects; `first` is None if it did not exist at the start of the window."""

    group: _Group
    labels: Mapping[str, str]
    last: Series
    first: Series | None
    bounds: tuple[float, ...]
    instance: Instance
    elapsed_s: float
    live: bool

    @property
    def increase(self) -> float:
        """The increase of a counter; never negative, since a process's counters never decrease."""
        return max(0.0, self.last.value - (self.first.value if self.first is not None else 0.0))


def measure_metric(rule: Rule, snapshot: Snapshot) -> list[Measurement]:
    """Measure each subject of a rule with the signal `metric`."""
    numbers = _BY_KIND[rule.kind](rule, snapshot)
    return [Measurement(dict(zip(rule.by, group, strict=True)), value) for group, value in sorted(numbers.items())]


def _gauges(rule: Rule, snapshot: Snapshot) -> dict[_Group, float]:
    return _put_together(rule.aggregate or "max", ((each.group, each.last.value) for each in _live(rule, snapshot)))


def _ages(rule: Rule, snapshot: Snapshot) -> dict[_Group, float]:
    """The age of the time in a gauge, at most the age of the instance, which may not have set it yet.

    If the rule names services, their instances without the gauge count with their age.
    """
    now = snapshot.now.timestamp()
    ages = [
        (each.group, now - max(each.last.value, each.instance.started_at.timestamp())) for each in _live(rule, snapshot)
    ]
    for counted in snapshot.windows[rule.window_s]:
        silent = rule.metric not in counted.taken[-1].families and snapshot.is_live(counted.instance)
        own = _own_labels(counted.instance)
        if silent and "service" in rule.labels and _fits(rule.labels, own):
            group = tuple(own.get(name, "") for name in rule.by)
            ages.append((group, now - counted.instance.started_at.timestamp()))
    return _put_together(rule.aggregate or "min", ages)


def _growths(rule: Rule, snapshot: Snapshot) -> dict[_Group, float]:
    """The increase of a gauge over the window, even if another instance reports it now."""
    found = list(_found(rule, snapshot))
    before = _put_together(
        rule.aggregate or "max", ((each.group, each.first.value) for each in found if each.first is not None)
    )
    after = _put_together(rule.aggregate or "max", ((each.group, each.last.value) for each in found if each.live))
    return {group: after[group] - before[group] for group in after if group in before}


def _rates(rule: Rule, snapshot: Snapshot) -> dict[_Group, float]:
    """Events per second, including those of instances that ended within the window."""
    rates: dict[_Group, float] = defaultdict(float)
    for each in _found(rule, snapshot):
        elapsed_s = max(each.elapsed_s, _SHORTEST_RATE_S) if each.live else rule.window_s
        rates[each.group] += each.increase / elapsed_s
    return rates


def _increases(rule: Rule, snapshot: Snapshot) -> dict[_Group, float]:
    increases: dict[_Group, float] = defaultdict(float)
    for each in _found(rule, snapshot):
        increases[each.group] += each.increase
    return increases


def _shares(rule: Rule, snapshot: Snapshot) -> dict[_Group, float]:
    all_of: dict[_Group, float] = defaultdict(float)
    part_of: dict[_Group, float] = defaultdict(float)
    for each in _found(rule, snapshot):
        all_of[each.group] += each.increase
        if _fits(rule.part, each.labels):
            part_of[each.group] += each.increase
    return {group: part_of[group] / total for group, total in all_of.items() if total > 0 and total >= rule.min_count}


def _quantiles(rule: Rule, snapshot: Snapshot) -> dict[_Group, float]:
    histograms: dict[_Group, Histogram] = defaultdict(Histogram)
    for each in _found(rule, snapshot):
        held = each.last.buckets
        if each.first is not None:
            held = [max(0.0, now - then) for now, then in zip(held, each.first.buckets, strict=True)]
        histograms[each.group].add(each.bounds, held, each.increase)
    read = {group: each.quantile(rule.quantile) for group, each in histograms.items() if each.count >= rule.min_count}
    return {group: value for group, value in read.items() if value is not None}


_BY_KIND: Mapping[str, Callable[[Rule, Snapshot], dict[_Group, float]]] = {
    "gauge": _gauges,
    "age": _ages,
    "growth": _growths,
    "rate": _rates,
    "increase": _increases,
    "share": _shares,
    "quantile": _quantiles,
}


def _live(rule: Rule, snapshot: Snapshot) -> Iterator[_Found]:
    return (each for each in _found(rule, snapshot) if each.live)


def _found(rule: Rule, snapshot: Snapshot) -> Iterator[_Found]:
    for counted in snapshot.windows[rule.window_s]:
        family = counted.taken[-1].families.get(rule.metric)
        if family is None:
            continue
        _check_kind(rule, family)
        instance, live = counted.instance, snapshot.is_live(counted.instance)
        own = _own_labels(instance)
        bounds = tuple(family.bounds)
        before = counted.taken[0].families.get(rule.metric)
        firsts = {_identity(series): series for series in before.series} if before is not None else {}
        for series in family.series:
            labels = {**own, **series.labels}
            if _fits(rule.labels, labels):
                group = tuple(labels.get(name, "") for name in rule.by)
                first = firsts.get(_identity(series))
                yield _Found(group, labels, series, first, bounds, instance, counted.elapsed_s, live)


def _own_labels(instance: Instance) -> dict[str, str]:
    return {"service": instance.service, "instance": instance.instance}


class WrongKind(Exception):
    """The rule's kind does not fit the kind of the metric."""


def _check_kind(rule: Rule, family: Family) -> None:
    if (rule.kind == "quantile") != (family.kind == "histogram"):
        raise WrongKind(f"{family.name} is a {family.kind}: kind = {rule.kind!r} does not go with it.")


def _identity(series: Series) -> frozenset[tuple[str, str]]:
    return frozenset(series.labels.items())


def _fits(wanted: Mapping[str, Pattern], labels: Mapping[str, str]) -> bool:
    for name, pattern in wanted.items():
        if not _matches(pattern if isinstance(pattern, str) else tuple(pattern), labels.get(name, "")):
            return False
    return True


@lru_cache(maxsize=4096)
def _matches(pattern: str | tuple[str, ...], value: str) -> bool:
    """Whether a value matches any pattern without `!` (if there is one) and none with `!`. Cached: arguments repeat."""
    patterns = (pattern,) if isinstance(pattern, str) else pattern
    refused = [each[1:] for each in patterns if each.startswith("!")]
    wanted = [each for each in patterns if not each.startswith("!")]
    if any(fnmatchcase(value, each) for each in refused):
        return False
    return not wanted or any(fnmatchcase(value, each) for each in wanted)


def _put_together(aggregate: Aggregate, values: Iterable[tuple[_Group, float]]) -> dict[_Group, float]:
    grouped: dict[_Group, list[float]] = defaultdict(list)
    for group, value in values:
        grouped[group].append(value)
    return {group: _AGGREGATES[aggregate](each) for group, each in grouped.items()}
