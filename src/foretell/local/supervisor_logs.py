"""The supervisor's log files, which contain only whole lines, also when the disk is full.

supervisord's own handlers raise when the disk is full, which ends the supervisor. Here lines that can't be
written are dropped and counted, and before the next written line there is one with the number of lost lines.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.loggers import Handler


class LogFile(Handler):  # type: ignore[misc]
    """A file that grows to `max_bytes`, then becomes FILE.1, and so on up to FILE.`backups`."""

    def __init__(self, file: Path, *, max_bytes: int, backups: int) -> None:
        """Opens nothing yet, so that a process is started even if its log can't be created."""
        super().__init__()
        self._file = file
        self._max_bytes = max_bytes
        self._backups = backups
        self._descriptor: int | None = None
        self._size = 0
        self._in_line = False
        self._lost_lines = 0
        self._lost_why = ""

    def emit(self, record: Any) -> None:
        """Write a record. Never raises."""
        raw = self.fmt == "%(message)s" and isinstance(record.msg, bytes)
        data: bytes = record.msg if raw else (self.fmt % record.asdict()).encode("utf-8", "backslashreplace")
        try:
            self._write(self._apology() + data)
        except OSError as error:
            self._lost_lines += data.count(b"\n")
            self._lost_why = error.strerror or str(error)
            return
        self._lost_lines = 0

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            # Remove a partial line, which would be joined with the next one.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            # The file may be the problem, so open a new one next time.
            self._shut()
            raise
        self._size += len(data)
        self._in_line = not data.endswith(b"\n")
        if 0 < self._max_bytes <= self._size:
            self._rotate()

    def _apology(self) -> bytes:
        """The line about lost lines, in supervisord's own format, which readers of the logs can parse."""
        if not self._lost_lines:
            return b""
        at = time.time()
        moment = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))},{int(at % 1 * 1000):03}"
        before = "\n" if self._in_line else ""
        return f"{before}{moment} WARN {self._lost_lines} lines were lost here: {self._lost_why}\n".encode()

    def _open(self) -> None:
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._descriptor).st_size

    def _shut(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _rotate(self) -> None:
        self._shut()
        # If renaming fails, the file keeps growing, and it is tried again with the next line.
        with suppress(OSError):
            for number in range(self._backups - 1, 0, -1):
                older = self._numbered(number)
                if older.exists():
                    older.replace(self._numbered(number + 1))
            self._file.replace(self._numbered(1))
            # Open it at once, because readers look for the newest file first.
            self._open()

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"{self._file.name}.{number}")

    def flush(self) -> None:
        """Do nothing: lines are not buffered."""

    def close(self) -> None:
        """Close the file; the next record opens it again."""
        self._shut()

    def reopen(self) -> None:
        """Let the next record open the file again."""
        self._shut()

    def remove(self) -> None:
        """Remove the file."""
        self._shut()
        with suppress(OSError):
            self._file.unlink()
