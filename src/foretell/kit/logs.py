"""Structured logs: one JSON object a line on standard output, with Elastic Common Schema field names.

Lines are collected for a moment and written together, since a write per line would take much of a busy service's time.
Warnings and errors are written at once, with all lines before them.
"""

import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
import structlog

from foretell.kit.clock import now

_GATHER_S = 0.1
_FLUSH_BYTES = 64 * 1024


#: Gets whole lines and their number, and returns at once.
Ship = Callable[[bytes, int], None]


class LineWriter:
    """Writes whole lines to a file descriptor, collecting them for up to 0.1 s."""

    def __init__(self, descriptor: int, ship: Ship | None = None) -> None:
        """`ship` also gets everything that is written."""
        self._descriptor = descriptor
        self._ship = ship
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0
        self._something_waits = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, line: bytes, *, urgent: bool) -> None:
        """Queue `line` (without its newline); write everything now if it is urgent."""
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            full = self._bytes >= _FLUSH_BYTES
        if urgent or full:
            self.flush()
        elif not self._something_waits.is_set():
            self._something_waits.set()
            if self._thread is None:
                self._start_thread()

    def _start_thread(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush_regularly, name="log-writer", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write all queued lines."""
        with self._lock:
            if not self._lines:
                return
            data = b"\n".join(self._lines) + b"\n"
            if self._ship is not None:
                self._ship(data, len(self._lines))
            self._lines.clear()
            self._bytes = 0
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                # The reader of the output has gone, or the disk is full: losing log lines must not stop the service.
                return

    def after_fork(self) -> None:
        """In the child of a fork: drop the parent's lines, which the parent writes itself. Its thread is not here."""
        self._begin()

    def _flush_regularly(self) -> None:
        pause = threading.Event()
        while True:
            self._something_waits.wait()
            pause.wait(_GATHER_S)
            self._something_waits.clear()
            self.flush()


class _Logger:
    """The last element of structlog's chain: gets an encoded line and its urgency."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def msg(self, line: bytes) -> None:
        self._writer.write(line, urgent=False)

    debug = info = msg

    def warning(self, line: bytes) -> None:
        self._writer.write(line, urgent=True)

    error = critical = exception = fatal = warn = warning


_encoder = msgspec.json.Encoder(enc_hook=str)
_LEVELS = {"warn": "warning", "exception": "error"}
#: The release of the Elastic Common Schema whose names these are.
_ECS_VERSION = "8.17.0"
#: Names of keyword arguments, which can't contain a dot, and their names in the schema.
ECS_NAMES = {
    "error_type": "error.type",
    "rule_name": "rule.name",
    "server_address": "server.address",
    "stack_trace": "error.stack_trace",
}


def _line_of(service: str, instance: str) -> Callable[[Any, str, MutableMapping[str, Any]], bytes]:
    """The last processor, which makes the line. One step, because a busy service logs thousands of lines a second."""
    identity = {"ecs.version": _ECS_VERSION, "service.name": service, "service.node.name": instance}
    # The same in every line, so it is encoded once.
    end = b"," + _encoder.encode(identity)[1:]

    def encode(_: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
        line: dict[str, Any] = {
            "@timestamp": now(),
            "log.level": _LEVELS.get(method, method),
            "message": event.pop("event", ""),
        }
        if "exc_info" in event:
            line.update(_error_of(event.pop("exc_info")))
        for name in ECS_NAMES:
            if name in event:
                line[ECS_NAMES[name]] = event.pop(name)
        line.update(event)
        try:
            return _encoder.encode(line)[:-1] + end
        except Exception:
            # A value that can't be encoded must not make logging fail.
            return _encoder.encode({_described(name): _described(value) for name, value in line.items()})[:-1] + end

    return encode


def _error_of(exc_info: Any) -> dict[str, str]:
    """The fields for an exception: the given one, or the one that is being handled."""
    if isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1] if exc_info else None
    if error is None:
        return {}
    try:
        message = str(error)
    except Exception:
        message = ""
    return {
        "error.type": type(error).__qualname__,
        "error.message": message,
        "error.stack_trace": "".join(traceback.format_exception(error)).rstrip("\n"),
    }


def _described(value: Any) -> Any:
    """`value` if it can be encoded as JSON, else a text for it."""
    try:
        _encoder.encode(value)
    except Exception:
        try:
            return str(value).encode("utf-8", "backslashreplace").decode()
        except Exception:
            return f"<{type(value).__name__}>"
    return value


class _ToStructlog(logging.Handler):
    """Sends what libraries log through the standard library the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger("library")
        exception = record.exc_info if record.exc_info and record.exc_info[0] else None
        # structlog supports only the five usual levels.
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        try:
            message = record.getMessage()
        except Exception:
            # The arguments do not fit the message: the library's mistake, and no reason to fail in its caller.
            message = f"{record.msg} {record.args}"
        logger.log(level, message, exc_info=exception, **{"log.logger": record.name})


def configure(
    service: str, instance: str, level: str, descriptor: int | None = None, *, ship: Ship | None = None
) -> LineWriter:
    """Set up logging for this process and return its writer. Call once, first thing. `ship` gets all lines, too."""
    numeric_level: int = logging.getLevelNamesMapping()[level.upper()]
    writer = LineWriter(sys.stdout.fileno() if descriptor is None else descriptor, ship)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _line_of(service, instance)],
        wrapper_class=structlog.make_filtering_bound_logger(numeric_level),
        logger_factory=lambda *_: _Logger(writer),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    # Libraries log much: their progress is logged only at level debug.
    root.setLevel(logging.DEBUG if numeric_level <= logging.DEBUG else logging.WARNING)
    atexit.register(writer.flush)
    os.register_at_fork(after_in_child=writer.after_fork)
    return writer
