"""The engine with a real supervisor and a stand-in for the services."""

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.ports import free_port

from foretell.kit.errors import Misconfigured
from foretell.local import leftovers
from foretell.local.engine import LocalEngine, NotRunning, Unwatched
from foretell.local.installation import Installation
from foretell.local.log_files import Logs
from foretell.local.planning import InvalidWorkerCount
from foretell.local.ports import PortTaken
from foretell.local.services import Service
from foretell.local.starting import StartFailed
from foretell.local.status import ProcessStatus

HERE = "foretell.kit.clock"
STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]
MakeEngine = Callable[..., LocalEngine]


def table(*more: Service) -> list[Service]:
    return [
        Service("front", HERE, port=free_port()),
        Service("hand", HERE, count=2, scales=True),
        *more,
    ]


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[MakeEngine]:
    made: list[LocalEngine] = []

    def make(
        services: list[Service] | None = None,
        folder: str = "data",
        clock: Callable[[], float] = time.monotonic,
        **environment: str,
    ) -> LocalEngine:
        engine = LocalEngine(
            Installation(tmp_path / folder),
            table=services or table(),
            serve_command=STAND_IN,
            environment={**os.environ, **environment},
            clock=clock,
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.stop(force=True)


def wait_until_healthy(engine: LocalEngine) -> list[ProcessStatus]:
    *_, statuses = engine.until_healthy()
    return statuses


def pids(engine: LocalEngine) -> dict[str, int]:
    return {status.name: status.pid for status in engine.status()}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_from_start_to_stop(make_engine: MakeEngine) -> None:
    engine = make_engine(STAND_IN_GREETING="hello")
    with pytest.raises(NotRunning):
        engine.status()
    assert engine.launch() == []
    statuses = wait_until_healthy(engine)

    assert [(each.name, each.service, each.state) for each in statuses] == [
        ("front", "front", "running"), ("hand-1", "hand", "running"), ("hand-2", "hand", "running"),
    ]  # fmt: skip
    assert len({each.instance for each in statuses}) == len({each.port for each in statuses}) == 3
    assert all(each.instance.startswith(f"{each.name}-") for each in statuses)
    # What the environment of the start said reaches the services.
    log = engine.installation.logs_dir / "front.log"
    # It comes with the first line, which may be on its way.
    wait_for(lambda: log.exists() and "hello" in log.read_text())
    # The logs may hold what users sent, the record what opens the database.
    assert stat.S_IMODE(engine.installation.record_file.stat().st_mode) == 0o600

    assert engine.stop() is True
    assert leftovers.processes_of(engine.installation.data_dir) == []
    assert not engine.installation.run_dir.exists()
    assert engine.stop() is False


def test_scaling_leaves_the_others_alone(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.launch(workers=1)
    wait_until_healthy(engine)
    before = pids(engine)
    assert list(before) == ["front", "hand-1"]

    assert engine.scale(3) == ["hand-2", "hand-3"]
    grown = {status.name: status.pid for status in wait_until_healthy(engine)}
    assert list(grown) == ["front", "hand-1", "hand-2", "hand-3"]
    assert before.items() <= grown.items()

    assert engine.scale(2) == []
    assert pids(engine) == {name: pid for name, pid in grown.items() if name != "hand-3"}
    with pytest.raises(InvalidWorkerCount):
        engine.scale(0)
    # Whoever looks from another process sees the same.
    assert pids(make_engine(engine._table)) == pids(engine)


def test_a_killed_process_is_back_with_the_same_instance_and_port(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.launch(workers=1)
    before = wait_until_healthy(engine)[1]
    for _ in range(3):
        pid = pids(engine)["hand-1"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: pids(engine)["hand-1"] not in (0, pid))  # type: ignore[misc]
    after = wait_until_healthy(engine)[1]
    assert (after.instance, after.port) == (before.instance, before.port)
    assert after.pid != before.pid


def test_a_process_that_stands_still_is_ended_and_replaced(make_engine: MakeEngine) -> None:
    engine = make_engine(FORETELL_STANDSTILL_LIMIT_S="1")
    engine.launch(workers=1)
    before = {status.name: status for status in wait_until_healthy(engine)}
    # The one can't do anything any more; the other's event loop is stuck, and it sees that by itself.
    os.kill(before["hand-1"].pid, signal.SIGSTOP)
    os.kill(before["front"].pid, signal.SIGUSR2)
    wait_for(lambda: all(pids(engine)[name] not in (0, before[name].pid) for name in before))
    wait_until_healthy(engine)
    for name in before:
        told = variable(pids(engine)[name], "FORETELL_STANDSTILLS")
        assert told is not None
        assert int(told) >= 1
    lines = Logs(engine.installation.logs_dir).last(1000)
    said = {(line.source, line.message) for line in lines}
    assert ("hand-1", "process_stands_still") in said
    assert ("front", "event_loop_stood_still") in said
    # Where it stood, it said twice: in its words and, past all of Python, in those of the interpreter.
    log = (engine.installation.logs_dir / "front.log").read_text()
    assert "in hold_up" in log
    (last, *_) = [line for line in lines if line.message == "event_loop_stood_still"]
    assert "hold_up" in last.fields["error.stack_trace"]


def test_a_process_that_ends_is_no_standstill(make_engine: MakeEngine) -> None:
    engine = make_engine([Service("hand", HERE)])
    engine.launch()
    (before,) = wait_until_healthy(engine)
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: pids(engine)["hand"] not in (0, before.pid))
    assert variable(pids(engine)["hand"], "FORETELL_STANDSTILLS") is None


def test_a_service_that_cannot_start_is_named_with_its_last_words(make_engine: MakeEngine) -> None:
    engine = make_engine(table(Service("crash", HERE)))
    engine.installation.prepare()
    (engine.installation.logs_dir / "crash.log").write_text("of an earlier start\n")
    engine.launch()
    with pytest.raises(StartFailed, match=r"^crash did not start: the reason why it crashes$") as caught:
        wait_until_healthy(engine)
    assert {line.message for line in caught.value.last_words} == {"the reason why it crashes"}


def test_what_a_killed_supervisor_left_behind_is_found_and_ended(make_engine: MakeEngine) -> None:
    services = table()
    engine = make_engine(services)
    engine.launch()
    wait_until_healthy(engine)
    orphans = set(pids(engine).values())
    record = engine.record()
    assert record is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)
    wait_for(lambda: engine.record() is None)
    assert {process.pid for process in leftovers.processes_of(engine.installation.data_dir)} == orphans

    again = make_engine(services)
    with pytest.raises(Unwatched, match=f"{len(orphans)} processes run unwatched"):
        again.status()
    assert again.clear_leftovers() == len(orphans)
    again.launch()
    assert set(pids(again).values()).isdisjoint(orphans)
    wait_until_healthy(again)


def test_stop_ends_what_a_killed_supervisor_left_behind(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.launch()
    wait_until_healthy(engine)
    record = engine.record()
    assert record is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)
    assert engine.stop() is True
    assert leftovers.processes_of(engine.installation.data_dir) == []


def test_a_service_that_ignores_sigterm_does_not_survive_force(make_engine: MakeEngine) -> None:
    engine = make_engine(table(Service("stubborn", HERE)))
    engine.launch()
    wait_until_healthy(engine)
    assert engine.stop(force=True) is True
    assert leftovers.processes_of(engine.installation.data_dir) == []


def test_a_stop_right_after_the_start_reaches_everybody(make_engine: MakeEngine) -> None:
    for _ in range(3):
        engine = make_engine([Service("hand", HERE, count=6, scales=True)])
        engine.launch()
        assert engine.stop() is True
    # Told to stop between fork and exec, a process once lost the signal and ran on until it was killed.
    assert "SIGKILL" not in (engine.installation.logs_dir / "supervisor.log").read_text()


def test_two_installations_side_by_side(make_engine: MakeEngine) -> None:
    one, other = make_engine(folder="one"), make_engine(folder="other")
    for engine in (one, other):
        engine.launch(workers=1)
    for engine in (one, other):
        wait_until_healthy(engine)
    one.stop()
    assert all(status.healthy for status in other.status())


def test_a_port_that_another_installation_holds_names_its_folder(make_engine: MakeEngine) -> None:
    services = table()
    one = make_engine(services, folder="one")
    one.launch(workers=1)
    wait_until_healthy(one)
    other = make_engine(services, folder="other")
    with pytest.raises(PortTaken) as caught:
        other.launch(workers=1)
    assert str(one.installation.data_dir) in caught.value.message
    assert "FORETELL_FRONT_PORT" in caught.value.message


@pytest.mark.parametrize("name", ["deeper" * 25, "a % (b)s #1 ;c 'd' \"e\" \\f", "пробел и юникод"])
def test_any_folder_will_do(make_engine: MakeEngine, name: str) -> None:
    engine = make_engine([Service("hand", HERE, scales=True)], folder=name)
    engine.launch()
    wait_until_healthy(engine)
    engine.scale(2)
    wait_until_healthy(engine)
    engine.stop()
    assert not engine.installation.run_dir.exists()
    assert not engine.installation.socket.exists()


def test_addresses_are_written_down_for_other_commands(make_engine: MakeEngine, tmp_path: Path) -> None:
    only_hands = [Service("hand", HERE, scales=True)]
    own = make_engine(only_hands, folder="own", FORETELL_DATABASE_URL="", FORETELL_BROKER_URL="")
    own.launch()
    record = own.record()
    assert record is not None
    assert record.database_url == f"sqlite:///{tmp_path / 'own' / 'foretell.db'}"
    assert record.broker_url == f"sqlite:///{tmp_path / 'own' / 'broker.db'}"

    given = make_engine(only_hands, folder="given", FORETELL_DATABASE_URL="postgresql://a@db/c")
    given.launch()
    record = given.record()
    assert record is not None
    assert record.database_url == "postgresql://a@db/c"
    assert "postgresql" not in given.installation.configuration_file.read_text()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("FORETELL_DATABASE_URL", "postgres"),
        ("FORETELL_DATABASE_URL", "mysql://a@db/c"),
        ("FORETELL_DATABASE_URL", "sqlite:"),
        ("FORETELL_BROKER_URL", "rabbit"),
        ("FORETELL_BROKER_URL", "amqp://a:%zz@mq/"),
    ],
)
def test_an_address_that_every_process_would_refuse_starts_none(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    for each in ("FORETELL_DATABASE_URL", "FORETELL_BROKER_URL"):
        monkeypatch.delenv(each, raising=False)
    engine = make_engine(**{name: url})
    with pytest.raises(Misconfigured, match=f"^{name} "):
        engine.launch()
    assert engine.record() is None
    assert not engine.installation.data_dir.exists()


def variable(pid: int, name: str) -> str | None:
    value = psutil.Process(pid).environ().get(name)
    return None if value is None else str(value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "http://127.0.0.1:{port}"),
        ({"FORETELL_HOST": "0.0.0.0"}, "http://127.0.0.1:{port}"),
        ({"FORETELL_MONITORING_URL": "http://elsewhere:1"}, "http://elsewhere:1"),
        ({"FORETELL_MONITORING_URL": ""}, ""),
    ],
)
def test_services_are_told_where_the_monitoring_service_is(
    make_engine: MakeEngine, given: dict[str, str], told: str
) -> None:
    monitoring = Service("monitoring", HERE, port=free_port(), stops_last=True)
    engine = make_engine([Service("hand", HERE, scales=True), monitoring], **given)
    engine.launch()
    wait_until_healthy(engine)
    # One that comes later is told the same.
    engine.scale(2)
    wait_until_healthy(engine)
    assert {variable(pid, "FORETELL_MONITORING_URL") for pid in pids(engine).values()} == {
        told.format(port=monitoring.port)
    }


