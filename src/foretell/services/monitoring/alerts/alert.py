"""Alerts and their state transitions (pending, firing, resolved): pure functions of a measurement and the time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from foretell.contracts.reports.alert_rules import Rule

#: A subject as it is stored: a JSON object of texts with sorted names.
SubjectKey = str

_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Measurement:
    """The value of one subject; None: unknown now, and an open alert does not change."""

    subject: dict[str, str]
    value: float | None
    #: Additional values for the texts.
    facts: Mapping[str, str] = field(default_factory=dict)


def subject_key(subject: Mapping[str, str]) -> SubjectKey:
    """The form in which `subject` is stored and compared."""
    return _encode(dict(subject)).decode()


def by_subject(measurements: Iterable[Measurement]) -> dict[SubjectKey, Measurement]:
    """The measurements by subject."""
    return {subject_key(measurement.subject): measurement for measurement in measurements}


State = Literal["pending", "firing", "no_data", "resolved"]
PENDING: Final = "pending"
FIRING: Final = "firing"
NO_DATA: Final = "no_data"
RESOLVED: Final = "resolved"
#: Why an alert was resolved.
Reason = Literal["cleared", "no_data", "rule_off"]

#: A value must be missing for this long before the alert changes to `no_data` or is resolved.
NO_DATA_AFTER_S = 60.0
#: An alert of a rule with `no_data = "keep"` is resolved after this long without a value.
NO_DATA_KEPT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Alert:
    """One period in which a rule's condition holds for a subject."""

    id: str
    rule: str
    subject: SubjectKey
    severity: str
    state: State
    value: float | None
    pending_since: datetime
    fired_at: datetime | None = None
    #: Since when the value is clear or missing.
    clear_since: datetime | None = None
    resolved_at: datetime | None = None
    reason: Reason | None = None

    @property
    def fires(self) -> bool:
        """Whether the alert is firing, or was firing when its value went missing."""
        return self.state in (FIRING, NO_DATA)


@dataclass(frozen=True, slots=True)
class Now:
    """The time of an evaluation."""

    at: datetime
    #: Monitoring has just started and does not know all instances yet.
    early: bool = False


def begun(rule: Rule, subject: SubjectKey, measurement: Measurement | None, now: Now, new_id: str) -> Alert | None:
    """The alert that this measurement begins, or None: pending, or firing if the rule has no `for_s`."""
    if measurement is None or measurement.value is None or not rule.is_alarming(measurement.value):
        return None
    alert = Alert(new_id, rule.name, subject, rule.severity, PENDING, measurement.value, pending_since=now.at)
    return _fired_if_due(alert, rule, now)


def moved_on(alert: Alert, rule: Rule, measurement: Measurement | None, now: Now) -> Alert | None:
    """The open `alert` after this measurement; None if it was pending and its condition no longer holds.

    `measurement` None: the subject has no value. Its value None: the value is unknown now.
    """
    if measurement is None:
        # Just after the start, not all instances have sent metrics yet.
        return alert if now.early else _without_number(alert, rule, now)
    if measurement.value is None:
        return alert
    alert = replace(alert, value=measurement.value, severity=rule.severity)
    if alert.state == PENDING:
        still = replace(alert, clear_since=None)
        return _fired_if_due(still, rule, now) if rule.is_alarming(measurement.value) else None
    alert = replace(alert, state=FIRING)
    if not rule.is_clear(measurement.value):
        return replace(alert, clear_since=None)
    since = alert.clear_since or now.at
    if now.at - since < timedelta(seconds=rule.resolve_for_s):
        return replace(alert, clear_since=since)
    return _resolved(alert, "cleared", now)


def switched_off(alert: Alert, now: Now) -> Alert | None:
    """`alert` of a rule that was disabled or removed."""
    return None if alert.state == PENDING else _resolved(alert, "rule_off", now)


def _fired_if_due(alert: Alert, rule: Rule, now: Now) -> Alert:
    held = now.at - alert.pending_since >= timedelta(seconds=rule.for_s)
    # Rules without `for_s` fire even just after the start, because they do not depend on a duration.
    if not held or (now.early and rule.for_s > 0):
        return alert
    return replace(alert, state=FIRING, fired_at=now.at)


def _without_number(alert: Alert, rule: Rule, now: Now) -> Alert | None:
    since = alert.clear_since or now.at
    if alert.state == PENDING:
        # Wait, since a missing value may return in the next evaluation.
        gone = now.at - since >= timedelta(seconds=NO_DATA_AFTER_S)
        return None if gone else replace(alert, clear_since=since)
    kept_s = NO_DATA_KEPT_S if rule.no_data == "keep" else max(NO_DATA_AFTER_S, rule.resolve_for_s)
    if now.at - since >= timedelta(seconds=kept_s):
        return _resolved(alert, "no_data", now)
    missing = now.at - since >= timedelta(seconds=NO_DATA_AFTER_S)
    return replace(alert, clear_since=since, state=NO_DATA if missing else alert.state)


def _resolved(alert: Alert, reason: Reason, now: Now) -> Alert:
    return replace(alert, state=RESOLVED, resolved_at=now.at, clear_since=alert.clear_since or now.at, reason=reason)
