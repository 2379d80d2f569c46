"""From when to when a report looks."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

#: Metrics come every few seconds: in a shorter time there is nothing to count.
SHORTEST_S = 10.0


class PeriodFields(TypedDict):
    """The fields of `Reported`."""

    since: datetime
    until: datetime
    window_s: float


@dataclass(frozen=True, slots=True)
class Period:
    """The time between two moments."""

    since: datetime
    until: datetime

    @property
    def window_s(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds()

    @property
    def fields(self) -> PeriodFields:
        """As reports say it."""
        return {"since": self.since, "until": self.until, "window_s": self.window_s}

    def moments(self, points: int) -> list[datetime]:
        """The ends of at most so many equal parts, each long enough for something to be counted in it."""
        parts = max(1, min(points, int(self.window_s // SHORTEST_S)))
        step = (self.until - self.since) / parts
        return [self.since + step * number for number in range(parts)] + [self.until]
