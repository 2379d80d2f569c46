"""From pending to firing to resolved, with every edge of time and threshold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from foretell.contracts.reports.alert_rules import Rule
from foretell.services.monitoring.alerts.alert import (
    NO_DATA_AFTER_S,
    NO_DATA_KEPT_S,
    Alert,
    Measurement,
    Now,
    begun,
    moved_on,
    switched_off,
)
from foretell.services.monitoring.alerts.rules import read_rule

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
ABSENT = object()


def rule_of(**fields: Any) -> Rule:
    usual = {"metric": "m", "above": 10, "resolve_below": 5, "for_s": 20, "resolve_for_s": 30}
    return read_rule("r", {**usual, **fields})


def now(seconds: float, *, early: bool = False) -> Now:
    return Now(START + timedelta(seconds=seconds), early)


def run(rule: Rule, *read: tuple[float, Any], early_s: float = 0.0, alert: Alert | None = None) -> Alert | None:
    """What becomes of the measurements at these seconds; None: nobody can tell; ABSENT: there is none."""
    for seconds, value in read:
        moment = now(seconds, early=seconds < early_s)
        measurement = None if value is ABSENT else Measurement({}, value)
        if alert is None or alert.resolved_at is not None:
            alert = begun(rule, "{}", measurement, moment, f"a{seconds}")
        else:
            alert = moved_on(alert, rule, measurement, moment)
    return alert


def state(rule: Rule, *read: tuple[float, Any], early_s: float = 0.0) -> str | None:
    alert = run(rule, *read, early_s=early_s)
    return None if alert is None else alert.state


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ([(0, 10)], None),
        ([(0, 10.001)], "pending"),
        ([(0, 11), (19.999, 11)], "pending"),
        ([(0, 11), (20, 11)], "firing"),
        # Not even between the thresholds does it go on waiting.
        ([(0, 11), (10, 7)], None),
        ([(0, 11), (10, 7), (15, 11), (20, 11)], "pending"),
        ([(0, 11), (10, 7), (15, 11), (35, 11)], "firing"),
        ([(0, 11), (10, None), (20, 11)], "firing"),
    ],
)
def test_it_fires_when_the_condition_has_held_long_enough(read: list[tuple[float, Any]], expected: str | None) -> None:
    assert state(rule_of(), *read) == expected


FIRING = [(0, 11), (20, 11)]


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ([(25, 4.9), (54.9, 4.9)], "firing"),
        ([(25, 4.9), (55, 4.9)], "resolved"),
        ([(25, 5), (55, 5)], "resolved"),
        # What lies between the thresholds is neither the one nor the other.
        ([(25, 5.1), (1000, 5.1)], "firing"),
        ([(25, 4.9), (40, 7), (55, 4.9)], "firing"),
        ([(25, 4.9), (40, 7), (55, 4.9), (85, 4.9)], "resolved"),
        ([(25, 4.9), (40, 11), (55, 4.9)], "firing"),
        ([(25, None), (1000, None)], "firing"),
        ([(25, 4.9), (40, None), (55, 4.9)], "resolved"),
    ],
)
def test_it_is_over_when_it_was_clear_long_enough(read: list[tuple[float, Any]], expected: str) -> None:
    assert state(rule_of(), *FIRING, *read) == expected


def test_without_another_threshold_the_one_is_for_both() -> None:
    rule = rule_of(resolve_below=None)
    assert state(rule, *FIRING, (25, 10), (55, 10)) == "resolved"


def test_below_is_the_mirror_of_above() -> None:
    rule = rule_of(above=None, resolve_below=None, below=3, resolve_above=6)
    assert state(rule, (0, 3)) is None
    assert state(rule, (0, 2.9), (20, 2.9)) == "firing"
    assert state(rule, (0, 2), (20, 2), (25, 5.9), (100, 5.9)) == "firing"
    assert state(rule, (0, 2), (20, 2), (25, 6), (55, 6)) == "resolved"


def test_a_count_that_is_to_resolve_at_zero_does_so() -> None:
    assert state(rule_of(resolve_below=0), *FIRING, (25, 0), (55, 0)) == "resolved"
    assert state(rule_of(resolve_below=0), *FIRING, (25, 1), (100, 1)) == "firing"


def test_what_waits_for_nothing_fires_and_is_over_at_once() -> None:
    rule = rule_of(for_s=0, resolve_for_s=0)
    assert state(rule, (0, 11)) == "firing"
    assert state(rule, (0, 11), (5, 1)) == "resolved"


def test_what_is_over_says_when_and_why() -> None:
    alert = run(rule_of(), *FIRING, (25, 4), (55, 3))
    assert alert is not None
    assert (alert.pending_since, alert.fired_at, alert.clear_since, alert.resolved_at) == tuple(
        START + timedelta(seconds=each) for each in (0, 20, 25, 55)
    )
    assert (alert.value, alert.reason) == (3, "cleared")


def test_after_it_is_over_it_begins_anew_with_another_id() -> None:
    first = run(rule_of(), *FIRING)
    second = run(rule_of(), *FIRING, (25, 4), (55, 4), (60, 11), (80, 11))
    assert first is not None
    assert second is not None
    assert second.state == "firing"
    assert second.id != first.id


def test_right_after_the_start_nothing_fires_but_what_waits_for_nothing() -> None:
    assert state(rule_of(), (0, 11), (30, 11), early_s=60) == "pending"
    assert state(rule_of(), (0, 11), (30, 11), (60, 11), early_s=60) == "firing"
    assert state(rule_of(), (0, 11), (30, 1), early_s=60) is None
    assert state(rule_of(for_s=0), (0, 11), early_s=60) == "firing"


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ([(25, ABSENT), (84.9, ABSENT)], "firing"),
        ([(25, ABSENT), (85, ABSENT)], "resolved"),
        ([(25, ABSENT), (84, 11), (100, ABSENT)], "firing"),
    ],
)
def test_what_has_no_number_any_more_is_over_after_a_minute(read: list[tuple[float, Any]], expected: str) -> None:
    assert NO_DATA_AFTER_S == 60
    alert = run(rule_of(), *FIRING, *read)
    assert alert is not None
    assert alert.state == expected
    assert alert.reason == ("no_data" if expected == "resolved" else None)


def test_without_a_number_what_waits_is_forgotten_after_a_minute_too() -> None:
    assert state(rule_of(for_s=500), (0, 11), (5, ABSENT), (64, ABSENT)) == "pending"
    assert state(rule_of(for_s=500), (0, 11), (5, ABSENT), (65, ABSENT)) is None
    assert state(rule_of(for_s=500), (0, 11), (5, ABSENT), (60, 11), (90, ABSENT)) == "pending"


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ([(25, ABSENT), (84, ABSENT)], "firing"),
        ([(25, ABSENT), (85, ABSENT)], "no_data"),
        ([(25, ABSENT), (85, ABSENT), (90, 11)], "firing"),
        ([(25, ABSENT), (85, ABSENT), (90, 7)], "firing"),
        ([(25, ABSENT), (85, ABSENT), (25 + NO_DATA_KEPT_S - 1, ABSENT)], "no_data"),
        ([(25, ABSENT), (85, ABSENT), (25 + NO_DATA_KEPT_S, ABSENT)], "resolved"),
    ],
)
def test_a_rule_may_keep_what_has_no_number(read: list[tuple[float, Any]], expected: str) -> None:
    alert = run(rule_of(no_data="keep"), *FIRING, *read)
    assert alert is not None
    assert alert.state == expected
    assert alert.fires == (expected != "resolved")


def test_who_has_just_started_does_not_take_missing_numbers_for_an_end() -> None:
    alert = run(rule_of(), *FIRING)
    later = run(rule_of(), (1000, ABSENT), (1059, ABSENT), alert=alert, early_s=1060)
    assert later == alert
    later = run(rule_of(), (1060, ABSENT), (1119, ABSENT), alert=later)
    assert later is not None
    assert later.state == "firing"
    assert state(rule_of(), *FIRING, (25, 4), (1000, 4)) == "resolved"


def test_when_its_rule_is_off_it_is_over() -> None:
    firing, pending = run(rule_of(), *FIRING), run(rule_of(), (0, 11))
    assert firing is not None
    assert pending is not None
    over = switched_off(firing, now(30))
    assert over is not None
    assert (over.state, over.reason) == ("resolved", "rule_off")
    assert switched_off(pending, now(30)) is None
