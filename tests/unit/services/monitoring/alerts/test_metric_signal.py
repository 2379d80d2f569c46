"""Numbers made of metrics, over all instances of a subject."""

from typing import Any

import pytest
from tests.unit.services.monitoring.alerts.snapshots import counted, instance, snapshot

from foretell.contracts.reports.alert_rules import Rule
from foretell.services.monitoring.alerts.metric_signal import WrongKind, measure_metric
from foretell.services.monitoring.alerts.rules import read_rule
from foretell.services.monitoring.alerts.snapshot import Snapshot

ONE, TWO = instance("dispatcher", "d-1"), instance("dispatcher", "d-2")
GONE = instance("dispatcher", "d-0", state="stopped", seen_s=100)
SILENT = instance("dispatcher", "d-3", state="healthy", seen_s=60)


def rule_of(**fields: Any) -> Rule:
    return read_rule("r", {"metric": "m", "above": 0, **fields})


def read(rule: Rule, seen: Snapshot) -> dict[tuple[str, ...], float | None]:
    return {tuple(each.subject.values()): each.value for each in measure_metric(rule, seen)}


@pytest.mark.parametrize(("aggregate", "expected"), [(None, 5), ("max", 5), ("min", 1), ("sum", 6), ("avg", 3)])
def test_a_gauge_is_put_together_from_those_that_live(aggregate: str | None, expected: float) -> None:
    seen = snapshot(
        counted(ONE, "m", "gauge", [({"queue": "q"}, 5)]),
        counted(TWO, "m", "gauge", [({"queue": "q"}, 1)]),
        counted(GONE, "m", "gauge", [({"queue": "q"}, 100)]),
        counted(SILENT, "m", "gauge", [({"queue": "q"}, 100)]),
    )
    fields = {} if aggregate is None else {"aggregate": aggregate}
    assert read(rule_of(by=["queue"], **fields), seen) == {("q",): expected}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, {"ml_tasks", "ml_tasks.dead", "gpu_tasks"}),
        ({"queue": "ml_tasks"}, {"ml_tasks"}),
        ({"queue": "ml_*"}, {"ml_tasks", "ml_tasks.dead"}),
        ({"queue": "!*.dead"}, {"ml_tasks", "gpu_tasks"}),
        ({"queue": ["ml_*", "!*.dead"]}, {"ml_tasks"}),
        ({"queue": ["gpu_tasks", "ml_tasks"]}, {"gpu_tasks", "ml_tasks"}),
        ({"service": "dispatcher", "instance": "d-?"}, {"ml_tasks", "ml_tasks.dead", "gpu_tasks"}),
        ({"service": "app"}, set()),
        ({"nothing": "*"}, {"ml_tasks", "ml_tasks.dead", "gpu_tasks"}),
        ({"nothing": "x"}, set()),
    ],
)
def test_labels_choose_series(labels: dict[str, Any], expected: set[str]) -> None:
    queues = [({"queue": name}, 1) for name in ("ml_tasks", "ml_tasks.dead", "gpu_tasks")]
    seen = snapshot(counted(ONE, "m", "gauge", queues))
    assert {key[0] for key in read(rule_of(by=["queue"], labels=labels), seen)} == expected


def test_without_labels_to_go_by_everything_is_one_subject() -> None:
    seen = snapshot(counted(ONE, "m", "gauge", [({"a": "1"}, 1), ({"a": "2"}, 2)]))
    assert read(rule_of(aggregate="sum"), seen) == {(): 3}
    assert read(rule_of(metric="other"), seen) == {}


def test_an_age_counts_from_what_was_told_or_from_the_start() -> None:
    told = [({}, ONE.last_seen_at.timestamp() - 99)]
    seen = snapshot(counted(ONE, "m", "gauge", told), counted(TWO, "m", "gauge", [({}, 0)]))
    # The one that has told nothing yet started an hour ago.
    assert read(rule_of(kind="age"), seen) == {(): pytest.approx(100)}
    assert read(rule_of(kind="age", aggregate="max"), seen) == {(): pytest.approx(3600)}


