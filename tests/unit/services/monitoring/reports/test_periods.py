"""From when to when a report looks, and what it says to nonsense."""

from datetime import UTC, datetime, timedelta

import pytest

from foretell.services.monitoring.reports.period import Period
from foretell.services.monitoring.routes.filters import WrongParameter
from foretell.services.monitoring.routes.periods import period_of

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("query", "since", "until"),
    [
        ({}, NOW - timedelta(minutes=5), NOW),
        ({"window": "1h"}, NOW - HOUR, NOW),
        ({"window": "1.5h"}, NOW - 1.5 * HOUR, NOW),
        ({"window": "90"}, NOW - timedelta(seconds=90), NOW),
        ({"window": "7d"}, NOW - timedelta(days=7), NOW),
        ({"since": "2026-01-05T11:00:00Z"}, NOW - HOUR, NOW),
        ({"since": "2026-01-05T13:00:00+02:00"}, NOW - HOUR, NOW),
        ({"since": "2026-01-05T10:00:00", "window": "1h"}, NOW - 2 * HOUR, NOW - HOUR),
        ({"until": "2026-01-05T11:00:00Z", "window": "1h"}, NOW - 2 * HOUR, NOW - HOUR),
        ({"since": "2026-01-05T10:00:00Z", "until": "2026-01-05T11:00:00Z"}, NOW - 2 * HOUR, NOW - HOUR),
        # What has not been yet is left out.
        ({"since": "2026-01-05T11:00:00Z", "until": "2026-01-05T19:00:00Z"}, NOW - HOUR, NOW),
        ({"since": "2026-01-05T11:00:00Z", "window": "30d"}, NOW - HOUR, NOW),
        ({"window": ""}, NOW - timedelta(minutes=5), NOW),
    ],
)
def test_what_is_meant(query: dict[str, str], since: datetime, until: datetime) -> None:
    assert period_of(query, NOW) == Period(since, until)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"window": "soon"}, "window"),
        ({"window": "-5m"}, "window"),
        ({"window": "0"}, "window"),
        ({"window": "5m5m"}, "window"),
        ({"window": "1e3"}, "window"),
        ({"window": "inf"}, "window"),
        ({"window": "５m"}, "window"),
        ({"window": "9999d"}, "window"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-01-05T12:00:01Z"}, "since"),
        ({"since": "1969-01-01T00:00:00Z"}, "since"),
        ({"since": "2020-01-01"}, "since"),
        ({"since": "9999-12-31T23:59:59Z", "window": "1d"}, "since"),
        ({"until": "0001-01-01T00:00:00Z"}, "until"),
        ({"until": "2026-13-45"}, "until"),
        ({"since": "2026-01-05T11:00:00Z", "until": "2026-01-05T10:00:00Z"}, "until"),
        ({"since": "2026-01-05T11:00:00Z", "until": "2026-01-05T11:00:01Z"}, "until"),
        ({"since": "2026-01-05T11:59:59Z"}, "since"),
        ({"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "window": "1h"}, "window"),
        ({"windows": "5m"}, "windows"),
    ],
)
def test_nonsense_is_named(query: dict[str, str], parameter: str) -> None:
    with pytest.raises(WrongParameter) as caught:
        period_of(query, NOW)
    assert [error["parameter"] for error in caught.value.details["errors"]] == [parameter]


def test_points_are_not_closer_than_what_is_known() -> None:
    minute = Period(NOW - timedelta(minutes=1), NOW)
    assert minute.moments(30) == [NOW - timedelta(seconds=seconds) for seconds in (60, 50, 40, 30, 20, 10, 0)]
    assert minute.moments(1) == [minute.since, minute.until]
    assert len(Period(NOW - timedelta(days=7), NOW).moments(30)) == 31
