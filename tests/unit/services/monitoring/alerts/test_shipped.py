"""Every rule that ships: what it reads off a healthy system is clear, so that an alert ends when the trouble does."""

from datetime import timedelta

import msgspec
import pytest
from tests.unit.services.monitoring.alerts.snapshots import NOW, counted, instance, snapshot

from foretell.contracts.reports.alert_rules import Rule
from foretell.services.monitoring.alerts import signals
from foretell.services.monitoring.alerts.alert import Alert, Measurement, Now, begun, moved_on
from foretell.services.monitoring.alerts.rule_files import merged, shipped_tables
from foretell.services.monitoring.alerts.snapshot import DriftFound, Snapshot
from foretell.services.monitoring.storage.instances import Instance

RULES = merged(shipped_tables(), {}, "").rules

MODEL, PREPROCESSING = instance("model_service", "m-1"), instance("preprocessing_service", "p-1")
APP, DISPATCHER, WORKER = instance("app", "a-1"), instance("dispatcher", "d-1"), instance("ml_worker", "w-1")
OK = {"route": "/models", "status": "200"}
SUCCEEDED = {"status": "succeeded", "code": ""}
FAST = [1000, 0, 0, 0]

#: What each metric that a rule looks at shows while all is well: whose, its kind, before and now.
HEALTHY = {
    "foretell_queue_oldest_task_age_seconds": (DISPATCHER, "gauge", [({"queue": "q"}, 0)], [({"queue": "q"}, 0)]),
    "foretell_queue_ready_messages": (DISPATCHER, "gauge", [({"queue": "q"}, 0)], [({"queue": "q"}, 0)]),
    "foretell_http_requests_total": (APP, "counter", [(OK, 0)], [(OK, 1000)]),
    "foretell_predictions_settled_total": (DISPATCHER, "counter", [(SUCCEEDED, 0)], [(SUCCEEDED, 1000)]),
    "foretell_notifications_overdue_seconds": (DISPATCHER, "gauge", [({}, 0)], [({}, 0)]),
    "foretell_broker_trouble": (APP, "gauge", [({"reason": "alarm"}, 0)], [({"reason": "alarm"}, 0)]),
    "foretell_dead_letters": (DISPATCHER, "gauge", [({"queue": "q"}, 0)], [({"queue": "q"}, 0)]),
    "foretell_ledger_findings": (DISPATCHER, "gauge", [({}, 0)], [({}, 0)]),
    "foretell_ledger_audited_timestamp_seconds": (
        DISPATCHER,
        "gauge",
        [({}, NOW.timestamp() - 3600)],
        [({}, NOW.timestamp() - 60)],
    ),
    "foretell_process_crashes_total": (WORKER, "counter", [({"in_hand": "nothing"}, 0)], [({"in_hand": "nothing"}, 0)]),
    "foretell_disk_free_bytes": (APP, "gauge", [({}, 2**40)], [({}, 2**40)]),
    "foretell_log_lines_dropped_total": (APP, "counter", [({}, 7)], [({}, 7)]),
    "foretell_prediction_duration_seconds": (
        DISPATCHER,
        "histogram",
        [({"model": "m"}, [0, 0, 0, 0])],
        [({"model": "m"}, FAST)],
    ),
    "foretell_http_request_duration_seconds": (
        APP,
        "histogram",
        [({"route": "/models"}, [0, 0, 0, 0])],
        [({"route": "/models"}, FAST)],
    ),
}

#: Who else measures it.
OPEN = {"foretell_http_requests_total": [MODEL, PREPROCESSING]}


def healthy_sight(rule: Rule) -> Snapshot:
    measured = []
    if rule.signal == "metric":
        of, kind, before, now = HEALTHY[rule.metric]
        measured = [counted(each, rule.metric, kind, now, before) for each in [of, *OPEN.get(rule.metric, ())]]
    no_drift = msgspec.json.encode({"findings": [{"name": "text", "drifted": False}]}).decode()
    return snapshot(
        *measured,
        instances=[APP, DISPATCHER, WORKER],
        window_s=rule.window_s,
        drift=[DriftFound("m", "1", NOW, no_drift)],
    )


