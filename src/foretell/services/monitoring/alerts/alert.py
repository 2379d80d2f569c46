"""An alert, and its way from pending to firing to resolved: a pure function of a measurement and the time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from foretell.services.monitoring.alerts.rules import Rule

#: A subject as it is stored: a JSON object of texts with sorted names.
SubjectKey = str

_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Measurement:
    """The number of one subject; None: it can't be told now, and what is open stays as it is."""

    subject: dict[str, str]
    value: float | None
    #: More that the texts may name.
    facts: Mapping[str, str] = field(default_factory=dict)


def subject_key(subject: Mapping[str, str]) -> SubjectKey:
    """How `subject` is stored and compared."""
    return _encode(dict(subject)).decode()


def by_subject(measurements: Iterable[Measurement]) -> dict[SubjectKey, Measurement]:
    """The measurements by subject."""
    return {subject_key(measurement.subject): measurement for measurement in measurements}


State = Literal["pending", "firing", "no_data", "resolved"]
PENDING: Final = "pending"
FIRING: Final = "firing"
NO_DATA: Final = "no_data"
RESOLVED: Final = "resolved"
#: Why an alert is over.
Reason = Literal["cleared", "no_data", "rule_off"]

#: A number that is not there must be missing for this long before that means anything.
NO_DATA_AFTER_S = 60.0
#: After so long without a number, an alert that is stored without one is over too.
NO_DATA_KEPT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Alert:
    """One time that a rule's condition held for one subject."""

    id: str
    rule: str
    subject: SubjectKey
    severity: str
    state: State
    value: float | None
    pending_since: datetime
    fired_at: datetime | None = None
    #: Since when it is clear, or has no number.
    clear_since: datetime | None = None
    resolved_at: datetime | None = None
    reason: Reason | None = None

    @property
    def fires(self) -> bool:
        """Whether people should know of it: it fires, or did so when there was last a number."""
        return self.state in (FIRING, NO_DATA)


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of an evaluation."""

    at: datetime
    #: Monitoring has just started and does not know yet what is there.
    early: bool = False


def begun(rule: Rule, subject: SubjectKey, measurement: Measurement | None, now: Now, new_id: str) -> Alert | None:
    """The alert that begins with this measurement, if it does: pending, or firing when the rule waits for nothing."""
    if measurement is None or measurement.value is None or not rule.is_alarming(measurement.value):
        return None
    alert = Alert(new_id, rule.name, subject, rule.severity, PENDING, measurement.value, pending_since=now.at)
    return _fired_if_due(alert, rule, now)


def moved_on(alert: Alert, rule: Rule, measurement: Measurement | None, now: Now) -> Alert | None:
    """`alert`, which is open, after this measurement; None when it was pending and is over, so that nobody need know.

    `measurement` None: there is no number for this subject. Its value None: nobody can tell now.
    """
    if measurement is None:
        # Who has just started has not heard of everybody yet.
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
    """`alert`, of a rule that is off or gone."""
    return None if alert.state == PENDING else _resolved(alert, "rule_off", now)


def _fired_if_due(alert: Alert, rule: Rule, now: Now) -> Alert:
    held = now.at - alert.pending_since >= timedelta(seconds=rule.for_s)
    # What waits for nothing can't have been there for a moment only, start or not.
    if not held or (now.early and rule.for_s > 0):
        return alert
    return replace(alert, state=FIRING, fired_at=now.at)


def _without_number(alert: Alert, rule: Rule, now: Now) -> Alert | None:
    since = alert.clear_since or now.at
    if alert.state == PENDING:
        # A number that is missing once may be back the next time.
        gone = now.at - since >= timedelta(seconds=NO_DATA_AFTER_S)
        return None if gone else replace(alert, clear_since=since)
    kept_s = NO_DATA_KEPT_S if rule.no_data == "keep" else max(NO_DATA_AFTER_S, rule.resolve_for_s)
    if now.at - since >= timedelta(seconds=kept_s):
        return _resolved(alert, "no_data", now)
    missing = now.at - since >= timedelta(seconds=NO_DATA_AFTER_S)
    return replace(alert, clear_since=since, state=NO_DATA if missing else alert.state)


def _resolved(alert: Alert, reason: Reason, now: Now) -> Alert:
    return replace(alert, state=RESOLVED, resolved_at=now.at, clear_since=alert.clear_since or now.at, reason=reason)
