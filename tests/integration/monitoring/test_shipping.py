"""A service and the monitoring service, both real: what the one says arrives at the other, whatever becomes of it."""

import http.client
import json
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.service_process import ServiceProcess, running_service
from tests.system import FLIGHT

_PATIENCE_S = 60.0
_SERVICE = "preprocessing_service"
_TOKEN = secrets.token_hex(16)


class Kept:
    """What the monitoring service has in its file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "data" / "monitoring.db"

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()

    def messages(self) -> Counter[str]:
        return Counter(dict(self.ask("SELECT message, count(*) FROM logs WHERE service = ? GROUP BY 1", _SERVICE)))

    def instance(self) -> dict[str, Any]:
        """What is known of the one instance of our service."""
        columns = ("state", "address", "version", "health", "last_seen_at", "logs_dropped", "memory_bytes")
        found = self.ask(f"SELECT {', '.join(columns)} FROM instances WHERE service = ?", _SERVICE)
        return dict(zip(columns, found[0], strict=True)) if found else {}


@contextmanager
def monitoring(folder: Path, port: int, name: str = "monitoring", **environment: str) -> Iterator[ServiceProcess]:
    """The monitoring service on `port`; those of one folder have the same file, one after the other."""
    own = folder / name
    own.mkdir()
    with running_service(
        "monitoring",
        own,
        FORETELL_PORT=str(port),
        FORETELL_DATA_DIR=str(folder / "data"),
        FORETELL_MONITORING_TOKEN=_TOKEN,
        **environment,
    ) as service:
        yield service


@contextmanager
def shipping_service(folder: Path, port: int, **environment: str) -> Iterator[ServiceProcess]:
    """A service that logs a line for every request, and sends it to the monitoring service on `port`."""
    own = folder / "service"
    own.mkdir()
    told = {"FORETELL_MONITORING_URL": f"http://127.0.0.1:{port}", "FORETELL_MONITORING_TOKEN": _TOKEN}
    with running_service("preprocessing", own, **(told | environment)) as service:
        yield service


def ask(port: int, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@contextmanager
def load(port: int) -> Iterator[Counter[int]]:
    """Requests as fast as one client sends them; the statuses of the answers so far."""
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
        while not over.is_set():
            connection.request("POST", "/preprocess", json.dumps(FLIGHT))
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
        connection.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def await_true(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def test_every_line_of_a_service_arrives_and_so_does_how_it_is(tmp_path: Path) -> None:
    port, kept = free_port(), Kept(tmp_path)
    with monitoring(tmp_path, port), shipping_service(tmp_path, port) as service:
        await_true(lambda: kept.instance().get("state") == "healthy")
        with load(service.port) as statuses:
            await_true(lambda: statuses[200] > 300)
        instance = kept.instance()
        assert instance["address"] == f"127.0.0.1:{service.port}"
        _, health = ask(service.port, "/health")
        assert json.loads(instance["health"]) == health
        assert instance["memory_bytes"] > 0
        assert await_true(lambda: kept.ask("SELECT count(*) FROM snapshots")[0][0]) > 0

        assert service.stop() == 0
        # What it says at its end arrives before it ends.
        assert kept.instance()["state"] == "stopped"
        await_true(lambda: kept.messages() == Counter(line["message"] for line in service.lines()))
        assert kept.messages()["request_finished"] >= statuses[200]


def test_a_monitoring_service_that_is_killed_under_load_harms_nobody(tmp_path: Path) -> None:
    port, kept = free_port(), Kept(tmp_path)
    with (
        monitoring(tmp_path, port, "first") as first,
        # Room for some two hundred lines, so that some will be lost.
        shipping_service(tmp_path, port, FORETELL_MONITORING_BUFFER_BYTES=str(64 * 1024)) as service,
    ):
        with load(service.port) as statuses:
            await_true(lambda: kept.messages()["request_finished"] > 100)
            first.process.kill()
            first.process.wait()
            answered = statuses[200]
            await_true(lambda: statuses[200] > answered + 2000)
            assert ask(service.port, "/health")[0] == 200
            with monitoring(tmp_path, port, "second"):
                # What was lost is known, and what comes later arrives.
                await_true(lambda: kept.instance()["state"] == "healthy" and kept.instance()["logs_dropped"] > 0)
                before = kept.messages()["request_finished"]
                await_true(lambda: kept.messages()["request_finished"] > before + 100)
        # The second one has stopped by now, and that is no reason to be late.
        assert set(statuses) == {200}
        assert service.stop() == 0
    # Told by one line or the other: that depends on how long the second took to start.
    told = service.lines("log_lines_dropped") + service.lines("log_shipping_resumed")
    assert sum(line["lines_dropped"] for line in told) > 0
    assert not service.lines("shipping_failed")


def test_the_monitoring_service_ships_to_itself_and_hears_no_echo(tmp_path: Path) -> None:
    port, kept = free_port(), Kept(tmp_path)
    with monitoring(tmp_path, port, FORETELL_MONITORING_URL=f"http://127.0.0.1:{port}") as service:
        await_true(lambda: kept.ask("SELECT 1 FROM instances WHERE service = 'monitoring_service'"))
        await_true(lambda: kept.ask("SELECT count(*) FROM logs") == [(len(service.lines()),)])
        written = len(service.lines())
        for _ in range(50):
            assert ask(port, "/health")[0] == 200
        before = kept.ask("SELECT last_seen_at FROM instances")
        await_true(lambda: kept.ask("SELECT last_seen_at FROM instances") != before)
        # What was sent in the meantime left no line that had to be sent in its turn.
        assert (kept.ask("SELECT count(*) FROM logs"), len(service.lines())) == ([(written,)], written)
        assert service.stop() == 0
    assert kept.ask("SELECT state FROM instances") == [("stopped",)]


def test_a_wrong_token_costs_the_lines_and_nothing_else(tmp_path: Path) -> None:
    port, kept = free_port(), Kept(tmp_path)
    with (
        monitoring(tmp_path, port),
        shipping_service(tmp_path, port, FORETELL_MONITORING_TOKEN="another") as service,
    ):
        assert ask(service.port, "/preprocess", FLIGHT)[0] == 200
        assert service.stop() == 0
        assert kept.messages() == Counter()
        assert kept.instance() == {}
