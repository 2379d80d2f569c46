"""A line of the status table, and what a start makes of it."""

import itertools
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.ports import free_port

from foretell.local import starting
from foretell.local.health import Health, ask
from foretell.local.installation import Program
from foretell.local.remote import ProcessState
from foretell.local.services import Service
from foretell.local.starting import Start, StartFailed
from foretell.local.status import PATIENCE_S, ProcessStatus, status_of

PROGRAM = Program("front", "front", "front-1", "127.0.0.1", 8000)
SILENT = Health(False, "does not listen", listens=False)
SICK = Health(False, "database: away")


def process(state: str, uptime_s: float) -> ProcessState:
    return ProcessState("front", state, pid=7, started_at=1, uptime_s=int(uptime_s))


def test_where_nothing_listens_it_is_said() -> None:
    answer = ask(Program("front", "front", "front-1", "127.0.0.1", free_port()))
    assert (answer.healthy, answer.listens, answer.reason) == (False, False, "does not listen")


@pytest.mark.parametrize(
    ("state", "uptime_s", "answer", "expected"),
    [
        ("STARTING", 1, SILENT, ("starting", "")),
        ("RUNNING", 30, SILENT, ("starting", "")),
        ("RUNNING", PATIENCE_S, SILENT, ("running", "does not listen")),
        ("BACKOFF", 0, SILENT, ("restarting", "")),
        ("STOPPING", 30, SILENT, ("stopping", "")),
        ("RUNNING", 30, SICK, ("running", "database: away")),
        ("STARTING", 1, Health(True), ("running", "")),
    ],
    ids=["young", "stayed", "too old", "ended", "stopping", "says what is wrong", "healthy"],
)
def test_who_does_not_listen_yet_is_starting(
    state: str, uptime_s: float, answer: Health, expected: tuple[str, str]
) -> None:
    status = status_of(PROGRAM, process(state, uptime_s), answer)
    assert (status.state, status.reason) == expected
    assert status.healthy is answer.healthy


def test_that_it_is_called_starting_no_longer_is_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=10)
    looked: list[int] = []

    def statuses(_done: Iterable[str]) -> list[ProcessStatus]:
        looked.append(10 * len(looked))
        return [status_of(PROGRAM, process("RUNNING", looked[-1]), SILENT)]

    monkeypatch.setattr(time, "sleep", lambda _: None)
    start = Start([Service("front", "foretell.kit.clock")], tmp_path, lambda: float(next(clock)))
    with pytest.raises(StartFailed, match="front did not start: does not listen"):
        list(start.until_healthy(statuses, None))
    assert starting.PATIENCE_S <= looked[-1] < 1.5 * PATIENCE_S
