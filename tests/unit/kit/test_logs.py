"""Logs: whole JSON lines, whatever is in them, and never an error of their own."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.kit.logs import LineWriter

Lines = list[dict[str, Any]]


def _run(code: str) -> Lines:
    """What a process logs that is set up as ours are: logging belongs to a whole process, so it is not this one."""
    start = (
        "import logging, structlog\nfrom foretell.kit import logs\nwriter = logs.configure('app', 'app-1', 'info')\n"
    )
    start += "log = structlog.get_logger()\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", start + textwrap.dedent(code)], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    assert done.stdout.endswith(b"\n") or not done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_line_has_the_names_of_the_elastic_common_schema() -> None:
    (line,) = _run("log.info('prediction_settled', prediction_id='17', count=3)")
    assert datetime.fromisoformat(line.pop("@timestamp")).utcoffset() is not None
    assert line == {
        "log.level": "info",
        "message": "prediction_settled",
        "service.name": "app",
        "service.node.name": "app-1",
        "ecs.version": "8.17.0",
        "prediction_id": "17",
        "count": 3,
    }


def test_lines_cannot_be_forged() -> None:
    forged = 'x"}\n{"message": "user_promoted"}\r\n\x1b[2J\u2028\x00'
    (line, named) = _run(f"log.info({forged!r}, username={forged!r})\nlog.info('x', **{{{forged!r}: 1}})")
    assert line["message"] == line["username"] == forged
    assert named[forged] == 1


def test_what_is_bound_to_the_request_is_in_every_line() -> None:
    lines = _run(
        """
        structlog.contextvars.bind_contextvars(**{"http.request.id": 'r-1'})
        log.info('one')
        logging.getLogger('library').warning('two')
        """
    )
    assert [line["http.request.id"] for line in lines] == ["r-1", "r-1"]


def test_what_cannot_be_written_as_json_is_described() -> None:
    lines = _run(
        """
        import datetime, decimal, pathlib, uuid
        class Sulky:
            def __str__(self): raise RuntimeError('no')
            __repr__ = __str__
        log.info('a', path=pathlib.Path('x'), when=datetime.datetime(2025, 1, 1), number=2**80, bytes=b'x')
        log.info('b', text='half a pair: \\ud800')
        log.info('c', nothing=float('nan'), object=object, map={(1, 2): 3})
        log.info('d', sulky=Sulky())
        log.warning('half a pair \\udfff')
        """
    )
    assert [line["message"][:1] for line in lines] == ["a", "b", "c", "d", "h"]
    assert lines[0]["path"] == "x"
    assert lines[0]["number"] == 2**80
    assert "half a pair" in lines[1]["text"]
    assert "half a pair" in lines[4]["message"]


def test_an_exception_comes_with_its_trace() -> None:
    (line,) = _run(
        """
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception('service_failed')
        """
    )
    assert line["log.level"] == "error"
    assert (line["error.type"], line["error.message"]) == ("ZeroDivisionError", "division by zero")
    assert line["error.stack_trace"].startswith("Traceback")
    assert line["error.stack_trace"].endswith("ZeroDivisionError: division by zero")
    assert "exc_info" not in line


def test_an_exception_may_be_given_and_may_be_none_or_sulk() -> None:
    lines = _run(
        """
        class Sulky(Exception):
            def __str__(self): raise RuntimeError('no')
        log.error('given', exc_info=ValueError('x'))
        log.error('none', exc_info=True)
        log.error('no', exc_info=False)
        log.error('sulky', exc_info=Sulky())
        """
    )
    assert [(line.get("error.type"), line.get("error.message")) for line in lines] == [
        ("ValueError", "x"),
        (None, None),
        (None, None),
        ("Sulky", ""),
    ]


def test_names_that_a_keyword_cannot_have_are_those_of_the_schema() -> None:
    (line,) = _run("log.info('a', error_type='ValueError', server_address='db', reason='b')")
    assert (line["error.type"], line["server.address"], line["reason"]) == ("ValueError", "db", "b")
    assert "error_type" not in line


def test_who_wrote_a_line_cannot_be_forged() -> None:
    (line,) = _run("log.info('a', **{'service.name': 'another', 'service.node.name': 'another-1'})")
    assert (line["service.name"], line["service.node.name"]) == ("app", "app-1")


def test_below_the_level_nothing_is_written() -> None:
    assert [line["message"] for line in _run("log.debug('no'); log.info('yes')")] == ["yes"]


def test_what_libraries_log_arrives_too() -> None:
    lines = _run(
        """
        library = logging.getLogger('some.library')
        library.info('progress')
        library.warning('lost %s of %d', 'connection', 7)
        try:
            1 / 0
        except ZeroDivisionError:
            library.exception('failed')
        """
    )
    assert [(line["message"], line["log.level"], line["log.logger"]) for line in lines] == [
        ("lost connection of 7", "warning", "some.library"),
        ("failed", "error", "some.library"),
    ]
    assert "ZeroDivisionError" in lines[1]["error.stack_trace"]


def test_a_library_with_levels_of_its_own_is_heard() -> None:
    lines = _run(
        """
        library = logging.getLogger('some.library')
        for level in (35, 45, 60):
            library.log(level, 'at %d', level)
        """
    )
    assert [(line["message"], line["log.level"]) for line in lines] == [
        ("at 35", "warning"),
        ("at 45", "error"),
        ("at 60", "critical"),
    ]


def test_a_library_that_logs_nonsense_does_no_harm() -> None:
    lines = _run(
        """
        logging.getLogger('some.library').warning('%d of %d', 'one')
        log.info('we go on')
        """
    )
    assert lines[-1]["message"] == "we go on"
    assert "%d of %d" in lines[0]["message"]


def test_what_is_left_is_written_at_the_end_of_the_process() -> None:
    assert len(_run("for number in range(10): log.info('x')")) == 10


class Pipe:
    """A pipe with a `LineWriter` at one end."""

    def __init__(self) -> None:
        self.reader, self.descriptor = os.pipe()
        os.set_blocking(self.reader, False)
        self.writer = LineWriter(self.descriptor)

    def read(self) -> bytes:
        """What was written by now."""
        try:
            return os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
def pipe() -> Any:
    pipe = Pipe()
    yield pipe
    pipe.writer.flush()
    os.close(pipe.reader)
    os.close(pipe.descriptor)


def _await(condition: Callable[[], Any]) -> Any:
    while not (result := condition()):
        pass
    return result


def test_an_urgent_line_is_written_at_once_with_those_before_it(pipe: Pipe) -> None:
    pipe.writer.write(b"one", urgent=False)
    pipe.writer.write(b"two", urgent=True)
    assert pipe.read() == b"one\ntwo\n"


def test_a_quiet_line_is_written_by_and_by_and_so_is_the_next(pipe: Pipe) -> None:
    for line in (b"one", b"two"):
        pipe.writer.write(line, urgent=False)
        assert _await(pipe.read) == line + b"\n"


def test_much_is_written_at_once_in_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(descriptor)
    writer.write(b"x" * 40_000, urgent=False)
    writer.write(b"y" * 40_000, urgent=False)
    assert file.read_bytes() == b"x" * 40_000 + b"\n" + b"y" * 40_000 + b"\n"
    os.close(descriptor)


def test_a_pipe_that_is_full_for_a_while_loses_nothing(pipe: Pipe) -> None:
    line = b"x" * 300_000
    writing = threading.Thread(target=pipe.writer.write, args=(line,), kwargs={"urgent": True})
    writing.start()
    os.set_blocking(pipe.reader, True)
    arrived = b""
    while len(arrived) < len(line) + 1:
        arrived += os.read(pipe.reader, 1 << 20)
    writing.join()
    assert arrived == line + b"\n"


def test_a_reader_that_is_gone_stops_nobody() -> None:
    reader, descriptor = os.pipe()
    writer = LineWriter(descriptor)
    os.close(reader)
    writer.write(b"one", urgent=True)
    writer.write(b"two", urgent=True)
    os.close(descriptor)


@given(st.lists(st.tuples(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), st.booleans())))
def test_lines_stay_whole_and_in_order(lines: list[tuple[bytes, bool]]) -> None:
    pipe = Pipe()
    for line, urgent in lines:
        pipe.writer.write(line, urgent=urgent)
    pipe.writer.flush()
    arrived = b""
    while len(arrived) < sum(len(line) + 1 for line, _ in lines):
        arrived += pipe.read()
    os.close(pipe.reader)
    assert arrived == b"".join(line + b"\n" for line, _ in lines)
