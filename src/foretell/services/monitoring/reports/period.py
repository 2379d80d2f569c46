"""The period of a report."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

#: Metrics arrive every few seconds, so a shorter period has nothing to count.
SHORTEST_S = 10.0


class PeriodFields(TypedDict):
    """The fields of `Reported`."""

    since: datetime
    until: datetime
    window_s: float


@dataclass(frozen=True, slots=True)
class Period:
    """A period between two times."""

    since: datetime
    until: datetime

    @property
    def window_s(self) -> float:
        """The length of the period."""
        return (self.until - self.since).total_seconds()

    @property
    def fields(self) -> PeriodFields:
        """The period in the format of reports."""
        return {"since": self.since, "until": self.until, "window_s": self.window_s}

    def moments(self, points: int) -> list[datetime]:
        """The bounds of at most `points` equal parts, each at least `SHORTEST_S` long."""
        parts = max(1, min(points, int(self.window_s // SHORTEST_S)))
        step = (self.until - self.since) / parts
        return [self.since + step * number for number in range(parts)] + [self.until]
