"""Who is there, how they are, and drift."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.unit.services.monitoring.alerts.snapshots import NOW, instance, snapshot

from foretell.contracts.reports.drift import FieldSummary, VersionFinding
from foretell.services.monitoring.alerts import signals
from foretell.services.monitoring.alerts.rules import read_rule
from foretell.services.monitoring.alerts.snapshot import DriftFound
from foretell.services.monitoring.storage.instances import Instance


def read(signal: str, *instances: Instance, **fields: Any) -> dict[tuple[str, ...], float | None]:
    rule = read_rule("r", {"signal": signal, "above": 0, **fields})
    return {tuple(each.subject.values()): each.value for each in signals.measure(rule, snapshot(instances=instances))}


def worker(name: str, state: str = "healthy", **times: float) -> Instance:
    return instance("ml_worker", name, state=state, **times)


def test_a_service_is_down_when_none_of_it_runs() -> None:
    assert read(
        "service_down",
        instance("app", "a", state="missing"),
        instance("dispatcher", "d", state="stopped", seen_s=61),
        worker("w1", "missing"),
        worker("w2", "unhealthy"),
    ) == {("app",): 1, ("dispatcher",): 1, ("ml_worker",): 0}


def test_who_has_just_said_goodbye_may_be_about_to_start_anew() -> None:
    assert read("service_down", worker("w1", "stopped", seen_s=59)) == {("ml_worker",): 0}
    # Unless somebody fell silent after that.
    both = (worker("w1", "stopped", seen_s=59), worker("w2", "missing", seen_s=20))
    assert read("service_down", *both) == {("ml_worker",): 1}


def test_services_may_be_chosen() -> None:
    some = (instance("app", "a", state="missing"), instance("bot", "b", state="missing"))
    assert read("service_down", *some, services=["b*"]) == {("bot",): 1}


def test_an_instance_that_went_silent_is_down_and_one_that_said_goodbye_is_not() -> None:
    assert read("instance_down", worker("w1", "missing"), worker("w2", "stopped"), worker("w3")) == {
        ("ml_worker", "w1"): 1,
        ("ml_worker", "w2"): 0,
        ("ml_worker", "w3"): 0,
    }


def test_of_a_service_of_which_none_runs_instances_are_not_told_one_by_one() -> None:
    assert read("instance_down", worker("w1", "missing"), worker("w2", "stopped")) == {
        ("ml_worker", "w1"): None,
        ("ml_worker", "w2"): 0,
    }


@pytest.mark.parametrize(
    ("instances", "down"),
    [
        # Started after the other was last heard of: it has taken its place, under another name or the same.
        ([worker("w1", "missing", seen_s=60), worker("w2", started_s=50)], set()),
        ([worker("w1", "missing", started_s=900, seen_s=60), worker("w1", started_s=50)], set()),
        # Started before: it has its own place.
        ([worker("w1", "missing", seen_s=60), worker("w2", started_s=70)], {"w1"}),
        # Not healthy (yet): that remains to be seen.
        ([worker("w1", "missing", seen_s=60), worker("w2", "unhealthy", started_s=50)], {"w1"}),
        # One for one: the one that went first.
        ([worker("w1", "missing", seen_s=90), worker("w2", "missing", seen_s=60), worker("w3", started_s=50)], {"w2"}),
        # The same name started again and went silent again.
        ([worker("w1", "missing", started_s=900, seen_s=600), worker("w1", "missing", started_s=500, seen_s=60),
          worker("w2")], {"w1"}),
        ([worker("w1", "missing", started_s=900, seen_s=600), worker("w1", "stopped", started_s=500, seen_s=60),
          worker("w2")], set()),
    ],
)  # fmt: skip
def test_whose_place_another_has_taken_is_not_missed(instances: list[Instance], down: set[str]) -> None:
    assert {name for (_, name), value in read("instance_down", *instances).items() if value} == down


def test_who_says_that_it_is_not_healthy_is_told_of_with_what_it_says() -> None:
    failing = {"database": "away\nfor long", "broker": "x" * 500}
    some = [instance("app", "a1", state="unhealthy", failing=failing), instance("app", "a2"), worker("w", "missing")]
    rule = read_rule("r", {"signal": "service_unhealthy", "above": 0})
    measurements = signals.measure(rule, snapshot(instances=some))
    assert [(each.subject["instance"], each.value) for each in measurements] == [("a1", 1), ("a2", 0)]
    assert measurements[0].facts["failing"].startswith("broker (xxx")
    assert len(measurements[0].facts["failing"]) <= 200


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([], 0),
        ([instance("app", "a")], 1),
        ([instance("app", "a", state="missing")], 0),
        # What was seen today is told of by service_down.
        ([instance("app", "a"), worker("w", "stopped")], 0),
        ([instance("app", "a"), worker("w")], 0),
    ],
)
def test_a_service_is_absent_when_it_is_needed_and_was_never_seen(instances: list[Instance], expected: int) -> None:
    found = read("service_absent", *instances, services=["ml_worker"], needed_by=["app"])
    assert found == {("ml_worker",): expected}


def drifted(*names: str, computed_at: datetime = NOW, stable: str = "hour") -> DriftFound:
    findings = [FieldSummary(name, "feature", "drifted", True, ["psi"], 3600.0) for name in names]
    findings.append(FieldSummary(stable, "feature", "stable", False, [], 3600.0))
    found = VersionFinding(
        model="flight-delay", version="1.0.0", computed_at=computed_at, status="drifted", findings=findings
    )
    return DriftFound("flight-delay", "1.0.0", computed_at, msgspec.json.encode(found).decode())


def test_drift_is_how_many_fields_of_a_version_drift_and_which() -> None:
    rule = read_rule("r", {"signal": "drift", "above": 0})
    (measurement,) = signals.measure(rule, snapshot(drift=[drifted("carrier", "distance")]))
    assert measurement.subject == {"model": "flight-delay", "version": "1.0.0"}
    assert (measurement.value, measurement.facts["drifted"]) == (2, "carrier, distance")
    (measurement,) = signals.measure(rule, snapshot(drift=[drifted()]))
    assert measurement.value == 0
    (measurement,) = signals.measure(rule, snapshot(drift=[drifted(*"abcdefg")]))
    assert measurement.facts["drifted"] == "a, b, c, d, e, …"


def test_when_nobody_has_looked_for_drift_lately_nothing_can_be_told() -> None:
    rule = read_rule("r", {"signal": "drift", "above": 0})
    (measurement,) = signals.measure(rule, snapshot(drift=[drifted("a", computed_at=NOW - timedelta(hours=1))]))
    assert measurement.value is None
