"""Turns log lines into text for people."""

from typing import Any

from foretell.local.log_files import LogLine

_COLOURS = (36, 35, 34, 32, 33, 96, 95, 94, 92, 93)
#: Readable names of fields of the Elastic Common Schema.
_WORDS = {
    "error.message": "error",
    "error.type": "error_type",
    "http.request.id": "request",
    "http.request.method": "method",
    "http.response.status_code": "status",
    "log.logger": "logger",
    "rule.name": "rule",
    "server.address": "address",
    "trace.id": "trace",
}
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}


def readable(line: LogLine, *, width: int = 10, colour: bool = False) -> str:
    """`worker-1   | 12:00:00.123 info    prediction_settled  count=3`, with line breaks only from a stack trace."""
    source = line.source.ljust(width)
    fields = dict(line.fields)
    trace = str(fields.pop("error.stack_trace", ""))
    if trace and "error.message" in fields:
        # The trace of an exception ends with its type and message. Other traces have no message.
        fields.pop("error.message")
        fields.pop("error.type", None)
    values = " ".join(_field(name, value) for name, value in fields.items())
    level = line.level.ljust(7)
    if colour:
        # Python's `hash` differs from run to run; with a sum a service keeps its colour.
        source = _paint(source, _COLOURS[sum(line.source.encode()) % len(_COLOURS)])
        level = _paint(level, _LEVEL_COLOURS[line.level]) if line.level in _LEVEL_COLOURS else level
        values = _paint(values, 2) if values else values
    head = f"{line.moment.astimezone():%H:%M:%S}.{line.moment.microsecond // 1000:03d} {level} " if line.level else ""
    text = f"{source} | {head}{safe(line.message)}"
    if values:
        text += f"  {values}"
    for trace_line in trace.splitlines():
        text += f"\n{source} |   {safe(trace_line)}"
    return text


def _field(name: str, value: Any) -> str:
    if name == "event.duration" and isinstance(value, (int, float)):
        # The schema has nanoseconds.
        return f"duration={value / 1e6:.3g}ms"
    return f"{_WORDS.get(name, name)}={safe(str(value))}"


def _paint(text: str, colour: int) -> str:
    return f"\033[{colour}m{text}\033[0m"


def safe(text: str) -> str:
    """`text` on one line and without control characters, because it may contain text of a client."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
