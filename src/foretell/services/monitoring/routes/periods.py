"""Parses the period of a report from the query parameters."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from foretell.services.monitoring.reports.period import SHORTEST_S, Period
from foretell.services.monitoring.routes.filters import WrongParameter, known_only, moment

PARAMETERS = ("since", "until", "window")

_DEFAULT_S = 300.0
_EARLIEST = datetime(1980, 1, 1, tzinfo=UTC)
_LONGEST = timedelta(days=400)
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_is_window = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)", re.ASCII).fullmatch


def period_of(query: Mapping[str, str], now: datetime, *, also: Collection[str] = ()) -> Period:
    """The period of the parameters `since`, `until` and `window`; without any, the last five minutes.

    `also` are the other parameters that the report takes. Raises `WrongParameter`.
    """
    given = known_only(query, [*PARAMETERS, *also])
    since, until = _moment(given, "since"), _moment(given, "until")
    window = window_of(given["window"]) if "window" in given else None
    if since is None:
        end = min(until or now, now)
        since = end - (window or timedelta(seconds=_DEFAULT_S))
    else:
        if until is not None and window is not None:
            raise WrongParameter("window", "must not be given beside both since and until")
        if since >= now:
            raise WrongParameter("since", "must not be in the future")
        end = min(until or (since + window if window is not None else now), now)
    if (end - since).total_seconds() < SHORTEST_S:
        raise WrongParameter("until" if until is not None else "since", f"must leave at least {SHORTEST_S:g} s")
    if end - since > _LONGEST:
        raise WrongParameter("since", f"must not be more than {_LONGEST.days} days before the end")
    return Period(since, end)


def _moment(given: Mapping[str, str], name: str) -> datetime | None:
    value = moment(given, name)
    if value is not None and value < _EARLIEST:
        raise WrongParameter(name, f"must not be before {_EARLIEST.year}")
    return value


def window_of(text: str) -> timedelta:
    """Parse a duration: `90`, `90s`, `5m`, `1.5h`, `7d`. Raises `WrongParameter`."""
    match = _is_window(text)
    length_s = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if not SHORTEST_S <= length_s <= _LONGEST.total_seconds():
        raise WrongParameter("window", f"must be a length like 90s, 5m, 2h or 7d, from {SHORTEST_S:g} s to 400 days")
    return timedelta(seconds=length_s)
