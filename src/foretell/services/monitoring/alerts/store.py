"""Stores alerts, the last notified states, silences and notifications in the database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.alert_rules import Rule
from foretell.kit import structs
from foretell.services.monitoring.alerts.alert import Alert, SubjectKey
from foretell.services.monitoring.alerts.rules import LANGUAGES, filled
from foretell.services.monitoring.storage.tables import alerts, notices, notified, silences

#: The lock with which only one of several monitoring services evaluates at a time. "alerting" in ASCII.
_LOCK = int.from_bytes(b"alerting")

Key = tuple[str, SubjectKey]


class AlertTexts(msgspec.Struct, frozen=True):
    """The texts of one alert, by language."""

    summary: dict[str, str]
    action: dict[str, str]


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert as it is stored, with its texts."""

    alert: Alert
    texts: AlertTexts

    @property
    def subject(self) -> dict[str, str]:
        """The decoded subject."""
        return cast(dict[str, str], msgspec.json.decode(self.alert.subject))


@dataclass(frozen=True, slots=True)
class NotifiedSubject:
    """The last notified state of one subject of a rule.

    `since` is the start of its damping time; `changes` is the number of changes that are not notified yet.
    """

    rule: str
    subject: SubjectKey
    stored: StoredAlert
    fires: bool
    since: datetime | None
    changes: int
    changed_at: datetime

    @property
    def key(self) -> Key:
        """The rule and the subject."""
        return self.rule, self.subject


def texts_of(rule: Rule, values: Mapping[str, dict[str, str]]) -> AlertTexts:
    """The texts of an alert of `rule`; `values` by language."""
    return AlertTexts(
        summary={language: filled(rule.summary.of(language), values[language]) for language in LANGUAGES},
        action={language: filled(rule.action.of(language), values[language]) for language in LANGUAGES},
    )


async def lock(connection: AsyncConnection) -> None:
    """Prevent other processes from evaluating until the end of this transaction."""
    # On SQLite, the transaction itself excludes other writers.
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def open_alerts(connection: AsyncConnection) -> dict[Key, StoredAlert]:
    """All alerts that are not resolved."""
    rows = await connection.execute(select(alerts).where(alerts.c.resolved_at.is_(None)))
    found = [_stored_of(row._mapping) for row in rows]
    return {(each.alert.rule, each.alert.subject): each for each in found}


async def resolved_alerts(connection: AsyncConnection, limit: int) -> list[StoredAlert]:
    """The alerts resolved last, newest first."""
    query = select(alerts).where(alerts.c.resolved_at.is_not(None)).order_by(alerts.c.resolved_at.desc()).limit(limit)
    return [_stored_of(row._mapping) for row in await connection.execute(query)]


async def find_alert(connection: AsyncConnection, alert_id: str) -> StoredAlert | None:
    """The alert with this id."""
    row = (await connection.execute(select(alerts).where(alerts.c.id == alert_id))).one_or_none()
    return None if row is None else _stored_of(row._mapping)


def _stored_of(row: Any) -> StoredAlert:
    fields = {name: row[name] for name in Alert.__dataclass_fields__}
    summary = {language: row["summary"] for language in LANGUAGES}
    texts = structs.decode(row["texts"], AlertTexts) if row["texts"] else AlertTexts(summary, {})
    return StoredAlert(Alert(**fields), texts)


async def save(connection: AsyncConnection, stored: StoredAlert) -> None:
    """Insert or update an alert."""
    alert = stored.alert
    values = {name: getattr(alert, name) for name in Alert.__dataclass_fields__ if name != "id"}
    values |= {"summary": stored.texts.summary["en"], "texts": msgspec.json.encode(stored.texts).decode()}
    result = await connection.execute(update(alerts).where(alerts.c.id == alert.id).values(values))
    if result.rowcount == 0:
        await connection.execute(insert(alerts).values({**values, "id": alert.id}))


async def forget(connection: AsyncConnection, alert_id: str) -> None:
    """Remove an alert that never fired."""
    await connection.execute(delete(alerts).where(alerts.c.id == alert_id))


async def unnotified(connection: AsyncConnection) -> list[NotifiedSubject]:
    """Every subject that has changed since its last notification, the oldest change first."""
    query = (
        select(notified)
        .where(notified.c.changes > 0)
        .order_by(notified.c.changed_at, notified.c.rule, notified.c.subject)
    )
    rows = (await connection.execute(query)).all()
    if not rows:
        return []
    newest = select(alerts).join(notified, notified.c.alert_id == alerts.c.id).where(notified.c.changes > 0)
    stored = {row.id: _stored_of(row._mapping) for row in await connection.execute(newest)}
    # Alerts that retention has deleted can't be notified any more.
    return [
        NotifiedSubject(row.rule, row.subject, stored[row.alert_id], row.fires, row.since, row.changes, row.changed_at)
        for row in rows
        if row.alert_id in stored
    ]