def test_who_should_tell_a_moment_and_does_not_is_as_old_as_its_start() -> None:
    seen = snapshot(counted(ONE, "other", "gauge", [({}, 1)]), counted(GONE, "other", "gauge", [({}, 1)]))
    assert read(rule_of(kind="age"), seen) == {}
    assert read(rule_of(kind="age", labels={"service": "app"}), seen) == {}
    assert read(rule_of(kind="age", labels={"service": "dispatcher"}), seen) == {(): pytest.approx(3600)}
    told = counted(TWO, "m", "gauge", [({}, TWO.last_seen_at.timestamp() - 99)])
    both = snapshot(told, *seen.windows[300])
    assert read(rule_of(kind="age", labels={"service": "dispatcher"}), both) == {(): pytest.approx(100)}


def test_growth_is_told_by_whoever_was_there_then_and_is_here_now() -> None:
    grown = counted(ONE, "m", "gauge", [({}, 50)], [({}, 20)])
    assert read(rule_of(kind="growth"), snapshot(grown)) == {(): 30}
    before, after = counted(GONE, "m", "gauge", [({}, 30)], [({}, 10)]), counted(ONE, "m", "gauge", [({}, 50)])
    assert read(rule_of(kind="growth"), snapshot(before, after)) == {(): 40}
    assert read(rule_of(kind="growth"), snapshot(after)) == {}
    assert read(rule_of(kind="growth"), snapshot(before)) == {}


def test_a_rate_is_what_each_counted_in_its_time() -> None:
    seen = snapshot(
        counted(ONE, "m", "counter", [({}, 400)], [({}, 100)]),
        # Started a moment ago: a single event is no flood.
        counted(TWO, "m", "counter", [({}, 1)], elapsed_s=1),
        # Ended: it counts with what it did, and does not go on doing it.
        counted(GONE, "m", "counter", [({}, 130)], [({}, 100)], elapsed_s=10),
    )
    assert read(rule_of(kind="rate"), seen) == {(): pytest.approx(1 + 0.1 + 0.1)}
    assert read(rule_of(kind="increase"), seen) == {(): 331}


def test_a_new_series_of_an_old_process_counts_from_zero() -> None:
    seen = snapshot(counted(ONE, "m", "counter", [({"s": "a"}, 5), ({"s": "b"}, 7)], [({"s": "a"}, 5)]))
    assert read(rule_of(kind="increase", by=["s"]), seen) == {("a",): 0, ("b",): 7}


def test_a_share_is_a_part_of_enough_events() -> None:
    rule = rule_of(kind="share", part={"status": "5*"}, by=["service"], min_count=20)
    first = [({"status": "200"}, 100), ({"status": "503"}, 50)]
    last = [({"status": "200"}, 115), ({"status": "503"}, 53), ({"status": "500"}, 2)]
    assert read(rule, snapshot(counted(ONE, "m", "counter", last, first))) == {("dispatcher",): pytest.approx(0.25)}
    few = [({"status": "200"}, 115), ({"status": "503"}, 54)]
    assert read(rule, snapshot(counted(ONE, "m", "counter", few, first))) == {}
    none = rule_of(kind="share", part={"status": "5*"})
    assert read(none, snapshot(counted(ONE, "m", "counter", first, first))) == {}


def test_a_quantile_is_of_what_happened_in_the_window() -> None:
    rule = rule_of(kind="quantile", quantile=0.5, min_count=4)
    seen = snapshot(
        counted(ONE, "m", "histogram", [({}, [100, 2, 0, 0])], [({}, [100, 0, 0, 0])]),
        counted(TWO, "m", "histogram", [({}, [0, 0, 2, 0])]),
    )
    assert read(rule, seen) == {(): pytest.approx(2)}
    assert read(rule_of(kind="quantile", quantile=0.99, min_count=5), seen) == {}
    beyond = snapshot(counted(ONE, "m", "histogram", [({}, [0, 0, 0, 9])]))
    assert read(rule, beyond) == {(): 4}
    nothing = snapshot(counted(ONE, "m", "histogram", [({}, [1, 0, 0, 0])], [({}, [1, 0, 0, 0])]))
    assert read(rule_of(kind="quantile"), nothing) == {}


@pytest.mark.parametrize(("kind", "metric"), [("quantile", "counter"), ("gauge", "histogram"), ("rate", "histogram")])
def test_what_there_is_not_to_know_of_a_metric_is_said(kind: str, metric: str) -> None:
    held: Any = [1, 0, 0, 0] if metric == "histogram" else 1
    with pytest.raises(WrongKind, match=metric):
        measure_metric(rule_of(kind=kind), snapshot(counted(ONE, "m", metric, [({}, held)])))
