"""The contents of a notification, one for all alerts that changed together: as JSON and as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from foretell.services.monitoring.alerts.alert import Alert
from foretell.services.monitoring.alerts.throttle import Change

#: Alerts that one message lists; the rest are only counted.
MOST_ALERTS = 50
#: Telegram accepts 4096 characters, counted in UTF-16.
LONGEST_TEXT = 4000

_WORDS = {
    "en": {
        "firing": "FIRING",
        "resolved": "RESOLVED",
        "no_data": "no data any more",
        "rule_off": "its rule is off",
        "critical": "critical",
        "warning": "warning",
        "info": "info",
        "changed": "changed {changes} times since it was last told of",
        "lasted": "after {duration}",
        "to_do": "To do: {action}",
        "more": "And {number} more: GET /alerts shows all.",
        "held": "Some of this was held back since {since:%H:%M} UTC: there were too many messages.",
        "trial": "A test: alerts of Foretell arrive here.",
    },
    "ru": {
        "firing": "СРАБОТАЛО",
        "resolved": "ПРОШЛО",
        "no_data": "данных больше нет",
        "rule_off": "правило отключено",
        "critical": "критично",
        "warning": "предупреждение",
        "info": "к сведению",
        "changed": "менялось {changes} раз с прошлого сообщения",
        "lasted": "через {duration}",
        "to_do": "Что делать: {action}",
        "more": "И ещё {number}: все покажет GET /alerts.",
        "held": "Часть этого задержана с {since:%H:%M} UTC: сообщений было слишком много.",
        "trial": "Проверка: оповещения Foretell приходят сюда.",
    },
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message, independent of the channel."""

    changes: Sequence[Change]
    at: datetime
    #: Since when a part of it was held back because of the message limit.
    held_since: datetime | None = None

    @property
    def shown(self) -> list[Change]:
        """The alerts that are listed: firing before resolved ones, the most severe first."""
        order = sorted(self.changes, key=lambda each: (not each.fires, _SEVERITIES.index(each.stored.alert.severity)))
        return order[:MOST_ALERTS]


_SEVERITIES = ("critical", "warning", "info")


def text_of(message: Message, language: str) -> str:
    """The message as text."""
    words = _WORDS[language]
    lines: list[str] = []
    if message.held_since is not None:
        lines.append(words["held"].format(since=message.held_since))
    shown = 0
    for each in message.shown:
        paragraph = _paragraph(each, language)
        if lines and _length("\n\n".join([*lines, paragraph])) > LONGEST_TEXT:
            break
        lines.append(paragraph)
        shown += 1
    if shown < len(message.changes):
        lines.append(words["more"].format(number=len(message.changes) - shown))
    return "\n\n".join(lines)


def trial_text(language: str) -> str:
    """The text of a test."""
    return _WORDS[language]["trial"]


def _paragraph(change: Change, language: str) -> str:
    words = _WORDS[language]
    alert = change.stored.alert
    head = words["firing"] if change.fires else words["resolved"]
    notes = [words[alert.severity]] if change.fires else [words[alert.reason]] if alert.reason in words else []
    if not change.fires and alert.fired_at is not None and alert.resolved_at is not None and change.times == 1:
        notes.insert(0, words["lasted"].format(duration=_duration(alert)))
    if change.times > 1:
        notes.append(words["changed"].format(changes=change.times))
    summary = change.stored.texts.summary.get(language, "")
    lines = [f"{head} {alert.rule}{' (' + ', '.join(notes) + ')' if notes else ''}: {summary}"]
    action = change.stored.texts.action.get(language)
    if change.fires and action:
        lines.append(words["to_do"].format(action=action))
    return "\n".join(lines)


def _duration(alert: Alert) -> str:
    assert alert.fired_at is not None
    assert alert.resolved_at is not None
    seconds = int((alert.resolved_at - alert.fired_at).total_seconds())
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02}:{seconds % 60:02}"


def _length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def payload_of(message: Message, language: str) -> dict[str, Any]:
    """The message as JSON, the body of a webhook."""
    return {
        "type": "alerts.changed",
        "timestamp": message.at,
        "text": text_of(message, language),
        "data": {
            "alerts": [_as_data(each) for each in message.shown],
            "more": len(message.changes) - len(message.shown),
            "held_since": message.held_since,
        },
    }


def trial_payload(at: datetime, language: str) -> dict[str, Any]:
    """The body of a webhook test."""
    return {"type": "alerts.test", "timestamp": at, "text": trial_text(language), "data": {}}


def _as_data(change: Change) -> dict[str, Any]:
    alert = change.stored.alert
    return {
        "id": alert.id,
        "rule": alert.rule,
        "subject": change.stored.subject,
        "severity": alert.severity,
        "state": "firing" if change.fires else "resolved",
        "reason": alert.reason,
        "value": alert.value,
        "summary": change.stored.texts.summary,
        "action": change.stored.texts.action,
        "fired_at": alert.fired_at,
        "resolved_at": alert.resolved_at,
        "changes": change.times,
    }