def test_without_a_monitoring_service_nobody_is_told_of_one(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORETELL_MONITORING_URL", raising=False)
    engine = make_engine([Service("hand", HERE)])
    engine.launch()
    wait_until_healthy(engine)
    assert variable(pids(engine)["hand"], "FORETELL_MONITORING_URL") is None


def test_services_know_one_another_by_the_secret_of_the_bot(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORETELL_BOT_SECRET", raising=False)
    engine = make_engine([Service("hand", HERE, scales=True, count=2)])
    engine.launch()
    wait_until_healthy(engine)
    secret = engine.installation.bot_secret()
    assert {variable(pid, "FORETELL_BOT_SECRET") for pid in pids(engine).values()} == {secret}
    # It outlives a stop, and gives way to one that is given.
    engine.stop()
    given = make_engine([Service("hand", HERE)], FORETELL_BOT_SECRET="whsec_given")
    given.launch()
    wait_until_healthy(given)
    assert variable(pids(given)["hand"], "FORETELL_BOT_SECRET") == "whsec_given"
    assert given.installation.bot_secret() == secret


def test_who_is_needed_until_the_end_is_stopped_last(make_engine: MakeEngine) -> None:
    engine = make_engine(table(Service("ear", HERE, stops_last=True)))
    engine.launch()
    wait_until_healthy(engine)
    assert engine.stop() is True
    lines = Logs(engine.installation.logs_dir).last(1000)
    ends = {line.source: line.moment for line in lines if line.message == "service_stopped"}
    (told,) = [line.moment for line in lines if line.message == "stop_requested" and line.source == "ear"]
    assert ends.keys() == {"front", "hand-1", "hand-2", "ear"}
    assert all(moment <= told for source, moment in ends.items() if source != "ear")


def test_a_start_waits_as_long_as_models_are_loaded(make_engine: MakeEngine, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    loads.touch()
    now = 0.0
    engine = make_engine([Service("loader", HERE)], clock=lambda: now, STAND_IN_LOADS=str(loads))
    engine.launch()
    for (status,) in engine.until_healthy():
        if status.loading:
            assert (status.healthy, status.loading) == (True, {"slow 1.0.0": 75.5, "next 1.0.0": 0.0})
            # Later than any process may take to start.
            now += 100.0
        if now >= 500.0:
            loads.unlink(missing_ok=True)
    assert (status.healthy, status.loading) == (True, {})


def test_models_that_load_on_and_on_are_left_to_themselves(make_engine: MakeEngine, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    loads.touch()
    now = 0.0
    engine = make_engine([Service("loader", HERE)], clock=lambda: now, STAND_IN_LOADS=str(loads))
    engine.launch()
    for (status,) in engine.until_healthy():
        if status.loading:
            now += 250.0
    assert (status.healthy, list(status.loading)) == (True, ["slow 1.0.0", "next 1.0.0"])
    (status,) = engine.status()
    assert (status.state, status.healthy) == ("running", True)


def test_a_process_that_does_not_become_healthy_fails_the_start(make_engine: MakeEngine) -> None:
    now = 0.0
    engine = make_engine([Service("sick", HERE)], clock=lambda: now)
    engine.launch()

    def watch() -> None:
        nonlocal now
        for (status,) in engine.until_healthy():
            if "headache" in status.reason:
                now += 100.0

    with pytest.raises(StartFailed, match="sick did not start: head: a headache"):
        watch()
