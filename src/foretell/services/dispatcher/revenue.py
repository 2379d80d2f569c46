"""Adds up what was earned yesterday and today, without reading the same predictions again and again.

A prediction that has ended stays as it is. So the time of acceptance, which identifiers begin with, is cut into spans
without gaps, and a span in which all have ended need not be added up again. Looked at every time are those in which
something still waits, and the last minutes; and one of the others, in turn, for an app whose clock is behind accepts
into the past.
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
#: How long after its acceptance a prediction may yet appear: commits take their time, and clocks differ.
_LATE = timedelta(minutes=5)
#: What ended yesterday was accepted yesterday or, at most this long before.
_LONGEST_WAIT = timedelta(days=1)
#: A span is so long that reading it takes about this long, and no longer than that.
_LOOK_S = 0.05
#: Minutes by a power of two, so that half of it, and half of that, are whole minutes.
_WIDEST = 512 * _MINUTE


@dataclass(frozen=True, slots=True)
class Takings:
    """Credits captured, and by how many predictions."""

    credits: int
    predictions: int


@dataclass(frozen=True, slots=True)
class _Span:
    """A time of acceptance, without its end; in whole minutes."""

    since: datetime
    until: datetime


class Revenue:
    """What each model has earned yesterday and today, UTC."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: What the predictions accepted in each span have brought, of the spans before `_known_until`.
        self._earned: dict[_Span, list[Earned]] = {}
        #: Those in which somebody still waits.
        self._unfinished: set[_Span] = set()
        self._known_until: datetime | None = None
        #: Up to where those have been looked at once more.
        self._checked_until: datetime | None = None
        self._width = _MINUTE

    async def add_up(self, at: datetime) -> Mapping[tuple[str, date], Takings]:
        """By model and day, the day of `at` and the one before; days without any are left out. Raises `Unavailable`."""
        yesterday = figures.midnight(at) - timedelta(days=1)
        first = yesterday - _LONGEST_WAIT
        self._earned = {span: earned for span, earned in self._earned.items() if span.until > first}
        self._unfinished &= self._earned.keys()
        for span in self._unfinished | self._next_to_check():
            await self._learn(span)
        complete_until = _minute_of(at - _LATE)
        # Of the last minutes, more may appear: what is read of them is good for this time only.
        latest: list[Earned] = []
        since = max(first, self._known_until or first)
        while (accepted_at := await self._next_accepted_at(since)) is not None:
            begin = _minute_of(accepted_at)
            if begin < complete_until:
                # From the last one on: where nobody was accepted yet, somebody may be later.
                span = _Span(since, min(begin + self._width, complete_until))
                await self._learn(span)
                self._known_until = span.until
            else:
                span = _Span(begin, begin + _MINUTE)
                latest += (await self._look(span))[0]
            since = span.until
        return _sums((*self._earned.values(), latest), since_day=yesterday.date())

    def _next_to_check(self) -> set[_Span]:
        """The known span after the one of last time, from the oldest on again after the newest."""
        spans = sorted(self._earned, key=lambda span: span.until)
        if not spans:
            return set()
        checked_until = self._checked_until or spans[0].since
        following = next((span for span in spans if span.until > checked_until), spans[0])
        self._checked_until = following.until
        return {following}

    async def _next_accepted_at(self, since: datetime) -> datetime | None:
        """When something was accepted next: times without anything are passed over at once."""
        async with self._database.snapshot() as connection:
            return await figures.next_accepted_at(connection, since)

    async def _learn(self, span: _Span) -> None:
        """Read a span and keep what it has brought."""
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
        # A transaction for each span: none is open for long, and settlement has its turn in between.
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
