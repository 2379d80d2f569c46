"""When people are told of a change: at once, unless it flaps, is silenced, or there were too many messages.

What people were told is kept, and compared with how things are: whatever was held back is caught up with by itself,
in one message, and nothing is lost over a restart.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from foretell.services.monitoring.alerts.store import Kept, Key, Told


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often people are told at most."""

    #: Of one subject of a rule: that it fires, and that it is over, once in so many seconds.
    damping_s: float = 300.0
    #: All messages; a fifth of them is left for critical alerts alone.
    messages_per_hour: int = 30


@dataclass(frozen=True, slots=True)
class News:
    """What people are to be told of one alert; more than one change: it went to and fro since they were told last."""

    kept: Kept
    changes: int

    @property
    def fires(self) -> bool:
        """Whether it fires now; else it is over."""
        return self.kept.alert.fires


def due(untold: Sequence[Told], silenced: Collection[Key], now: datetime, bounds: Bounds) -> list[Told]:
    """Those of which people are to be told now."""
    return [each for each in untold if each.key not in silenced and _is_due(each, now, bounds)]


def _is_due(each: Told, now: datetime, bounds: Bounds) -> bool:
    # That what they were told of is over, they should know at once; anything more may be flapping.
    if each.fires and not each.kept.alert.fires and each.changes == 1:
        return True
    return each.since is None or now - each.since >= timedelta(seconds=bounds.damping_s)


def told_since(each: Told, now: datetime) -> datetime | None:
    """From when on the next change is damped, once people are told of `each` now: not from the end of an alert."""
    ends_what_was_told = each.fires and not each.kept.alert.fires and each.changes == 1
    return each.since if ends_what_was_told else now


def may_send(news: Sequence[News], sent_within_an_hour: int, bounds: Bounds) -> bool:
    """Whether one more message with this in it is not too much."""
    urgent = any(each.fires and each.kept.alert.severity == "critical" for each in news)
    spared = 0 if urgent else bounds.messages_per_hour // 5
    return sent_within_an_hour < bounds.messages_per_hour - spared
