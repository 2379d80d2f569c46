"""The supervisor's log files: whole lines or nothing, on a disk that is full and when there is room again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from supervisor.loggers import LevelsByName, LogRecord

from foretell.local.log_files import tail
from foretell.local.supervisor_logs import LogFile

FULL = Path("/dev/full")
MakeLog = Callable[..., LogFile]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.log"


@pytest.fixture
def make_log(file: Path) -> MakeLog:
    def make(*, max_bytes: int = 10_000, line: str = "%(message)s") -> LogFile:
        log = LogFile(file, max_bytes=max_bytes, backups=2)
        log.setFormat(line)
        return log

    return make


def say(log: LogFile, words: bytes | str) -> None:
    log.emit(LogRecord(LevelsByName.WARN, words))


def test_what_processes_write_is_written_as_it_is(file: Path, make_log: MakeLog) -> None:
    file.write_bytes(b"earlier\n")
    log = make_log()
    say(log, b"one\ntwo\xff\nth")
    say(log, b"ree\n")
    assert file.read_bytes() == b"earlier\none\ntwo\xff\nthree\n"


def test_a_full_file_becomes_the_first_of_a_few_old_ones(file: Path, make_log: MakeLog) -> None:
    log = make_log(max_bytes=4)
    for words in (b"1234\n", b"2345\n", b"3456\n", b"4567\n"):
        say(log, words)
    assert file.read_bytes() == b""
    say(log, b"5\n")
    content = {each.name: each.read_bytes() for each in file.parent.iterdir()}
    assert content == {"x.log": b"5\n", "x.log.1": b"4567\n", "x.log.2": b"3456\n"}


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_a_full_disk_drops_lines_and_says_so_when_there_is_room(file: Path, make_log: MakeLog) -> None:
    log = make_log()
    say(log, b"before, and half a l")
    log.close()
    kept = file.rename(file.with_name("kept"))
    file.symlink_to(FULL)
    say(log, b"ine\nlost\n")
    say(log, b"lost\n")
    file.unlink()
    kept.rename(file)
    say(log, b"after\n")
    say(log, b"and on\n")
    before, lost, *after = tail(file, 10)
    assert before == "before, and half a l"
    assert lost.endswith(" WARN 3 lines were lost here: No space left on device")
    assert after == ["after", "and on"]


def test_a_folder_that_is_gone_is_no_reason_to_raise(file: Path) -> None:
    log = LogFile(file.parent / "gone" / "x.log", max_bytes=1000, backups=1)
    log.setFormat("%(asctime)s %(levelname)s %(message)s\n")
    say(log, "lost")
    (file.parent / "gone").mkdir()
    say(log, "there: \ud800")
    assert [line.split(" WARN ")[1] for line in tail(file.parent / "gone" / "x.log", 10)] == [
        "1 lines were lost here: No such file or directory",
        "there: \\ud800",
    ]
