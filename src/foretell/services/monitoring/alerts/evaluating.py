"""Every few seconds: read off all rules, move alerts on, and write down what people are to be told."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.clock import uuid7
from foretell.services.monitoring.alerts import signals, store, telling
from foretell.services.monitoring.alerts.channels import Channel
from foretell.services.monitoring.alerts.measures import ALERTS, EVALUATION_S, RULE_FAILURES
from foretell.services.monitoring.alerts.messages import Message
from foretell.services.monitoring.alerts.readings import Reading, SubjectKey, by_subject
from foretell.services.monitoring.alerts.rule_files import RuleFile, RuleSet
from foretell.services.monitoring.alerts.rules import Rule, written
from foretell.services.monitoring.alerts.sight import Sight, look
from foretell.services.monitoring.alerts.states import (
    FIRING,
    NO_DATA,
    PENDING,
    Alert,
    Now,
    begun,
    moved_on,
    switched_off,
)
from foretell.services.monitoring.alerts.store import AlertTexts, Kept, Key, Notice, Told
from foretell.services.monitoring.alerts.telling import Bounds, News
from foretell.services.monitoring.storage.database import MonitoringDatabase

log = structlog.get_logger()

EVALUATE_EVERY_S = 5.0
_LONGEST_LABEL = 100
_HOUR = timedelta(hours=1)

#: What was read off, by rule; a rule that could not be read off is not in it.
Readings = Mapping[str, Mapping[SubjectKey, Reading]]


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of one alert: begun without `before`, forgotten without `after`."""

    before: Kept | None
    after: Kept | None

    @property
    def tells(self) -> bool:
        """Whether it began or ended to fire."""
        before = self.before is not None and self.before.alert.fires
        return before != (self.after is not None and self.after.alert.fires)


