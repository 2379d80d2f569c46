"""From start to end, in processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from tests.unit.kit.receiver import Receiver, await_true, receiving

from foretell.inference.registry import shipped_folder

_PATIENCE_S = 30

_PROGRAM = """
import asyncio
import os
import pathlib
import time
from foretell.kit.asgi import Operations, respond
from foretell.kit.errors import Misconfigured
from foretell.kit.lifecycle import run, serve_http
from foretell.kit.settings import ServiceSettings

async def app(scope, receive, send):
    if scope["path"] == "/slow":
        print('{"message": "slow_request_begun"}', flush=True)
        await asyncio.sleep(1)
    if scope["path"] == "/endless":
        print('{"message": "endless_request_begun"}', flush=True)
        await asyncio.sleep(3600)
    await respond(send, 200, b"done", b"text/plain")

async def serve(instance, stopping):
    await serve_http(app, settings, stopping)

async def healthy(instance, stopping):
    await serve_http(Operations("app", instance=instance, version="1.2.3"), settings, stopping)

async def never_stop(instance, stopping):
    await serve_http(app, settings, asyncio.Event())

async def stand_still(instance, stopping):
    time.sleep(3600)

async def stand_for_a_moment(instance, stopping):
    time.sleep(0.7)
    await serve_http(app, settings, stopping)

async def leave_a_load_behind(instance, stopping):
    from foretell.inference.runtimes.onnx import open_session
    from foretell.kit.offloading import in_thread
    content = pathlib.Path(os.environ["ARTIFACT"]).read_bytes()
    def load():
        while True:
            open_session(content)
    in_thread(load)
    await serve_http(app, settings, stopping)

async def fail(instance, stopping):
    raise RuntimeError("the unexpected")

async def refuse(instance, stopping):
    raise Misconfigured("Set FORETELL_THIS to that.")