@pytest.fixture(params=sorted(RULES))
def rule(request: pytest.FixtureRequest) -> Rule:
    return RULES[request.param]


def test_a_healthy_system_is_clear(rule: Rule) -> None:
    measurements = signals.measure(rule, healthy_sight(rule))
    assert measurements, "it reads nothing off"
    assert [each for each in measurements if each.value is None or not rule.is_clear(each.value)] == []


def test_an_alert_ends_when_the_system_is_healthy_again(rule: Rule) -> None:
    (healthy, *_) = signals.measure(rule, healthy_sight(rule))
    beyond = 1 if rule.above is not None else -1
    alarming = Measurement(healthy.subject, rule.threshold + beyond)
    began = begun(rule, "{}", alarming, Now(NOW), "a1")
    assert began is not None
    fired = moved_on(began, rule, alarming, Now(NOW + timedelta(seconds=rule.for_s)))
    assert fired is not None
    assert fired.state == "firing"
    alert: Alert | None = fired
    for seconds in (0.0, rule.resolve_for_s):
        assert alert is not None
        if alert.state == "firing":
            alert = moved_on(alert, rule, healthy, Now(NOW + timedelta(seconds=rule.for_s + 1 + seconds)))
    assert alert is not None
    assert (alert.state, alert.reason) == ("resolved", "cleared")


def test_another_threshold_of_zero_ends_too() -> None:
    # The one for resolving follows in proportion, to 0.
    rule = merged(shipped_tables(), {"queue_age": {"above": 0}}, "").rules["queue_age"]
    assert rule.resolve_below == 0
    assert rule.is_clear(0)


def alarming(*of: Instance, route: str = "/models", **answers: int) -> dict[str, list[str]]:
    """The services that each rule about answers is alarmed of, when each of `of` answered so often with a status."""
    requests = "foretell_http_requests_total"
    now = [({"route": route, "status": status.removeprefix("of_")}, count) for status, count in answers.items()]
    before = [(labels, 0) for labels, _ in now]
    measured = [counted(each, requests, "counter", now, before) for each in of]
    seen = snapshot(*measured, instances=[APP, MODEL, PREPROCESSING])
    return {
        rule.name: [
            each.subject["service"] for each in signals.measure(rule, seen) if rule.is_alarming(each.value or 0)
        ]
        for rule in RULES.values()
        if rule.metric == requests
    }


def test_what_a_stranger_can_bring_about_is_not_critical() -> None:
    assert alarming(MODEL, PREPROCESSING, of_503=1000) == {
        "http_errors": [],
        "open_http_errors": ["model_service", "preprocessing_service"],
    }
    assert RULES["open_http_errors"].severity == "warning"
    assert alarming(APP, of_429=1000, of_401=1000, of_503=1) == {"http_errors": [], "open_http_errors": []}


@pytest.mark.parametrize("route", ["/heartbeats", "/logs", "/health/ready"])
def test_what_is_refused_while_a_service_starts_is_no_alert(route: str) -> None:
    assert alarming(APP, route=route, of_503=1000, of_200=100) == {"http_errors": [], "open_http_errors": []}


def test_what_strangers_get_wrong_hides_no_failures() -> None:
    assert alarming(APP, of_200=900, of_500=100, of_404=1_000_000)["http_errors"] == ["app"]


def test_an_input_that_is_too_large_is_its_senders_fault() -> None:
    settled = "foretell_predictions_settled_total"
    now = [({"status": "failed", "code": code}, 1000) for code in ("invalid_input", "input_too_large")]
    counts = counted(DISPATCHER, settled, "counter", now, [(labels, 0) for labels, _ in now])
    assert signals.measure(RULES["predictions_failing"], snapshot(counts, instances=[DISPATCHER])) == []
