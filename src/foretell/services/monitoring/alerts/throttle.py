"""When people are notified of a change: at once, unless it flaps, is silenced, or there were too many notifications.

What people were notified of is stored and compared with the present state. So a change that was held back is notified
later by itself, in one message, and a restart loses nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from foretell.services.monitoring.alerts.store import Key, NotifiedSubject, StoredAlert


@dataclass(frozen=True, slots=True)
class Throttle:
    """How often people are notified at most."""

    #: Of one subject of a rule: that it fires, and that it is over, once in so many seconds.
    damping_s: float = 300.0
    #: All messages; a fifth of them is reserved for critical alerts.
    messages_per_hour: int = 30


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one alert that people are to be notified of.

    `times` is how often it changed since the last notification: more than once when it flapped.
    """

    stored: StoredAlert
    times: int

    @property
    def fires(self) -> bool:
        """Whether it fires now; else it is over."""
        return self.stored.alert.fires


def due(
    changed: Sequence[NotifiedSubject], silenced: Collection[Key], now: datetime, throttle: Throttle
) -> list[NotifiedSubject]:
    """Those of which people are to be notified now."""
    return [each for each in changed if each.key not in silenced and _is_due(each, now, throttle)]


def _is_due(each: NotifiedSubject, now: datetime, throttle: Throttle) -> bool:
    # The end of an alert that people know of is notified at once; anything more may be flapping.
    if _ends_what_was_notified(each):
        return True
    return each.since is None or now - each.since >= timedelta(seconds=throttle.damping_s)


def damped_since(each: NotifiedSubject, now: datetime) -> datetime | None:
    """From when on the next change is damped, once people are notified of `each` now: not from the end of an alert."""
    return each.since if _ends_what_was_notified(each) else now


def _ends_what_was_notified(each: NotifiedSubject) -> bool:
    return each.fires and not each.stored.alert.fires and each.changes == 1


def may_send(changes: Sequence[Change], sent_within_an_hour: int, throttle: Throttle) -> bool:
    """Whether one more message, with these changes in it, is within the limit."""
    urgent = any(each.fires and each.stored.alert.severity == "critical" for each in changes)
    reserved = 0 if urgent else throttle.messages_per_hour // 5
    return sent_within_an_hour < throttle.messages_per_hour - reserved
