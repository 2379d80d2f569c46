"""Adds up the revenue of yesterday and today without reading the same predictions repeatedly.

A prediction that has ended does not change. So predictions are grouped into spans of their acceptance time (the first
part of their id), and a span in which all have ended is not read again. Each run reads the spans with unfinished
predictions, the last minutes, and one other span in turn, because an app whose clock is behind may add to an old span.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from time import perf_counter

from foretell.domain.predictions import figures
from foretell.domain.predictions.figures import Earned
from foretell.kit.database import Database

_MINUTE = timedelta(minutes=1)
#: How long after its acceptance time a prediction may still appear, because of late commits and clocks that differ.
_LATE = timedelta(minutes=5)
#: A prediction that ended yesterday was accepted at most this long before.
_LONGEST_WAIT = timedelta(days=1)
#: The width of new spans is adapted so that reading one takes at most about this long.
_LOOK_S = 0.05
#: A power of two, so that every half is a whole number of minutes.
_WIDEST = 512 * _MINUTE


@dataclass(frozen=True, slots=True)
class Takings:
    """Captured credits, and the number of predictions."""

    credits: int
    predictions: int


@dataclass(frozen=True, slots=True)
class _Span:
    """A half-open interval of acceptance times, in whole minutes."""

    since: datetime
    until: datetime


class Revenue:
    """The revenue of each model, yesterday and today (UTC)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: The revenue of each span before `_known_until`.
        self._earned: dict[_Span, list[Earned]] = {}
        #: The spans with unfinished predictions.
        self._unfinished: set[_Span] = set()
        self._known_until: datetime | None = None
        #: The end of the finished span that was read again last.
        self._checked_until: datetime | None = None
        self._width = _MINUTE

    async def add_up(self, at: datetime) -> Mapping[tuple[str, date], Takings]:
        """Revenue by model and day: the day of `at` and the one before, without empty days. Raises `Unavailable`."""
        yesterday = figures.midnight(at) - timedelta(days=1)
        first = yesterday - _LONGEST_WAIT
        self._earned = {span: earned for span, earned in self._earned.items() if span.until > first}
        self._unfinished &= self._earned.keys()
        for span in self._unfinished | self._next_to_check():
            await self._learn(span)
        complete_until = _minute_of(at - _LATE)
        # More predictions may appear in the last minutes, so their sums are not kept.
        latest: list[Earned] = []
        since = max(first, self._known_until or first)
        while (accepted_at := await self._next_accepted_at(since)) is not None:
            begin = _minute_of(accepted_at)
            if begin < complete_until:
                # Begin where the previous span ended, since a prediction may still appear in the gap.
                span = _Span(since, min(begin + self._width, complete_until))
                await self._learn(span)
                self._known_until = span.until
            else:
                span = _Span(begin, begin + _MINUTE)
                latest += (await self._look(span))[0]
            since = span.until
        return _sums((*self._earned.values(), latest), since_day=yesterday.date())

    def _next_to_check(self) -> set[_Span]:
        """The known span after the one read last time; the oldest again after the newest."""
        spans = sorted(self._earned, key=lambda span: span.until)
        if not spans:
            return set()
        checked_until = self._checked_until or spans[0].since
        following = next((span for span in spans if span.until > checked_until), spans[0])
        self._checked_until = following.until
        return {following}

    async def _next_accepted_at(self, since: datetime) -> datetime | None:
        """The next acceptance time from `since` on, which skips times without predictions."""
        async with self._database.snapshot() as connection:
            return await figures.next_accepted_at(connection, since)

    async def _learn(self, span: _Span) -> None:
        """Read a span and keep its revenue."""
        started = perf_counter()
        self._earned[span], unfinished = await self._look(span)
        if unfinished:
            self._unfinished.add(span)
        else:
            self._unfinished.discard(span)
        took_s = perf_counter() - started
        if took_s > _LOOK_S:
            self._width = max(self._width / 2, _MINUTE)
        elif took_s < _LOOK_S / 4:
            self._width = min(self._width * 2, _WIDEST)

    async def _look(self, span: _Span) -> tuple[list[Earned], bool]:
        # One transaction for each span, so that none is open for long.
        async with self._database.snapshot() as connection:
            brought, unfinished = await figures.earned(connection, span.since, span.until)
        return list(brought), unfinished


def _sums(earnings: Iterable[list[Earned]], *, since_day: date) -> Mapping[tuple[str, date], Takings]:
    credits: dict[tuple[str, date], int] = defaultdict(int)
    predictions: dict[tuple[str, date], int] = defaultdict(int)
    for in_span in earnings:
        for earned in in_span:
            if earned.day >= since_day:
                credits[earned.model, earned.day] += earned.credits
                predictions[earned.model, earned.day] += earned.predictions
    return {key: Takings(credits[key], predictions[key]) for key in credits}


def _minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)
