"""Log lines and heartbeats on their way to a real HTTP server, which comes, goes, hangs and refuses."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.unit.kit.receiver import PATIENCE_S, Receiver, await_true, receiving

from foretell.kit import shipping
from foretell.kit.logs import LineWriter
from foretell.kit.settings import ServiceSettings
from foretell.kit.shipping import Shipper

HEALTH = {"status": "healthy", "service": "app", "instance": "app-1", "version": "1.2.3", "busy": False}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def make(receiver: Receiver) -> Iterator[Callable[..., Shipper]]:
    made: list[Shipper] = []

    def make(token: str = "", **options: Any) -> Shipper:
        made.append(Shipper(receiver.url, token, gather_s=0.02, **options))
        return made[-1]

    yield make
    receiver.status = 200
    receiver.going_on.set()
    for shipper in made:
        shipper.close(goodbye=False)


@pytest.fixture
def said() -> Iterator[list[dict[str, Any]]]:
    with capture_logs() as lines:
        yield lines


def _events(said: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in said]


def _counted(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


# Lines


def test_lines_arrive_as_they_were_written_and_in_order(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    shipper = make("secret")
    shipped = _counted("foretell_log_lines_shipped_total")
    for number in range(100):
        shipper.take_lines(b'{"n": %d}\n{"n": %d}\n' % (2 * number, 2 * number + 1), 2)
    await_true(lambda: len(receiver.lines()) == 200)
    assert [json.loads(line)["n"] for line in receiver.lines()] == list(range(200))
    path, headers, _ = receiver.posts[0]
    assert (path, headers["content-type"], headers["authorization"]) == (
        "/logs",
        "application/x-ndjson",
        "Bearer secret",
    )
    await_true(lambda: shipper.buffer.kept_bytes == 0)
    await_true(lambda: _counted("foretell_log_lines_shipped_total") == shipped + 200)


def test_what_the_writer_writes_is_what_is_shipped(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    reader, descriptor = os.pipe()
    writer = LineWriter(descriptor, make().take_lines)
    writer.write(b'{"one": 1}', urgent=False)
    writer.write(b'{"two": 2}', urgent=True)
    await_true(lambda: len(receiver.lines()) == 2)
    assert os.read(reader, 1000) == b"".join(body for _, _, body in receiver.posts) == b'{"one": 1}\n{"two": 2}\n'
    os.close(reader)
    os.close(descriptor)


def test_lines_are_shipped_though_nobody_reads_our_output(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    LineWriter(descriptor, make().take_lines).write(b"{}", urgent=True)
    await_true(lambda: receiver.lines() == ["{}"])
    os.close(descriptor)


def test_a_burst_stays_within_its_bound_and_what_is_lost_is_counted_and_told(
    receiver: Receiver, make: Callable[..., Shipper], said: list[dict[str, Any]]
) -> None:
    receiver.stop()
    bound = ServiceSettings().monitoring_buffer_bytes
    shipper = make(max_buffered_bytes=bound, away_after_s=3600.0)
    dropped_before = _counted("foretell_log_lines_dropped_total")
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = LineWriter(descriptor, shipper.take_lines)
    # Ten times what a busy service writes in a second, and ten times what fits, while nothing gets through.
    line = b'{"message": "request_finished", "filler": "%s"}' % (b"x" * 200)
    sent = 10 * bound // (len(line) + 1)
    most = 0
    for _ in range(sent):
        writer.write(line, urgent=False)
        most = max(most, shipper.buffer.kept_bytes)
    writer.flush()
    assert most <= bound
    assert shipper.buffer.dropped > sent * 0.8

    receiver.start()
    await_true(lambda: shipper.buffer.kept_bytes == 0)
    assert len(receiver.lines()) + shipper.buffer.dropped == sent
    assert set(receiver.lines()) == {line.decode()}
    await_true(lambda: _counted("foretell_log_lines_dropped_total") == dropped_before + shipper.buffer.dropped)
    await_true(lambda: "log_lines_dropped" in _events(said))
    os.close(descriptor)


def test_while_the_server_is_away_there_is_one_warning_and_then_the_number_of_lost_lines(
    receiver: Receiver, make: Callable[..., Shipper], said: list[dict[str, Any]]
) -> None:
    receiver.stop()
    shipper = make(max_buffered_bytes=100, away_after_s=0.0)
    for number in range(20):
        shipper.take_lines(b"%09d\n" % number, 1)
    await_true(lambda: "log_shipping_interrupted" in _events(said))
    for number in range(20, 30):
        shipper.take_lines(b"%09d\n" % number, 1)
    receiver.start()
    await_true(lambda: "log_shipping_resumed" in _events(said))
    assert receiver.lines() == [f"{number:09d}" for number in range(20, 30)]
    assert _events(said) == ["log_shipping_interrupted", "log_shipping_resumed"]
    assert said[0]["server_address"] == f"127.0.0.1:{receiver.port}"
    assert (said[1]["lines_dropped"], shipper.buffer.dropped) == (20, 20)


def test_a_restart_of_the_server_is_not_worth_a_line(
    receiver: Receiver, make: Callable[..., Shipper], said: list[dict[str, Any]]
) -> None:
    shipper = make()
    shipper.take_lines(b"one\n", 1)
    await_true(lambda: receiver.lines() == ["one"])
    receiver.stop()
    shipper.take_lines(b"two\n", 1)
    receiver.start()
    await_true(lambda: receiver.lines() == ["one", "two"])
    assert said == []


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_server_will_never_take_is_dropped_and_counted(
    receiver: Receiver, make: Callable[..., Shipper], said: list[dict[str, Any]], status: int
) -> None:
    receiver.status = status
    shipper = make()
    shipper.take_lines(b"bad\nbad\n", 2)
    await_true(lambda: shipper.buffer.dropped == 2)
    receiver.status = 200
    shipper.take_lines(b"good\n", 1)
    await_true(lambda: receiver.lines() == ["good"])
    assert [(line["event"], line["lines_dropped"]) for line in said] == [("log_lines_dropped", 2)]
    assert str(status) in said[0]["reason"]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_what_the_server_cannot_take_now_is_sent_again(
    receiver: Receiver, make: Callable[..., Shipper], said: list[dict[str, Any]], status: int
) -> None:
    receiver.status = status
    shipper = make(away_after_s=0.0)
    shipper.take_lines(b"one\n", 1)
    await_true(lambda: said)
    receiver.status = 200
    await_true(lambda: receiver.lines() == ["one"])
    assert shipper.buffer.dropped == 0
    assert said[0]["reason"] == f"it answered {status}"


# Heartbeats


def test_a_heartbeat_says_how_the_process_is(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    make().take_health(HEALTH, "127.0.0.1", 8000)
    (heartbeat,) = await_true(receiver.heartbeats)
    assert heartbeat["health"] == HEALTH
    assert [heartbeat[name] for name in ("service", "instance", "version", "pid", "address")] == [
        "app", "app-1", "1.2.3", os.getpid(), "127.0.0.1:8000",
    ]  # fmt: skip
    assert heartbeat["at"] >= heartbeat["started_at"]
    assert heartbeat["memory_bytes"] > 1_000_000
    assert heartbeat["cpu_s"] > 0
    assert "foretell_log_lines_shipped_total" in {family["name"] for family in heartbeat["metrics"]}
    assert "goodbye" not in heartbeat


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_who_listens_everywhere_is_found_where_it_comes_from(
    receiver: Receiver, make: Callable[..., Shipper], host: str
) -> None:
    shipper = make()
    shipper.take_health(HEALTH, host, 8000)
    await_true(receiver.heartbeats)
    shipper.take_health(HEALTH, host, 8000)
    await_true(lambda: len(receiver.heartbeats()) == 2)
    assert receiver.heartbeats()[1]["address"] == "127.0.0.1:8000"


def test_who_starts_before_the_monitoring_service_is_seen_as_soon_as_it_is_there(
    receiver: Receiver, make: Callable[..., Shipper], said: list[dict[str, Any]]
) -> None:
    receiver.status = 503
    shipper = make(away_after_s=0.0)
    shipper.take_health({**HEALTH, "busy": True}, "127.0.0.1", 8000)
    shipper.take_health(HEALTH, "127.0.0.1", 8000)
    await_true(lambda: "log_shipping_interrupted" in _events(said))
    receiver.status = 200
    await_true(receiver.heartbeats)
    shipper.take_lines(b"one\n", 1)
    await_true(receiver.lines)
    # The newest of them, and once.
    assert [heartbeat["health"] for heartbeat in receiver.heartbeats()] == [HEALTH]


def test_lost_lines_stand_in_the_heartbeat(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    shipper = make(max_buffered_bytes=3)
    shipper.take_lines(b"too long\ntoo long\n", 2)
    shipper.take_health(HEALTH, "127.0.0.1", 8000)
    (heartbeat,) = await_true(receiver.heartbeats)
    assert heartbeat["logs_dropped"] == 2


def test_observations_are_kept_until_a_heartbeat_arrives(
    receiver: Receiver,
    make: Callable[..., Shipper],
    said: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []

    def take() -> list[int]:
        taken.append(len(taken))
        return [taken[-1]]

    monkeypatch.setattr(shipping, "observations", take)
    receiver.status = 503
    shipper = make(away_after_s=0.0)
    shipper.take_health(HEALTH, "127.0.0.1", 8000)
    await_true(lambda: "log_shipping_interrupted" in _events(said))
    receiver.status = 200
    await_true(receiver.heartbeats)
    shipper.take_health(HEALTH, "127.0.0.1", 8000)
    await_true(lambda: len(receiver.heartbeats()) == 2)
    first, second = [heartbeat["observations"] for heartbeat in receiver.heartbeats()]
    assert len(first) > 1
    assert first + second == taken


@pytest.mark.parametrize("observed", [[object()], None])
def test_observations_that_cannot_be_sent_stop_nothing_else(
    receiver: Receiver, make: Callable[..., Shipper], monkeypatch: pytest.MonkeyPatch, observed: Any
) -> None:
    monkeypatch.setattr(shipping, "observations", lambda: observed)
    shipper = make()
    with capture_logs() as said:
        shipper.take_health(HEALTH, "127.0.0.1", 8000)
        await_true(lambda: said)
    monkeypatch.setattr(shipping, "observations", list)
    shipper.take_lines(b"one\n", 1)
    shipper.take_health(HEALTH, "127.0.0.1", 8000)
    await_true(lambda: receiver.lines() and receiver.heartbeats())


def test_a_heartbeat_that_is_refused_is_told_once(
    receiver: Receiver, make: Callable[..., Shipper], said: list[dict[str, Any]]
) -> None:
    receiver.status = 422
    shipper = make()
    for _ in range(3):
        shipper.take_health(HEALTH, "127.0.0.1", 8000)
        await_true(lambda: shipper._told_beat is shipper._last_beat)
    shipper.take_lines(b"one\n", 1)
    await_true(lambda: shipper.buffer.dropped)
    assert _events(said).count("heartbeat_refused") == 1


# The end


def test_at_the_end_the_last_lines_and_a_goodbye_are_sent(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    shipper = make()
    shipper.take_health(HEALTH, "127.0.0.1", 8000)
    await_true(receiver.heartbeats)
    for number in range(3):
        shipper.take_lines(b"%d\n" % number * 300_000, 300_000)
    shipper.close(goodbye=True, within_s=PATIENCE_S)
    assert len(receiver.lines()) == 900_000
    assert [heartbeat.get("goodbye", False) for heartbeat in receiver.heartbeats()] == [False, True]


def test_who_was_never_there_says_no_goodbye(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    shipper = make()
    shipper.take_lines(b"service_failed\n", 1)
    shipper.close(goodbye=True, within_s=PATIENCE_S)
    assert receiver.lines() == ["service_failed"]
    assert receiver.heartbeats() == []


def test_the_end_waits_for_nobody_who_hangs(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    receiver.going_on.clear()
    shipper = make()
    shipper.take_lines(b"one\n", 1)
    shipper.close(goodbye=True, within_s=0.2)
    # The server holds on until the test is over, and longer than that is waited for by nobody.
    assert not receiver.going_on.is_set()
    assert receiver.posts == []


def test_a_fork_ships_its_own_lines_and_not_its_parent_s(receiver: Receiver) -> None:
    code = f"""
        import os, structlog
        from foretell.kit import logs, shipping
        from foretell.kit.settings import ServiceSettings
        shipper = shipping.start(ServiceSettings(monitoring_url={receiver.url!r}))
        writer = logs.configure("app", "app-1", "info", ship=shipper.take_lines)
        log = structlog.get_logger()
        log.info("before")
        child = os.fork()
        log.info("child" if child == 0 else "parent")
        writer.flush()
        shipper.close(goodbye=False, within_s={PATIENCE_S})
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    """
    # Since 3.12, Python warns of a fork beside a thread; the shipper's is what this is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    messages = ["before", "child", "parent"]
    assert sorted(json.loads(line)["message"] for line in receiver.lines()) == messages
    assert sorted(json.loads(line)["message"] for line in done.stdout.splitlines()) == messages


def test_a_program_that_is_started_from_the_event_loop_is_not_disturbed(receiver: Receiver) -> None:
    # uvloop lets the hooks of a fork run between fork and exec.
    code = f"""
        import asyncio, os, structlog, sys, threading, uvloop
        from foretell.kit import logs, shipping
        from foretell.kit.settings import ServiceSettings
        shipper = shipping.start(ServiceSettings(monitoring_url={receiver.url!r}))
        writer = logs.configure("app", "app-1", "info", ship=shipper.take_lines)
        os.register_at_fork(after_in_child=lambda: os.write(2, b"%d" % threading.active_count()))
        async def main():
            for number in range(3):
                structlog.get_logger().info("before", number=number)
                child = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
                assert await child.wait() == 0
        uvloop.run(main())
        writer.flush()
        shipper.close(goodbye=False, within_s={PATIENCE_S})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"111")
    assert receiver.lines() == done.stdout.decode().splitlines()
    assert len(receiver.lines()) == 3


def test_the_thread_says_what_it_costs(receiver: Receiver, make: Callable[..., Shipper]) -> None:
    used = _counted("foretell_shipping_cpu_seconds_total")
    shipper = make()
    shipper.take_lines(b"one\n" * 100_000, 100_000)
    await_true(lambda: len(receiver.lines()) == 100_000)
    await_true(lambda: _counted("foretell_shipping_cpu_seconds_total") > used)
    assert any(thread.name == "shipper" and thread.daemon for thread in threading.enumerate())
