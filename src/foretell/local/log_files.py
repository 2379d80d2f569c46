"""Reads the logs of the services: files of JSON lines, one per process, rotated by the supervisor."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from foretell.kit.errors import ForetellError

_BLOCK = 64 * 1024
#: The beginning of supervisord's own lines: local time, with a comma before the milliseconds.
_SUPERVISOR_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) (\w+) (.*)")
_LEVELS = {"CRIT": "critical", "ERRO": "error", "WARN": "warning", "INFO": "info", "DEBG": "debug"}
_STANDARD = ("@timestamp", "log.level", "message", "ecs.version", "service.name", "service.node.name")


class NoSuchLog(ForetellError):
    """There is no log of {name}. There are logs of: {known}."""

    code = "no_such_log"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of one log."""

    #: The process that wrote it: the name of the file.
    source: str
    moment: datetime
    level: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)
    #: The line as it is in the file.
    raw: str = ""


def words_since(file: Path, position: int, lines: int) -> list["LogLine"]:
    """The last lines of a log after `position`, an earlier size of the file; all if it was rotated since."""
    try:
        with file.open("rb") as stream:
            stream.seek(position if os.fstat(stream.fileno()).st_size >= position else 0)
            raw = stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    parser = Parser(file.stem)
    return [parser.parse(line) for line in raw[-lines:]]


def parse_lines(source: str, lines: Iterable[str]) -> list["LogLine"]:
    """The lines of one source."""
    parser = Parser(source)
    return [parser.parse(line) for line in lines]


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a log, including rotated files; fewer if there are not as many."""
    found: list[str] = []
    for part in (file, *(file.with_name(f"{file.name}.{number}") for number in range(1, 10))):
        try:
            with part.open("rb") as stream:
                found = _last_lines(stream, lines - len(found)) + found
        except FileNotFoundError:
            break
        if len(found) >= lines:
            break
    return found


def _last_lines(stream: BinaryIO, lines: int) -> list[str]:
    position = stream.seek(0, os.SEEK_END)
    content = b""
    while position > 0 and content.count(b"\n") <= lines:
        step = min(_BLOCK, position)
        position = stream.seek(position - step)
        content = stream.read(step) + content
    return [line.decode(errors="replace") for line in content.splitlines()[-lines:]] if lines > 0 else []


class Parser:
    """Parses the lines of one source; a line without a time (a traceback, a banner) gets that of the line before."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._moment = datetime.fromtimestamp(0, UTC)

    def parse(self, raw: str) -> LogLine:
        """Parse one line."""
        if raw.startswith("{"):
            try:
                content = json.loads(raw)
                self._moment = datetime.fromisoformat(content["@timestamp"])
                fields = {name: value for name, value in content.items() if name not in _STANDARD}
                return LogLine(
                    self._source, self._moment, str(content["log.level"]), str(content["message"]), fields, raw
                )
            except (ValueError, KeyError, TypeError):
                pass
        elif match := _SUPERVISOR_LINE.match(raw):
            local_time, milliseconds, level, message = match.groups()
            self._moment = datetime.fromisoformat(f"{local_time}.{milliseconds}").astimezone()
            return LogLine(self._source, self._moment, _LEVELS.get(level, level.lower()), message, {}, raw)
        return LogLine(self._source, self._moment, "", raw, {}, raw)


class Logs:
    """The logs of one installation, together and in the order of time."""

    def __init__(self, logs_dir: Path, names: Iterable[str] = ()) -> None:
        """`names` selects services or processes (`worker`, `worker-2`); default: all. Raises `NoSuchLog`."""
        self._logs_dir = logs_dir
        self._names = tuple(names)
        for name in self._names:
            if not self._files([name]):
                known = sorted({_service_of(file.stem) for file in self._files([])})
                raise NoSuchLog(name=name, known=", ".join(known) or "nothing yet")
        self._parsers: dict[str, Parser] = {}
        self._open: dict[str, BinaryIO] = {}
        self._rest: dict[str, bytes] = {}

    def _files(self, names: Iterable[str]) -> list[Path]:
        chosen = set(names)
        return sorted(
            file
            for file in self._logs_dir.glob("*.log")
            if not chosen or file.stem in chosen or _service_of(file.stem) in chosen
        )

    def _parse(self, source: str, raw: str) -> LogLine:
        return self._parsers.setdefault(source, Parser(source)).parse(raw)

    def last(self, lines: int) -> list[LogLine]:
        """The last `lines` lines of all of them together."""
        found = [self._parse(file.stem, raw) for file in self._files(self._names) for raw in tail(file, lines)]
        found.sort(key=lambda line: line.moment)
        return found[-lines:] if lines > 0 else []

    def follow_from_now(self) -> None:
        """Let `new` begin with lines that are written from now on (and whole files that appear later)."""
        for file in self._files(self._names):
            try:
                stream = file.open("rb")
            except FileNotFoundError:
                continue
            stream.seek(0, os.SEEK_END)
            self._open[file.stem] = stream

    def new(self) -> list[LogLine]:
        """The lines that were written since the last call."""
        found = [
            self._parse(file.stem, raw.decode(errors="replace"))
            for file in self._files(self._names)
            for raw in self._new_lines(file)
        ]
        found.sort(key=lambda line: line.moment)
        return found

    def _new_lines(self, file: Path) -> Iterator[bytes]:
        content = self._rest.pop(file.stem, b"")
        stream = self._open.get(file.stem)
        if stream is not None:
            content += stream.read()
        try:
            replaced = stream is None or not os.path.samestat(os.fstat(stream.fileno()), file.stat())
            if replaced:
                # Rotated: the old file was read to its end just now.
                if stream is not None:
                    content += stream.read()
                    stream.close()
                self._open[file.stem] = file.open("rb")
                content += self._open[file.stem].read()
        except FileNotFoundError:
            pass  # In the middle of a rotation; the next call finds it.
        *whole, rest = content.split(b"\n")
        if rest:
            self._rest[file.stem] = rest
        yield from whole

    def close(self) -> None:
        """Close the files."""
        for stream in self._open.values():
            stream.close()
        self._open.clear()


def _service_of(name: str) -> str:
    service, _, number = name.rpartition("-")
    return service if number.isdecimal() else name