async def note_change(connection: AsyncConnection, alert: Alert, now: datetime) -> None:
    """Record that `alert` started or stopped firing, which is to be notified."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(notified).values(
        rule=alert.rule, subject=alert.subject, alert_id=alert.id, fires=False, since=None, changes=1, changed_at=now
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[notified.c.rule, notified.c.subject],
            set_={"alert_id": alert.id, "changes": notified.c.changes + 1, "changed_at": now},
        )
    )


async def mark_notified(
    connection: AsyncConnection, each: NotifiedSubject, *, fires: bool, since: datetime | None
) -> None:
    """Record a notification that was just written."""
    await connection.execute(
        update(notified).where(*_is(notified, each.key)).values(fires=fires, since=since, changes=0)
    )


async def drop_changes(connection: AsyncConnection, each: NotifiedSubject, changes: int) -> None:
    """Reduce the number of changes that are not notified yet to `changes`."""
    await connection.execute(update(notified).where(*_is(notified, each.key)).values(changes=changes))


async def tidy(connection: AsyncConnection, now: datetime, damped_since: datetime) -> None:
    """Delete the states of subjects without recent changes, and expired silences."""
    quiet = and_(notified.c.changes == 0, notified.c.fires.is_(False), notified.c.since < damped_since)
    # Also the states of alerts that retention has deleted.
    gone = notified.c.alert_id.not_in(select(alerts.c.id))
    await connection.execute(delete(notified).where(quiet | gone))
    await connection.execute(delete(silences).where(silences.c.until <= now))


async def silenced(connection: AsyncConnection, now: datetime) -> dict[Key, datetime]:
    """The silenced subjects, and until when."""
    rows = await connection.execute(select(silences).where(silences.c.until > now))
    return {(row.rule, row.subject): row.until for row in rows}


async def silence(connection: AsyncConnection, key: Key, until: datetime) -> None:
    """Silence a subject of a rule until `until`; a time in the past ends the silence."""
    await connection.execute(delete(silences).where(*_is(silences, key)))
    await connection.execute(insert(silences).values(rule=key[0], subject=key[1], until=until))


def _is(table: Any, key: Key) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.rule == key[0], table.c.subject == key[1]


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to one channel. Without `sent_at` and `next_attempt_at`, it is given up."""

    id: str
    channel: str
    body: str
    created_at: datetime
    attempts: int = 0
    next_attempt_at: datetime | None = None
    sent_at: datetime | None = None
    last_error: str | None = None


async def write_notifications(connection: AsyncConnection, written: Iterable[Notification]) -> None:
    """Store notifications until they are sent or given up."""
    rows = [{name: getattr(each, name) for name in Notification.__dataclass_fields__} for each in written]
    if rows:
        await connection.execute(insert(notices), rows)


async def messages_since(connection: AsyncConnection, since: datetime) -> int:
    """The number of messages written after `since`, each counted once for all channels."""
    query = select(func.count(notices.c.created_at.distinct())).where(notices.c.created_at > since)
    return int((await connection.execute(query)).scalar_one())


async def waiting_notifications(connection: AsyncConnection) -> list[Notification]:
    """The notifications to be sent, oldest first."""
    query = select(notices).where(notices.c.next_attempt_at.is_not(None)).order_by(notices.c.created_at, notices.c.id)
    return [Notification(**row._mapping) for row in await connection.execute(query)]


async def claim(connection: AsyncConnection, notification: Notification, until: datetime) -> Notification | None:
    """Claim `notification` until `until`, so that no other process sends it. None: another process was first."""
    claimed = replace(notification, attempts=notification.attempts + 1, next_attempt_at=until)
    result = await connection.execute(
        update(notices)
        .where(
            notices.c.id == notification.id, notices.c.attempts == notification.attempts, notices.c.sent_at.is_(None)
        )
        .values(attempts=claimed.attempts, next_attempt_at=until)
    )
    return claimed if result.rowcount else None


async def settle_notification(
    connection: AsyncConnection,
    notice_id: str,
    *,
    sent_at: datetime | None = None,
    next_attempt_at: datetime | None = None,
    last_error: str | None = None,
) -> None:
    """Record the result of an attempt; without `sent_at` and `next_attempt_at` the notification is given up."""
    await connection.execute(
        update(notices)
        .where(notices.c.id == notice_id)
        .values(sent_at=sent_at, next_attempt_at=next_attempt_at, last_error=last_error)
    )
