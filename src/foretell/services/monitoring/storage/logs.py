"""Searches log records by service, level, time, text, prediction and trace.

A search reads records piece by piece and stops at its deadline, whatever their number. Its answer has the place from
which to continue.
"""

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, TextualSelect, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.database import Moment
from foretell.services.monitoring.storage.matching import case_blind
from foretell.services.monitoring.storage.tables import log_counts

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
LEVELS = {"DEBUG": DEBUG, "INFO": INFO, "WARNING": WARNING, "ERROR": ERROR}
LEVEL_NAMES = {number: name for name, number in LEVELS.items()}

#: A prediction's records may come from a machine whose clock is behind that of the machine that made its id.
_CLOCKS_DIFFER = timedelta(seconds=5)

# Records of one piece, chosen so that several pieces are read before the deadline.
_FIRST_PIECE, _LARGEST_PIECE = 4_000, 100_000
_PIECE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A stored record."""

    at: datetime
    seq: int
    service: str
    instance: str
    level: int
    message: str
    trace_id: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def cursor(self) -> "Cursor":
        """The place of the record."""
        return Cursor(self.at, self.seq)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the order of the records: the time and number of one."""

    at: datetime
    seq: int


_BEGINNING = Cursor(datetime(1970, 1, 1, tzinfo=UTC), -1)
_LAST_SEQ = 2**63 - 1
_END = Cursor(datetime(9999, 1, 1, tzinfo=UTC), _LAST_SEQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """The conditions of a search; None: no condition."""

    service: str | None = None
    instance: str | None = None
    #: Exactly this level ...
    level: int | None = None
    #: ... or at least this.
    min_level: int | None = None
    #: From this time ...
    since: datetime | None = None
    #: ... to this one, both included.
    until: datetime | None = None
    #: A part of the message or of the fields (as they stand in JSON), in upper or lower case.
    text: str | None = None
    prediction_id: str | None = None
    trace_id: str | None = None
    #: Only records before this one, or after that one.
    before: Cursor | None = None
    after: Cursor | None = None
    #: The oldest matching records instead of the newest.
    oldest: bool = False
    limit: int = 100
    #: Stop the search after this long.
    deadline_s: float = 0.15


@dataclass(frozen=True, slots=True)
class LogPage:
    """Matching records, oldest first.

    `more` is the place before which to continue (after which, if `oldest`); None when the search is complete.
    """

    records: list[LogRecord]
    more: Cursor | None
    oldest: bool = False


async def find(connection: AsyncConnection, query: LogQuery) -> LogPage:
    """The newest records that match `query` (or the oldest).

    For a prediction whose id contains its time, the search begins there and returns the oldest records.
    """
    query = _narrowed(query)
    search = _Search(connection, query)
    records, more = await search.run()
    return LogPage(records if query.oldest else records[::-1], more, query.oldest)


def _narrowed(query: LogQuery) -> LogQuery:
    if query.prediction_id is None or query.before is not None:
        return query
    try:
        prediction_id = UUID(query.prediction_id)
    except ValueError:
        return query
    if prediction_id.version != 7:
        return query
    created_at = _BEGINNING.at + timedelta(milliseconds=prediction_id.int >> 80)
    since = created_at - _CLOCKS_DIFFER
    return replace(
        query,
        prediction_id=str(prediction_id),
        since=since if query.since is None else max(query.since, since),
        oldest=True,
    )


class _Search:
    """One search along one index, until the limit or the deadline."""

    def __init__(self, connection: AsyncConnection, query: LogQuery) -> None:
        self._connection = connection
        self._query = query
        self._sqlite = connection.dialect.name == "sqlite"
        # Conditions that the index answers, and conditions that are checked on each record.
        self._walk = _Conditions()
        self._filters = _Conditions()
        self._index = self._choose_index()
        # Without the join, SQLite reads each record before it checks the conditions that the index could answer.
        self._joined = self._sqlite and self._index == "ix_logs_warnings"
        self._row = "logs" if self._joined else "found"
        self._add_filters()

    def _choose_index(self) -> str:
        query = self._query
        least = max(query.level or 0, query.min_level or 0)
        if query.trace_id is not None:
            self._walk.add("found.trace_id = :trace_id", trace_id=query.trace_id)
            return "ix_logs_trace"
        if least >= WARNING:
            self._walk.add("found.level >= 30")
            return "ix_logs_warnings"
        if query.service is not None:
            self._walk.add("found.service = :service", service=query.service)
            return "ix_logs_service"
        return ""

    def _add_filters(self) -> None:
        query = self._query
        if query.service is not None and self._index != "ix_logs_service":
            self._filters.add("found.service = :service", service=query.service)
        if query.instance is not None:
            self._filters.add(f"{self._row}.instance = :instance", instance=query.instance)
        if query.level is not None:
            self._filters.add("found.level = :level", level=query.level)
        if query.min_level is not None and not (self._index == "ix_logs_warnings" and query.min_level == WARNING):
            self._filters.add("found.level >= :min_level", min_level=query.min_level)
        if query.text:
            message, pattern = case_blind(f"{self._row}.message", ":text", query.text, sqlite=self._sqlite)
            as_json = msgspec.json.encode(query.text).decode()[1:-1]
            fields, json_pattern = case_blind(f"{self._row}.fields", ":json_text", as_json, sqlite=self._sqlite)
            self._filters.add(f"({message} OR {fields})", text=pattern, json_text=json_pattern)
        if query.prediction_id is not None:
            contains = "instr({}, {}) > 0" if self._sqlite else "strpos({}, {}) > 0"
            fields = contains.format(f"{self._row}.fields", ":quoted_id")
            message = contains.format(f"{self._row}.message", ":prediction_id")
            quoted = f'"{query.prediction_id}"'
            self._filters.add(f"({fields} OR {message})", quoted_id=quoted, prediction_id=query.prediction_id)

    async def run(self) -> tuple[list[LogRecord], Cursor | None]:
        """The records in the order of the search, and the place from which to continue."""
        query = self._query
        low, high = self._bounds()
        if not self._filters.texts:
            records = await self._read(low, high, query.limit)
            return records, records[-1].cursor if len(records) == query.limit else None
        deadline = time.monotonic() + query.deadline_s
        records = []
        size = _FIRST_PIECE
        while True:
            started = time.monotonic()
            end = await self._end_of_piece(low, high, size)
            piece = (
                (low, high) if end is None else (low, _just_after(end)) if query.oldest else (_just_before(end), high)
            )
            records += await self._read(*piece, query.limit - len(records))
            if len(records) == query.limit:
                return records, records[-1].cursor
            if end is None:
                return records, None
            low, high = (end, high) if query.oldest else (low, end)
            if time.monotonic() >= deadline:
                return records, end
            took_s = max(time.monotonic() - started, 0.001)
            size = min(
                max(int(size * query.deadline_s * _PIECE_SHARE / took_s), _FIRST_PIECE), 4 * size, _LARGEST_PIECE
            )

    def _bounds(self) -> tuple[Cursor, Cursor]:
        """The two places between which to search, both excluded."""
        query = self._query
        lows = [
            _BEGINNING,
            *([Cursor(query.since, -1)] if query.since else []),
            *([query.after] if query.after else []),
        ]
        until = [Cursor(query.until, _LAST_SEQ)] if query.until else []
        highs = [_END, *until, *([query.before] if query.before else [])]
        return max(lows), min(highs)

    async def _end_of_piece(self, low: Cursor, high: Cursor, size: int) -> Cursor | None:
        """The place of the last of the next `size` records along the index; None if fewer are left."""
        statement = self._statement(_PLACE, "", _Conditions(), low, high, 1, offset=size - 1)
        row = (await self._connection.execute(statement)).one_or_none()
        return None if row is None else Cursor(row.at, row.seq)

    async def _read(self, low: Cursor, high: Cursor, limit: int) -> list[LogRecord]:
        columns = ", ".join(f"{self._row}.{name}" for name in _COLUMNS)
        join = "CROSS JOIN logs ON logs.at = found.at AND logs.seq = found.seq" if self._joined else ""
        rows = await self._connection.execute(self._statement(columns, join, self._filters, low, high, limit))
        decode = msgspec.json.decode
        return [
            LogRecord(at, seq, service, instance, level, message, trace_id, decode(fields) if fields != "{}" else {})
            for at, seq, service, instance, level, message, trace_id, fields in rows
        ]

    def _statement(
        self, columns: str, join: str, filters: "_Conditions", low: Cursor, high: Cursor, limit: int, offset: int = 0
    ) -> TextualSelect:
        # A hint for SQLite; PostgreSQL chooses the index by its statistics.
        hint = f"INDEXED BY {self._index}" if self._sqlite and self._index else ""
        between = ["(found.at, found.seq) > (:low_at, :low_seq)", "(found.at, found.seq) < (:high_at, :high_seq)"]
        order = _PLACE if self._query.oldest else "found.at DESC, found.seq DESC"
        statement = text(
            f"SELECT {columns} FROM logs AS found {hint} {join} "  # noqa: S608 - no value is in it
            f"WHERE {' AND '.join([*between, *self._walk.texts, *filters.texts])} "
            f"ORDER BY {order} LIMIT :limit OFFSET :offset"
        )
        values = self._walk.values | filters.values
        return statement.bindparams(
            bindparam("low_at", low.at, Moment),
            bindparam("high_at", high.at, Moment),
            bindparam("low_seq", low.seq, BigInteger),
            bindparam("high_seq", high.seq, BigInteger),
            limit=limit,
            offset=offset,
            **values,
        ).columns(at=Moment, seq=BigInteger)


_PLACE = "found.at, found.seq"
_COLUMNS = ("at", "seq", "service", "instance", "level", "message", "trace_id", "fields")


class _Conditions:
    """Conditions joined by AND, and their values."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.values: dict[str, Any] = {}

    def add(self, condition: str, /, **values: Any) -> None:
        """Add a condition."""
        self.texts.append(condition)
        self.values |= values


def _just_after(place: Cursor) -> Cursor:
    return Cursor(place.at, place.seq + 1)


def _just_before(place: Cursor) -> Cursor:
    return Cursor(place.at, place.seq - 1)


async def counts(
    connection: AsyncConnection, since: datetime, until: datetime, service: str | None = None
) -> dict[str, dict[int, int]]:
    """The number of records by service and level, in the minutes from `since` to before `until`."""
    query = (
        select(log_counts.c.service, log_counts.c.level, func.sum(log_counts.c.records).label("records"))
        .where(log_counts.c.minute >= since, log_counts.c.minute < until)
        .group_by(log_counts.c.service, log_counts.c.level)
        .order_by(log_counts.c.service, log_counts.c.level)
    )
    if service is not None:
        query = query.where(log_counts.c.service == service)
    found: dict[str, dict[int, int]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.service, {})[row.level] = int(row.records)
    return found
