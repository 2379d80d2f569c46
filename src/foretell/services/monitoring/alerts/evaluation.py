"""Evaluates all rules every few seconds: measures, changes the states of alerts, and writes due notifications."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.alert_rules import Rule
from foretell.kit.clock import uuid7
from foretell.kit.pauses import set_within
from foretell.services.monitoring.alerts import signals, store
from foretell.services.monitoring.alerts.alert import (
    FIRING,
    NO_DATA,
    PENDING,
    Alert,
    Measurement,
    Now,
    SubjectKey,
    begun,
    by_subject,
    moved_on,
    switched_off,
)
from foretell.services.monitoring.alerts.channels import Channel
from foretell.services.monitoring.alerts.measures import ALERTS, EVALUATION_S, RULE_FAILURES
from foretell.services.monitoring.alerts.notification_text import Message
from foretell.services.monitoring.alerts.rule_files import RuleFile, RuleSet
from foretell.services.monitoring.alerts.rules import LANGUAGES, written
from foretell.services.monitoring.alerts.snapshot import Snapshot, take_snapshot
from foretell.services.monitoring.alerts.store import AlertTexts, Key, Notification, NotifiedSubject, StoredAlert
from foretell.services.monitoring.alerts.throttle import Change, Throttle, damped_since, due, may_send
from foretell.services.monitoring.storage.database import MonitoringDatabase

log = structlog.get_logger()

EVALUATE_EVERY_S = 5.0
_LONGEST_LABEL = 100
_HOUR = timedelta(hours=1)

#: Measurements by rule, without rules that could not be measured.
Measurements = Mapping[str, Mapping[SubjectKey, Measurement]]


@dataclass(frozen=True, slots=True)
class Transition:
    """The change of one alert. Without `before` it is created, without `after` it is deleted."""

    before: StoredAlert | None
    after: StoredAlert | None

    @property
    def notifies(self) -> bool:
        """Whether the alert started or stopped firing, which is notified."""
        before = self.before is not None and self.before.alert.fires
        return before != (self.after is not None and self.after.alert.fires)


class Evaluator:
    """Evaluates the rules of `rules` against the database."""

    def __init__(
        self,
        database: MonitoringDatabase,
        rules: RuleFile,
        channels: Mapping[str, Channel],
        *,
        throttle: Throttle,
        clock: Callable[[], datetime],
        grace_s: float = 60.0,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake` is called when there are notifications to send."""
        self.rules = rules
        #: Rules that failed in the last evaluation, with the errors.
        self.failing: dict[str, str] = {}
        #: The time and the measurements of the last evaluation.
        self.evaluated_at: datetime | None = None
        self.measurements: Measurements = {}
        self._database = database
        self._channels = channels
        self._throttle = throttle
        self._clock = clock
        self._grace = timedelta(seconds=grace_s)
        self._started_at = clock()
        self._held_since: datetime | None = None
        self._wake = wake
        self._shown: set[tuple[str, str, str]] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Evaluate until `stopping` is set."""
        self._started_at = self._clock()
        while not stopping.is_set():
            began_at = time.perf_counter()
            await self.evaluate()
            EVALUATION_S.observe(time.perf_counter() - began_at)
            await set_within(stopping, EVALUATE_EVERY_S)

    async def evaluate(self) -> None:
        """Evaluate every rule once. Raises `Unavailable` without having changed anything."""
        self.rules.look()
        current = self.rules.current
        rules = {name: rule for name, rule in current.rules.items() if rule.enabled}
        at = self._clock()
        now = Now(at, early=at - self._started_at < self._grace)
        async with self._database.snapshot() as connection:
            metrics = [(rule.metric, rule.window_s) for rule in rules.values() if rule.signal == "metric"]
            snapshot = await take_snapshot(connection, at, metrics)
            measurements = self._measure(rules.values(), snapshot, now)
            known = await store.open_alerts(connection)
            transitions = _transitions(known, rules, current, measurements, now)
            wanted = bool(transitions) or bool(await self._due(connection, at))
        if wanted:
            # Compute the transitions again under the lock: another process may have applied them meanwhile.
            async with self._database.transaction() as connection:
                await store.lock(connection)
                transitions = _transitions(await store.open_alerts(connection), rules, current, measurements, now)
                await _apply(connection, transitions, at)
                wrote = await self._notify(connection, at)
                known = await store.open_alerts(connection)
            _log(transitions)
            if wrote:
                self._wake()
        self.measurements, self.evaluated_at = measurements, at
        self._show(rules, known.values())

    def _measure(self, rules: Iterable[Rule], snapshot: Snapshot, now: Now) -> Measurements:
        """The measurements of each rule. A rule that fails does not affect the others."""
        measurements: dict[str, dict[SubjectKey, Measurement]] = {}
        failing: dict[str, str] = {}
        for rule in rules:
            try:
                found = signals.measure(rule, snapshot)
            except Exception as error:
                failing[rule.name] = f"{type(error).__name__}: {error}"[:300]
                RULE_FAILURES.labels(rule.name).inc()
                if self.failing.get(rule.name) != failing[rule.name]:
                    log.exception("alert_rule_failed", rule_name=rule.name)
                continue
            if now.early and rule.signal in signals.OF_ABSENCE:
                found = [replace(each, value=None) for each in found]
            measurements[rule.name] = by_subject(found)
        for name in self.failing.keys() - failing.keys():
            log.info("alert_rule_recovered", rule_name=name)
        self.failing = failing
        return measurements

    async def _due(self, connection: AsyncConnection, at: datetime) -> list[NotifiedSubject]:
        changed = await store.unnotified(connection)
        return due(changed, await store.silenced(connection, at), at, self._throttle) if changed else []

    async def _notify(self, connection: AsyncConnection, at: datetime) -> bool:
        """Write one notification for each channel with all changes that are due. Returns whether there was any."""
        silenced = await store.silenced(connection, at)
        for each in await store.unnotified(connection):
            if each.key in silenced and each.changes > 1:
                # While a subject is silenced, only its final state matters.
                await store.drop_changes(connection, each, each.changes % 2)
        notified = await self._due(connection, at)
        changes = [Change(each.stored, each.changes) for each in notified]
        if not changes:
            return False
        if not may_send(changes, await store.messages_since(connection, at - _HOUR), self._throttle):
            if self._held_since is None:
                self._held_since = at
                log.warning("notices_held_back", messages_per_hour=self._throttle.messages_per_hour)
            return False
        message = Message(changes, at, self._held_since)
        notifications = [
            Notification(f"msg_{uuid7().hex}", name, channel.body_of(message), at, next_attempt_at=at)
            for name, channel in self._channels.items()
        ]
        await store.write_notifications(connection, notifications)
        for each in notified:
            await store.mark_notified(connection, each, fires=each.stored.alert.fires, since=damped_since(each, at))
        await store.tidy(connection, at, at - timedelta(seconds=self._throttle.damping_s))
        self._held_since = None
        return bool(notifications)

    def _show(self, rules: Mapping[str, Rule], known: Iterable[StoredAlert]) -> None:
        """Set the gauge, also to 0 for rules without open alerts, which shows that they are evaluated."""
        counts: dict[tuple[str, str, str], int] = {
            (rule.name, rule.severity, state): 0 for rule in rules.values() for state in _OPEN
        }
        for each in known:
            key = (each.alert.rule, each.alert.severity, each.alert.state)
            counts[key] = counts.get(key, 0) + 1
        for gone in self._shown - counts.keys():
            ALERTS.remove(*gone)
        for labels, count in counts.items():
            ALERTS.labels(*labels).set(count)
        self._shown = set(counts)


_OPEN = (PENDING, FIRING, NO_DATA)


def _transitions(
    known: Mapping[Key, StoredAlert], rules: Mapping[str, Rule], current: RuleSet, measurements: Measurements, now: Now
) -> list[Transition]:
    """The transitions of open alerts, and the new alerts; unchanged ones are left out."""
    transitions = []
    for (name, subject), stored in known.items():
        rule = rules.get(name)
        if rule is None:
            # A rule that can't be read may still be in force, so its alerts stay open.
            after = stored.alert if current.may_have(name) else switched_off(stored.alert, now)
            transitions.append(Transition(stored, None if after is None else replace(stored, alert=after)))
        elif name in measurements:
            measurement = measurements[name].get(subject)
            after = moved_on(stored.alert, rule, measurement, now)
            transitions.append(
                Transition(stored, None if after is None else _with_texts(after, rule, measurement, stored.texts))
            )
    for name, subjects in measurements.items():
        for subject, measurement in subjects.items():
            if (name, subject) not in known:
                alert = begun(rules[name], subject, measurement, now, str(uuid7()))
                if alert is not None:
                    transitions.append(Transition(None, _with_texts(alert, rules[name], measurement, None)))
    return [each for each in transitions if each.before is None or not _is_same(each.before, each.after)]


def _is_same(before: StoredAlert, after: StoredAlert | None) -> bool:
    """Whether there is nothing to store. A value alone changes all the time and is shown from memory."""
    return after is not None and replace(after.alert, value=before.alert.value) == before.alert


def _with_texts(alert: Alert, rule: Rule, measurement: Measurement | None, texts: AlertTexts | None) -> StoredAlert:
    """The alert with its texts, which describe its last alarming measurement."""
    if (
        measurement is None
        or measurement.value is None
        or (texts is not None and not rule.is_alarming(measurement.value))
    ):
        return StoredAlert(alert, texts or AlertTexts({}, {}))
    facts = {name: shown(value) for name, value in {**measurement.facts, **measurement.subject}.items()}
    values = {
        language: {
            **facts,
            "rule": rule.name,
            "value": written(measurement.value, rule.unit, language),
            "threshold": written(rule.threshold, rule.unit, language),
            "window": written(rule.window_s, "seconds", language),
        }
        for language in LANGUAGES
    }
    return StoredAlert(alert, store.texts_of(rule, values))


def shown(text: str) -> str:
    """A label, escaped for a message, so that the sender of a metric can't add lines to it."""
    return "".join(each if each.isprintable() else "�" for each in text)[:_LONGEST_LABEL]


async def _apply(connection: AsyncConnection, transitions: Sequence[Transition], at: datetime) -> None:
    for transition in transitions:
        if transition.after is None:
            assert transition.before is not None
            await store.forget(connection, transition.before.alert.id)
            continue
        await store.save(connection, transition.after)
        if transition.notifies:
            await store.note_change(connection, transition.after.alert, at)


def _log(transitions: Iterable[Transition]) -> None:
    """Log every change at once, independent of throttling."""
    for transition in transitions:
        if transition.after is None or not transition.notifies:
            continue
        alert = transition.after.alert
        about = log.bind(alert=alert.id, rule_name=alert.rule, subject=transition.after.subject, value=alert.value)
        if alert.fires:
            about.warning("alert_fired", severity=alert.severity, summary=transition.after.texts.summary.get("en", ""))
        else:
            about.info("alert_resolved", reason=alert.reason)
