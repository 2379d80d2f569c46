"""`foretell monitor` and `foretell redrive`, against a service that answers what we say."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from rich.console import Console
from tests.integration.monitoring.watched import Process, watching

from foretell.cli import monitoring, monitoring_tables, output
from foretell.cli.main import run
from foretell.cli.monitoring import NoSuchTime, moment_of
from foretell.kit.clock import now
from foretell.local.installation import EngineRecord, Installation, Program

HOSTILE = "evil\x1b[2J\nfake line [red]markup[/red]"


@dataclass
class Service:
    """Answers every request with what is set for its path, and keeps what was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    token: str = ""
    url: str = ""


@pytest.fixture
def service() -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            told.asked.append((self.command, parts.path, dict(parse_qsl(parts.query)), body))
            status, content = 200, told.answers.get(f"{self.command} {parts.path}", told.answers.get(parts.path))
            if told.token and self.headers.get("Authorization") != f"Bearer {told.token}":
                status, content = 401, {"detail": "no"}
            elif content is None:
                status, content = 422, {"errors": [{"parameter": "window", "detail": f"is wrong {HOSTILE}"}]}
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Answer:
    """What one call gave."""

    code: int
    out: str
    error: str


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr("sys.argv", ["foretell", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run()
        captured = capsys.readouterr()
        code = caught.value.code
        return Answer(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


def test_nothing_runs_is_a_sentence(call: Any) -> None:
    answer = call("monitor", "--url", "http://127.0.0.1:1")
    assert (answer.code, answer.out) == (1, "")
    assert answer.error.startswith("The monitoring service does not answer at http://127.0.0.1:1. Start Foretell")
    assert call("monitor", "health", "--url", "nonsense").code == 1


def test_a_port_of_the_environment_is_asked_when_no_engine_runs_here(
    call: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["/reports/queues"] = {"anything": True}
    port = service.url.rpartition(":")[2]
    for name in ("MONITORING_URL", "URL"):
        monkeypatch.delenv(f"FORETELL_{name}", raising=False)
    monkeypatch.setenv("FORETELL_MONITORING_PORT", port)
    assert json.loads(call("monitor", "queues", "--json").out) == {"anything": True}
    # Who names a whole address means that one.
    monkeypatch.setenv("FORETELL_MONITORING_URL", "http://127.0.0.1:1")
    assert "at http://127.0.0.1:1." in call("monitor").error
    monkeypatch.delenv("FORETELL_MONITORING_URL")
    monkeypatch.setenv("FORETELL_MONITORING_PORT", "many")
    assert "FORETELL_MONITORING_PORT must be a port" in call("monitor").error
    # The app likewise.
    monkeypatch.setenv("FORETELL_APP_PORT", port)
    before = len(service.asked)
    answer = call("predict", "flight-delay", "carrier=AA", "--token", "x")
    assert answer.code == 1, answer.error
    assert len(service.asked) > before, answer.error


def test_the_engine_that_runs_here_is_asked(
    call: Any, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["/reports/queues"] = {"anything": True}
    service.token = "of the monitoring service"
    installation = Installation(tmp_path / "data")
    installation.prepare()

    def record(*programs: Program) -> EngineRecord:
        return EngineRecord(1, "", "sqlite:///x", "sqlite:///y", "development", list(programs))

    port = int(service.url.rpartition(":")[2])
    installation.write(record(Program("monitoring", "monitoring", "monitoring-1", "0.0.0.0", port)))
    answer = call("monitor", "queues", "--json")
    assert answer.code == 1
    assert "FORETELL_MONITORING_TOKEN" in answer.error
    monkeypatch.setenv("FORETELL_MONITORING_TOKEN", service.token)
    answer = call("monitor", "queues", "--json", "--window", "2h")
    assert json.loads(answer.out) == {"anything": True}
    assert service.asked[-1] == ("GET", "/reports/queues", {"window": "2h"}, None)
    installation.write(record(Program("app", "app", "app-1", "127.0.0.1", port)))
    assert "without a monitoring service" in call("monitor").error


def test_what_the_service_refuses_is_said_and_harmless(call: Any, service: Service) -> None:
    answer = call("monitor", "latency", "--window", "x", "--url", service.url)
    assert answer.code == 1
    assert answer.error.startswith("The monitoring service says: window is wrong evil\\x1b[2J\\nfake line")
    assert answer.error.count("\n") == 1


def test_options_belong_behind_the_name(call: Any, service: Service) -> None:
    answer = call("monitor", "--url", service.url, "health")
    assert answer.code == 2
    assert service.asked == []


@pytest.mark.parametrize(("rows", "said"), [(12, "12 rows looked at (500 are needed)."), (500, "500 rows looked at.")])
def test_drift_says_how_many_rows_it_needs(call: Any, service: Service, rows: int, said: str) -> None:
    windows = [{"rows": rows, "fields": [{"rows_needed": 500}]}, {"rows": 0, "fields": []}]
    version = {"model": "flight-delay", "version": "1", "status": "not_enough_data", "windows": windows}
    service.answers["/reports/drift"] = {"versions": [version]}
    answer = call("monitor", "drift", "--url", service.url)
    assert answer.out == f"flight-delay 1: not enough data, {said}\n"


def test_a_redrive_looks_first(call: Any, service: Service) -> None:
    letter = {
        "message_id": "0123456789abcdef0123", "attempts": 1, "redriven": 2, "size_bytes": 1234, "headers": {},
        "kind": "unreadable", "reason": HOSTILE, "model": None, "version": None, "tasks": 0, "prediction_ids": [],
    }  # fmt: skip
    service.answers["/queues/ml_tasks/dead"] = {"queue": "ml_tasks", "count": 3, "items": [letter]}
    service.answers["/queues/ml_tasks/redrive"] = {"queue": "ml_tasks", "moved": 2, "left": 1}
    answer = call("redrive", "ml_tasks", "--limit", "2", "--url", service.url)
    assert answer.code == 0
    assert "ml_tasks has 3 dead letters." in answer.out
    assert "To send 2 messages back to ml_tasks, add --yes." in answer.error
    assert "\x1b" not in answer.out
    assert "[red]markup[/red]" in answer.out
    assert [asked[0] for asked in service.asked] == ["GET"]
    answer = call("redrive", "ml_tasks", "--limit", "2", "--yes", "--url", service.url)
    assert answer.out == "2 messages sent back to ml_tasks; 1 left.\n"
    assert service.asked[-1] == ("POST", "/queues/ml_tasks/redrive", {}, {"limit": 2})


def test_dead_letters_are_discarded_when_it_is_said_twice(call: Any, service: Service) -> None:
    path = "/queues/ml_tasks/dead"
    service.answers[path] = {"queue": "ml_tasks", "count": 3, "items": []}
    service.answers[f"DELETE {path}"] = {"queue": "ml_tasks", "moved": 3, "left": 0}
    answer = call("redrive", "ml_tasks", "--discard", "--url", service.url)
    assert "To discard all 3 messages for good, add --yes." in answer.error
    assert [asked[0] for asked in service.asked] == ["GET"]
    answer = call("redrive", "ml_tasks", "--discard", "--yes", "--url", service.url)
    assert answer.out == "3 messages of ml_tasks discarded; 0 left.\n"
    assert service.asked[-1] == ("DELETE", path, {"confirm": "3"}, None)


def record(message: str, **more: Any) -> dict[str, Any]:
    return {"service": "app", "level": "WARNING", "message": message, "timestamp": now().isoformat(), **more}


@pytest.mark.parametrize("name", ["worker", "ml_worker", "ml-worker"])
def test_logs_are_asked_for_by_any_name_of_a_service(call: Any, service: Service, name: str) -> None:
    service.answers["/reports/logs"] = []
    assert call("monitor", "logs", "--service", name, "--url", service.url).code == 0
    assert service.asked[0][2]["service"] == "ml_worker"


def test_logs_of_another_program_are_asked_for_by_its_name(call: Any, service: Service) -> None:
    service.answers["/reports/logs"] = []
    call("monitor", "logs", "--service", "My_Service", "--url", service.url)
    assert service.asked[0][2]["service"] == "My_Service"


def test_logs_can_t_forge_lines(call: Any, service: Service) -> None:
    service.answers["/reports/logs"] = [
        record(HOSTILE, instance="a\nb", fields={"na\x07me": HOSTILE}, prediction_id="019a")
    ]
    answer = call(
        "monitor", "logs", "--service", "app", "--level", "warning", "--since", "10m", "-n", "7", "--url", service.url
    )
    assert answer.out.count("\n") == 1
    assert "\x1b" not in answer.out
    assert "\x07" not in answer.out
    assert "prediction_id=019a" in answer.out
    (_, _, asked, _) = service.asked[0]
    assert (asked["service"], asked["min_level"], asked["limit"]) == ("app", "WARNING", "7")
    assert datetime.fromisoformat(asked["since"]) < now() - timedelta(minutes=9)
    as_json = call("monitor", "logs", "--json", "--url", service.url)
    assert json.loads(as_json.out)["message"] == HOSTILE
    assert call("monitor", "logs", "--level", "loud", "--url", service.url).code == 1
    assert call("monitor", "logs", "--since", "soon", "--url", service.url).code == 1


def test_who_follows_sees_each_line_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [record("first")]
    service.answers["/reports/logs"] = lines
    looks = iter(["second", "third"])

    def sleep(_: float) -> None:
        try:
            lines.append(record(next(looks)))
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("foretell.cli.monitoring.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        monitoring.logs({}, level=None, since=None, lines=10, follow=True, as_json=True, url=service.url)
    shown = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["first", "second", "third"]


def test_moments() -> None:
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    assert moment_of("90s", at) == at - timedelta(seconds=90)
    assert moment_of("1.5h", at) == at - timedelta(minutes=90)
    assert moment_of("2026-01-05T09:30:00Z", at) == at - timedelta(hours=2, minutes=30)
    for nonsense in ("", "soon", "5", "9999999d", "999999d", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(NoSuchTime):
            moment_of(nonsense, at)


@pytest.mark.parametrize("name", [name for name in monitoring_tables.SHOW])
async def test_every_report_fits_80_columns(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the service really says, with names as long as they get, on a narrow terminal."""
    text = StringIO()
    console = Console(file=text, width=80, force_terminal=True, highlight=False)
    monkeypatch.setattr(output, "console", console)
    async with watching(f"sqlite:///{tmp_path / 'monitoring.db'}", tmp_path) as watched:
        await fill(watched)
        path = "/alerts" if name == "alerts" else f"/reports/{name}"
        content = await watched.get(path)
    monitoring_tables.SHOW[name](content)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
    assert shown.strip()
    assert max(len(line) for line in shown.splitlines()) <= 80
    if name in ("overview", "health", "throughput", "errors", "workers"):
        assert "ml_worker" in shown or "sentiment" in shown


async def fill(watched: Any) -> None:
    """A service that is busy, and one that is not well."""
    worker = Process(watched, "ml_worker", "worker-1-1a2b3c", now() - timedelta(minutes=3))
    labels = {"model": "sentiment", "version": "1.0.0"}
    worker.count("foretell_worker_tasks_total", 123_456, **labels, outcome="succeeded")
    worker.count("foretell_http_requests_total", 5, route="/health/ready", method="GET", status="503")
    worker.count("foretell_broker_publishes_total", 99, outcome="confirmed")
    worker.count("process_cpu_seconds_total", 120)
    worker.observe("foretell_worker_run_duration_seconds", [0.1, 0.2, 70.0], **labels)
    worker.observe("foretell_batch_items", [256, 1], station="worker")
    task = {**labels, "tasks": 256, "since": now().isoformat(), "prediction_id": "019a"}
    health = {
        "status": "unhealthy",
        "failing": {"broker": "It is away."},
        "busy": True,
        "tasks_done": 123_456,
        "current_task": task,
    }
    await worker.say(now(), health=health)
    await worker.watching.client.post(
        "/logs",
        json=[{"service": "ml_worker", "level": "ERROR", "message": HOSTILE, "timestamp": now().isoformat()}],
    )
    dispatcher = Process(watched, "dispatcher", "dispatcher-1", now() - timedelta(minutes=3))
    dispatcher.set("foretell_queue_ready_messages", 123_456, queue="ml_tasks")
    dispatcher.set("foretell_dead_letters", 17, queue="ml_tasks")
    dispatcher.set("foretell_queue_oldest_task_age_seconds", 4000, queue="ml_tasks")
    dispatcher.set("foretell_revenue_credits", 1_000_000, model="sentiment", day=now().date().isoformat())
    dispatcher.observe("foretell_prediction_duration_seconds", [3.0], **labels)
    await dispatcher.say(now())
    await asyncio.sleep(0)
