"""Alerts, what people were notified of, silences and notifications, in the database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.services.monitoring.alerts.alert import Alert, SubjectKey
from foretell.services.monitoring.alerts.rules import LANGUAGES, Rule, filled
from foretell.services.monitoring.storage.tables import alerts, notices, silences, told

#: Two monitoring services may share a database: one evaluates at a time. "alerting" in ASCII.
_LOCK = int.from_bytes(b"alerting")

Key = tuple[str, SubjectKey]


class AlertTexts(msgspec.Struct, frozen=True):
    """What people read of one alert, by language."""

    summary: dict[str, str]
    action: dict[str, str]


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert as it is stored, with its texts."""

    alert: Alert
    texts: AlertTexts

    @property
    def subject(self) -> dict[str, str]:
        """What it is about."""
        return cast(dict[str, str], msgspec.json.decode(self.alert.subject))


@dataclass(frozen=True, slots=True)
class NotifiedSubject:
    """What people were last told of one subject of a rule.

    `since` is when that was, if it was that it fires or that it kept changing; `changes` counts what was not told yet.
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
    """Let nobody else evaluate before this transaction is over."""
    # On SQLite, the transaction itself lets nobody else write.
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def open_alerts(connection: AsyncConnection) -> dict[Key, StoredAlert]:
    """Those that are not resolved."""
    rows = await connection.execute(select(alerts).where(alerts.c.resolved_at.is_(None)))
    found = [_stored_of(row._mapping) for row in rows]
    return {(each.alert.rule, each.alert.subject): each for each in found}


async def resolved_alerts(connection: AsyncConnection, limit: int) -> list[StoredAlert]:
    """The last ones that were resolved, newest first."""
    query = select(alerts).where(alerts.c.resolved_at.is_not(None)).order_by(alerts.c.resolved_at.desc()).limit(limit)
    return [_stored_of(row._mapping) for row in await connection.execute(query)]


async def find_alert(connection: AsyncConnection, alert_id: str) -> StoredAlert | None:
    """The alert of that id."""
    row = (await connection.execute(select(alerts).where(alerts.c.id == alert_id))).one_or_none()
    return None if row is None else _stored_of(row._mapping)


def _stored_of(row: Any) -> StoredAlert:
    fields = {name: row[name] for name in Alert.__dataclass_fields__}
    summary = {language: row["summary"] for language in LANGUAGES}
    texts = msgspec.json.decode(row["texts"], type=AlertTexts) if row["texts"] else AlertTexts(summary, {})
    return StoredAlert(Alert(**fields), texts)


async def save(connection: AsyncConnection, stored: StoredAlert) -> None:
    """Keep an alert as it is now."""
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
    """Every subject that changed since people were last told of it, the longest ago first."""
    query = select(told).where(told.c.changes > 0).order_by(told.c.changed_at, told.c.rule, told.c.subject)
    rows = (await connection.execute(query)).all()
    if not rows:
        return []
    newest = select(alerts).join(told, told.c.alert_id == alerts.c.id).where(told.c.changes > 0)
    stored = {row.id: _stored_of(row._mapping) for row in await connection.execute(newest)}
    # What retention has removed can't be told of any more.
    return [
        NotifiedSubject(row.rule, row.subject, stored[row.alert_id], row.fires, row.since, row.changes, row.changed_at)
        for row in rows
        if row.alert_id in stored
    ]


async def note_change(connection: AsyncConnection, alert: Alert, now: datetime) -> None:
    """Note that `alert` began or ended to fire, of which people are to be told."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(told).values(
        rule=alert.rule, subject=alert.subject, alert_id=alert.id, fires=False, since=None, changes=1, changed_at=now
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[told.c.rule, told.c.subject],
            set_={"alert_id": alert.id, "changes": told.c.changes + 1, "changed_at": now},
        )
    )


async def mark_notified(
    connection: AsyncConnection, each: NotifiedSubject, *, fires: bool, since: datetime | None
) -> None:
    """Note what people were told just now."""
    await connection.execute(update(told).where(*_is(told, each.key)).values(fires=fires, since=since, changes=0))


async def drop_changes(connection: AsyncConnection, each: NotifiedSubject, changes: int) -> None:
    """Leave `changes` of those that were not told; the others are nobody's business."""
    await connection.execute(update(told).where(*_is(told, each.key)).values(changes=changes))


async def tidy(connection: AsyncConnection, now: datetime, damped_since: datetime) -> None:
    """Forget what was told of subjects that have long been quiet, and silences that are over."""
    quiet = and_(told.c.changes == 0, told.c.fires.is_(False), told.c.since < damped_since)
    # An alert that retention has removed can't be told of any more.
    gone = told.c.alert_id.not_in(select(alerts.c.id))
    await connection.execute(delete(told).where(quiet | gone))
    await connection.execute(delete(silences).where(silences.c.until <= now))


async def silenced(connection: AsyncConnection, now: datetime) -> dict[Key, datetime]:
    """What nobody wants to hear of now, and until when."""
    rows = await connection.execute(select(silences).where(silences.c.until > now))
    return {(row.rule, row.subject): row.until for row in rows}


async def silence(connection: AsyncConnection, key: Key, until: datetime) -> None:
    """Say nothing of a subject of a rule until then; a moment in the past ends it."""
    await connection.execute(delete(silences).where(*_is(silences, key)))
    await connection.execute(insert(silences).values(rule=key[0], subject=key[1], until=until))


def _is(table: Any, key: Key) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.rule == key[0], table.c.subject == key[1]


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to one channel. Neither sent nor to be attempted any more: given up."""

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
    """How many messages were written after `since`, each to however many channels."""
    query = select(func.count(notices.c.created_at.distinct())).where(notices.c.created_at > since)
    return int((await connection.execute(query)).scalar_one())


async def waiting_notifications(connection: AsyncConnection) -> list[Notification]:
    """Those that are to be sent, oldest first."""
    query = select(notices).where(notices.c.next_attempt_at.is_not(None)).order_by(notices.c.created_at, notices.c.id)
    return [Notification(**row._mapping) for row in await connection.execute(query)]


async def claim(connection: AsyncConnection, notification: Notification, until: datetime) -> Notification | None:
    """Take it upon us to send `notification`, so that nobody else does until then. None: somebody else was first."""
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
    """Note how an attempt went; without `sent_at` and `next_attempt_at` the notification is given up."""
    await connection.execute(
        update(notices)
        .where(notices.c.id == notice_id)
        .values(sent_at=sent_at, next_attempt_at=next_attempt_at, last_error=last_error)
    )
