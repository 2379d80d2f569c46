"""Parses the query parameters of reports."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from foretell.kit.database import from_microseconds, to_microseconds
from foretell.kit.problems import InvalidRequest
from foretell.services.monitoring.storage.logs import LEVELS, Cursor, LogQuery

MAX_LIMIT = 10_000
LOG_FILTERS = (
    "service",
    "instance",
    "level",
    "min_level",
    "since",
    "until",
    "text",
    "prediction_id",
    "trace_id",
    "before",
    "after",
    "limit",
)


class WrongParameter(InvalidRequest):
    """The request does not fit. See `errors` for each parameter."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__([{"detail": detail, "parameter": name}])


def known_only(parameters: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """The parameters with a value. Raises `WrongParameter` for an unknown one."""
    for name in parameters:
        if name not in known:
            raise WrongParameter(name, f"is not known here; known are {', '.join(sorted(known))}")
    return {name: value for name, value in parameters.items() if value}


def log_query(parameters: Mapping[str, str], *, default_limit: int = 100) -> LogQuery:
    """The log query in the parameters. Raises `WrongParameter`."""
    given = known_only(parameters, LOG_FILTERS)
    return LogQuery(
        service=_text(given, "service"),
        instance=_text(given, "instance"),
        level=_level(given, "level"),
        min_level=_level(given, "min_level"),
        since=moment(given, "since"),
        until=moment(given, "until"),
        text=_text(given, "text"),
        prediction_id=_text(given, "prediction_id"),
        trace_id=_text(given, "trace_id"),
        before=_cursor(given, "before"),
        after=_cursor(given, "after"),
        oldest="after" in given,
        limit=whole_number(given, "limit", default_limit, least=1, most=MAX_LIMIT),
    )


def _text(given: Mapping[str, str], name: str) -> str | None:
    value = given.get(name)
    if value is not None and ("\0" in value or len(value) > 1_000):
        raise WrongParameter(name, "must have at most 1000 characters, and no NUL")
    return value


def _level(given: Mapping[str, str], name: str) -> int | None:
    value = given.get(name)
    if value is not None and value not in LEVELS:
        raise WrongParameter(name, f"must be one of {', '.join(LEVELS)}")
    return None if value is None else LEVELS[value]


def moment(given: Mapping[str, str], name: str) -> datetime | None:
    """The time (ISO 8601, UTC by default) of a parameter, or None. Raises `WrongParameter`."""
    value = given.get(name)
    if value is None:
        return None
    try:
        # An unencoded + arrives as a space.
        parsed = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        parsed = parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise WrongParameter(name, "must be a time like 2026-01-05T09:30:00Z") from None
    return parsed


def whole_number(given: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    """The integer of a parameter, or `default`. Raises `WrongParameter`."""
    value = given.get(name)
    if value is None:
        return default
    if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
        raise WrongParameter(name, f"must be a whole number from {least} to {most}")
    return int(value)


_is_cursor = re.compile("([0-9]{1,17})-([0-9]{1,18})", re.ASCII).fullmatch


def _cursor(given: Mapping[str, str], name: str) -> Cursor | None:
    value = given.get(name)
    if value is None:
        return None
    match = _is_cursor(value)
    if match is None:
        raise WrongParameter(name, "must come from the Link header of an earlier answer")
    return Cursor(from_microseconds(int(match[1])), int(match[2]))


def cursor_text(cursor: Cursor) -> str:
    """A cursor as text for URLs."""
    return f"{to_microseconds(cursor.at)}-{cursor.seq}"
