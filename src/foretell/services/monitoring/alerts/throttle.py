"""Decides when a change is notified: at once, unless it flaps, is silenced, or the message limit is reached.

The last notified state is stored and compared with the current state. So a change that was held back is notified later,
in one message, and a restart loses nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from foretell.services.monitoring.alerts.store import Key, NotifiedSubject, StoredAlert


@dataclass(frozen=True, slots=True)
class Throttle:
    """Limits of the notifications."""

    #: For each subject of a rule: at most one pair of notifications (firing, resolved) in this many seconds.
    damping_s: float = 300.0
    #: All messages; a fifth is reserved for critical alerts.
    messages_per_hour: int = 30


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one alert to be notified.

    `times` is the number of changes since the last notification: more than one if it flapped.
    """

    stored: StoredAlert
    times: int

    @property
    def fires(self) -> bool:
        """Whether the alert is firing now; otherwise it is resolved."""
        return self.stored.alert.fires


def due(
    changed: Sequence[NotifiedSubject], silenced: Collection[Key], now: datetime, throttle: Throttle
) -> list[NotifiedSubject]:
    """The changed subjects to be notified now."""
    return [each for each in changed if each.key not in silenced and _is_due(each, now, throttle)]


def _is_due(each: NotifiedSubject, now: datetime, throttle: Throttle) -> bool:
    # The end of a notified alert is notified at once; other changes within the time may be flapping.
    if _ends_what_was_notified(each):
        return True
    return each.since is None or now - each.since >= timedelta(seconds=throttle.damping_s)


def damped_since(each: NotifiedSubject, now: datetime) -> datetime | None:
    """The start of the damping time after this notification. The end of an alert does not restart it."""
    return each.since if _ends_what_was_notified(each) else now


def _ends_what_was_notified(each: NotifiedSubject) -> bool:
    return each.fires and not each.stored.alert.fires and each.changes == 1


def may_send(changes: Sequence[Change], sent_within_an_hour: int, throttle: Throttle) -> bool:
    """Whether one more message, with these changes, is within the limit."""
    urgent = any(each.fires and each.stored.alert.severity == "critical" for each in changes)
    reserved = 0 if urgent else throttle.messages_per_hour // 5
    return sent_within_an_hour < throttle.messages_per_hour - reserved