settings = ServiceSettings()
run("app", settings, SERVE)
"""


class Process:
    """A service in a process, and the lines that it logs."""

    def __init__(self, serve: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM).replace("SERVE", serve)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "FORETELL_INSTANCE": "app-1", **environment},
        )

    def await_line(self, message: str) -> dict[str, Any]:
        """The next line with this message."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fields: dict[str, Any] = json.loads(line)
            if fields["message"] == message:
                return fields
        raise AssertionError(f"the process ended without {message}: {self._process.stderr!r}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def await_error(self, part: str) -> str:
        """The next line on standard error that has `part`."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if part.encode() in line:
                return line.decode()
        raise AssertionError(f"the process ended without {part}")

    def end(self, *, quiet: bool = True) -> tuple[int, list[dict[str, Any]]]:
        """Wait for its end; its exit status and the rest of its lines. If `quiet`, without a word of complaint."""
        output, errors = self._process.communicate(timeout=_PATIENCE_S)
        assert errors == b"" or not quiet
        return self._process.returncode, [json.loads(line) for line in output.splitlines()]

    def remove(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(serve: str = "serve", **environment: str) -> Process:
        processes.append(Process(serve, environment))
        return processes[-1]

    yield start
    for process in processes:
        process.remove()


def _messages(lines: list[dict[str, Any]]) -> list[str]:
    return [line["message"] for line in lines]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(start: Callable[..., Process], number: signal.Signals) -> None:
    process = start()
    listening = process.await_line("service_listening")
    with urllib.request.urlopen(f"http://127.0.0.1:{listening['port']}/", timeout=_PATIENCE_S) as response:
        assert response.read() == b"done"
    process.signal(number)
    status, lines = process.end()
    assert status == 0
    assert _messages(lines) == ["stop_requested", "service_stopped"]


def test_a_request_under_way_is_answered_first(start: Callable[..., Process]) -> None:
    process = start()
    port = process.await_line("service_listening")["port"]
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        process.await_line("slow_request_begun")
        process.signal(signal.SIGTERM)
        answer = b""
        while part := client.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"done")
    assert process.end()[0] == 0


def test_a_request_without_end_is_cut_off_after_the_grace_period(start: Callable[..., Process]) -> None:
    process = start(FORETELL_STOP_GRACE_S="1")
    port = process.await_line("service_listening")["port"]
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        process.await_line("endless_request_begun")
        process.signal(signal.SIGTERM)
        status, lines = process.end()
    assert status == 0
    assert "service_stopped" in _messages(lines)


def test_a_second_signal_ends_it_at_once(start: Callable[..., Process]) -> None:
    process = start("never_stop")
    process.await_line("service_listening")
    process.signal(signal.SIGTERM)
    process.await_line("stop_requested")
    process.signal(signal.SIGINT)
    status, lines = process.end()
    assert status == 1
    assert _messages(lines) == ["stop_forced"]


def test_a_model_that_is_being_loaded_does_not_make_a_stop_a_crash(start: Callable[..., Process]) -> None:
    artifact = shipped_folder() / "flight_delay" / "model.onnx"
    process = start("leave_a_load_behind", ARTIFACT=str(artifact))
    process.await_line("service_listening")
    process.signal(signal.SIGTERM)
    status, lines = process.end()
    assert (status, _messages(lines)) == (0, ["stop_requested", "service_stopped"])


def test_a_port_that_is_taken_is_named_with_its_setting(start: Callable[..., Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = start(FORETELL_PORT=str(port)).end()
    assert status == 1
    assert _messages(lines) == ["service_starting", "service_failed"]
    assert lines[-1]["reason"] == (
        f"Can't listen on 127.0.0.1:{port} (Address already in use). Set FORETELL_PORT to a free port."
    )
    assert "error.stack_trace" not in lines[-1]


def test_an_address_that_is_not_ours_is_named(start: Callable[..., Process]) -> None:
    status, lines = start(FORETELL_HOST="192.0.2.1").end()
    assert status == 1
    assert "192.0.2.1" in lines[-1]["reason"]


def test_what_we_can_explain_ends_in_a_sentence_and_the_rest_in_a_trace(start: Callable[..., Process]) -> None:
    refused, failed = start("refuse"), start("fail")
    status, lines = refused.end()
    assert (status, lines[-1]["reason"]) == (1, "Set FORETELL_THIS to that.")
    status, lines = failed.end()
    assert (status, lines[-1]["log.level"]) == (1, "error")
    assert "the unexpected" in lines[-1]["error.stack_trace"]
    assert lines[-1]["reason"] == "the unexpected"


def test_an_instance_without_a_name_gets_one(start: Callable[..., Process]) -> None:
    processes = [start(FORETELL_INSTANCE="") for _ in range(2)]
    names = [process.await_line("service_listening")["service.node.name"] for process in processes]
    assert all(name.startswith(f"app-{socket.gethostname()}-") for name in names)
    assert len(set(names)) == 2


# What stands still


def test_told_by_a_signal_it_writes_its_stacks_and_goes_on(start: Callable[..., Process]) -> None:
    process = start()
    process.await_line("service_listening")
    process.signal(signal.SIGUSR1)
    assert process.await_error("lifecycle.py").endswith(" in run\n")
    process.signal(signal.SIGTERM)
    status, _ = process.end(quiet=False)
    assert status == 0


def test_an_event_loop_that_turns_no_more_says_where_and_ends_its_process(start: Callable[..., Process]) -> None:
    process = start("stand_still", FORETELL_STANDSTILL_LIMIT_S="1")
    warning = process.await_line("event_loop_stands")
    error = process.await_line("event_loop_stood_still")
    for line in (warning, error):
        assert "in stand_still" in line["error.stack_trace"]
    status, _ = process.end(quiet=False)
    assert status == 71


def test_one_that_is_held_up_for_less_goes_on(start: Callable[..., Process]) -> None:
    process = start("stand_for_a_moment", FORETELL_STANDSTILL_LIMIT_S="60")
    process.await_line("service_listening")
    process.signal(signal.SIGTERM)
    assert process.end()[0] == 0


def test_how_often_it_was_replaced_is_shown(start: Callable[..., Process]) -> None:
    process = start("healthy", FORETELL_STANDSTILLS="3")
    assert process.await_line("service_starting")["standstills"] == 3
    port = process.await_line("service_listening")["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_PATIENCE_S) as response:
        assert b"foretell_standstills_total 3.0" in response.read()


# What is told to the monitoring service


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def _messages_sent(receiver: Receiver) -> list[str]:
    return [json.loads(line)["message"] for line in receiver.lines()]


def test_health_and_log_are_sent_from_the_first_moment_to_the_last(
    start: Callable[..., Process], receiver: Receiver
) -> None:
    process = start("healthy", FORETELL_MONITORING_URL=receiver.url, FORETELL_MONITORING_TOKEN="secret")
    port = process.await_line("service_listening")["port"]
    (heartbeat,) = await_true(receiver.heartbeats)
    assert heartbeat["health"] == {"status": "healthy", "service": "app", "instance": "app-1", "version": "1.2.3"}
    assert heartbeat["address"] == f"127.0.0.1:{port}"
    process.signal(signal.SIGTERM)
    assert process.end()[0] == 0
    assert receiver.heartbeats()[-1]["goodbye"] is True
    assert _messages_sent(receiver) == ["service_starting", "service_listening", "stop_requested", "service_stopped"]
    assert {headers["authorization"] for _, headers, _ in receiver.posts} == {"Bearer secret"}


def test_why_a_start_failed_is_sent_and_no_goodbye(start: Callable[..., Process], receiver: Receiver) -> None:
    assert start("refuse", FORETELL_MONITORING_URL=receiver.url).end()[0] == 1
    assert _messages_sent(receiver) == ["service_starting", "service_failed"]
    assert receiver.heartbeats() == []


def test_a_forced_stop_sends_its_last_words(start: Callable[..., Process], receiver: Receiver) -> None:
    process = start("never_stop", FORETELL_MONITORING_URL=receiver.url)
    process.await_line("service_listening")
    process.signal(signal.SIGTERM)
    process.await_line("stop_requested")
    process.signal(signal.SIGINT)
    assert process.end()[0] == 1
    assert _messages_sent(receiver)[-1] == "stop_forced"


def test_a_monitoring_service_that_is_away_or_hangs_changes_nothing(
    start: Callable[..., Process], receiver: Receiver
) -> None:
    receiver.going_on.clear()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    for url in (receiver.url, f"http://127.0.0.1:{nobody}"):
        process = start("healthy", FORETELL_MONITORING_URL=url)
        process.await_line("service_listening")
        process.signal(signal.SIGTERM)
        status, lines = process.end()
        assert (status, _messages(lines)) == (0, ["stop_requested", "service_stopped"])