class Evaluator:
    """Evaluates the rules of `rules` against what is in the database."""

    def __init__(
        self,
        database: MonitoringDatabase,
        rules: RuleFile,
        channels: Mapping[str, Channel],
        *,
        bounds: Bounds,
        clock: Callable[[], datetime],
        grace_s: float = 60.0,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake` is called when there is something to send."""
        self.rules = rules
        #: Rules that could not be read off the last time, and why.
        self.failing: dict[str, str] = {}
        #: When the last evaluation was, and what it read off.
        self.evaluated_at: datetime | None = None
        self.readings: Readings = {}
        self._database = database
        self._channels = channels
        self._bounds = bounds
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
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), EVALUATE_EVERY_S)

    async def evaluate(self) -> None:
        """Look at everything once. Raises `Unavailable`; then nothing has changed."""
        self.rules.look()
        current = self.rules.current
        rules = {name: rule for name, rule in current.rules.items() if rule.enabled}
        at = self._clock()
        now = Now(at, early=at - self._started_at < self._grace)
        async with self._database.snapshot() as connection:
            metrics = [(rule.metric, rule.window_s) for rule in rules.values() if rule.signal == "metric"]
            sight = await look(connection, at, metrics)
            readings = self._read(rules.values(), sight, now)
            known = await store.open_alerts(connection)
            moves = _moves(known, rules, current, readings, now)
            wanted = bool(moves) or bool(await self._to_tell(connection, at))
        if wanted:
            # Whoever evaluates beside us may have done it meanwhile, so this is found out anew.
            async with self._database.transaction() as connection:
                await store.lock(connection)
                moves = _moves(await store.open_alerts(connection), rules, current, readings, now)
                await _make(connection, moves, at)
                wrote = await self._tell(connection, at)
                known = await store.open_alerts(connection)
            _log(moves)
            if wrote:
                self._wake()
        self.readings, self.evaluated_at = readings, at
        self._show(rules, known.values())

    def _read(self, rules: Iterable[Rule], sight: Sight, now: Now) -> Readings:
        """What each rule reads off; one that fails is no reason not to read the others."""
        readings: dict[str, dict[SubjectKey, Reading]] = {}
        failing: dict[str, str] = {}
        for rule in rules:
            try:
                read = signals.read(rule, sight)
            except Exception as error:
                failing[rule.name] = f"{type(error).__name__}: {error}"[:300]
                RULE_FAILURES.labels(rule.name).inc()
                if self.failing.get(rule.name) != failing[rule.name]:
                    log.exception("alert_rule_failed", rule_name=rule.name)
                continue
            if now.early and rule.signal in signals.OF_ABSENCE:
                read = [replace(each, value=None) for each in read]
            readings[rule.name] = by_subject(read)
        for name in self.failing.keys() - failing.keys():
            log.info("alert_rule_recovered", rule_name=name)
        self.failing = failing
        return readings

    async def _to_tell(self, connection: AsyncConnection, at: datetime) -> list[Told]:
        untold = await store.untold(connection)
        return telling.due(untold, await store.silenced(connection, at), at, self._bounds) if untold else []

    async def _tell(self, connection: AsyncConnection, at: datetime) -> bool:
        """Write down one message for every channel, of all that people are to be told now; whether there was any."""
        silenced = await store.silenced(connection, at)
        for each in await store.untold(connection):
            if each.key in silenced and each.changes > 1:
                # Only how it is in the end matters to somebody who did not want to hear of it.
                await store.drop_changes(connection, each, each.changes % 2)
        due = await self._to_tell(connection, at)
        news = [News(each.kept, each.changes) for each in due]
        if not news:
            return False
        if not telling.may_send(news, await store.messages_since(connection, at - _HOUR), self._bounds):
            if self._held_since is None:
                self._held_since = at
                log.warning("notices_held_back", messages_per_hour=self._bounds.messages_per_hour)
            return False
        message = Message(news, at, self._held_since)
        notices = [
            Notice(f"msg_{uuid7().hex}", name, channel.body_of(message), at, next_attempt_at=at)
            for name, channel in self._channels.items()
        ]
        await store.write_notices(connection, notices)
        for each in due:
            await store.mark_told(connection, each, fires=each.kept.alert.fires, since=telling.told_since(each, at))
        await store.tidy(connection, at, at - timedelta(seconds=self._bounds.damping_s))
        self._held_since = None
        return bool(notices)

    def _show(self, rules: Mapping[str, Rule], known: Iterable[Kept]) -> None:
        """Set the gauge: also to 0 where nothing is open, so that it can be seen that somebody looks."""
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


def _moves(
    known: Mapping[Key, Kept], rules: Mapping[str, Rule], current: RuleSet, readings: Readings, now: Now
) -> list[Move]:
    """What becomes of the alerts that are open, and which begin. Those that stay as they are are not in it."""
    moves = []
    for (name, subject), kept in known.items():
        rule = rules.get(name)
        if rule is None:
            # Of a rule that can't be read nobody knows whether it is off.
            after = kept.alert if current.may_have(name) else switched_off(kept.alert, now)
            moves.append(Move(kept, None if after is None else replace(kept, alert=after)))
        elif name in readings:
            reading = readings[name].get(subject)
            after = moved_on(kept.alert, rule, reading, now)
            moves.append(Move(kept, None if after is None else _with_texts(after, rule, reading, kept.texts)))
    for name, subjects in readings.items():
        for subject, reading in subjects.items():
            if (name, subject) not in known:
                alert = begun(rules[name], subject, reading, now, str(uuid7()))
                if alert is not None:
                    moves.append(Move(None, _with_texts(alert, rules[name], reading, None)))
    return [each for each in moves if each.before is None or not _is_same(each.before, each.after)]


def _is_same(before: Kept, after: Kept | None) -> bool:
    """Whether there is nothing to write: numbers alone change all the time, and are shown from memory."""
    return after is not None and replace(after.alert, value=before.alert.value) == before.alert


def _with_texts(alert: Alert, rule: Rule, reading: Reading | None, texts: AlertTexts | None) -> Kept:
    """The alert with what people read of it, which says how it was when it was last alarming."""
    if reading is None or reading.value is None or (texts is not None and not rule.is_alarming(reading.value)):
        return Kept(alert, texts or AlertTexts({}, {}))
    values = {name: shown(value) for name, value in {**reading.facts, **reading.subject}.items()}
    values |= {
        "rule": rule.name,
        "value": written(reading.value, rule.unit),
        "threshold": written(rule.threshold, rule.unit),
        "window": written(rule.window_s, "seconds"),
    }
    return Kept(alert, store.texts_of(rule, values))


def shown(text: str) -> str:
    """A label as it may stand in a message: whoever sends metrics must not be able to write lines of it."""
    return "".join(each if each.isprintable() else "�" for each in text)[:_LONGEST_LABEL]


async def _make(connection: AsyncConnection, moves: Sequence[Move], at: datetime) -> None:
    for move in moves:
        if move.after is None:
            assert move.before is not None
            await store.forget(connection, move.before.alert.id)
            continue
        await store.save(connection, move.after)
        if move.tells:
            await store.note_change(connection, move.after.alert, at)


def _log(moves: Iterable[Move]) -> None:
    """The log is told of every change, at once and undamped."""
    for move in moves:
        if move.after is None or not move.tells:
            continue
        alert = move.after.alert
        about = log.bind(alert=alert.id, rule_name=alert.rule, subject=move.after.subject, value=alert.value)
        if alert.fires:
            about.warning("alert_fired", severity=alert.severity, summary=move.after.texts.summary.get("en", ""))
        else:
            about.info("alert_resolved", reason=alert.reason)
