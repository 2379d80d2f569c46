"""Rows that are ready to be stored."""

from typing import NamedTuple


class LogRow(NamedTuple):
    """A log record that can be stored."""

    at_us: int
    service: str
    instance: str
    level: int
    message: str
    trace_id: str | None
    #: A JSON object.
    fields: str


class SampleRow(NamedTuple):
    """A value of a metric that can be stored."""

    at_us: int
    service: str
    name: str
    value: float


def utf8_length(text: str) -> int:
    """The length of `text` in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


# Measured on both databases: headers, times, numbers, and the entries of the indexes.
_LOG_BYTES = 150
_TRACE_BYTES = 60
SAMPLE_BYTES = 150


def room_of(row: LogRow) -> int:
    """The approximate size of the row with its index entries, in bytes."""
    traced = _TRACE_BYTES if row.trace_id is not None else 0
    return _LOG_BYTES + traced + utf8_length(row.message) + utf8_length(row.fields) + 2 * len(row.service)
