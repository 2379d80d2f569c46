"""The monitoring service: how many records a second it takes in, and how quickly it finds them among a million.

    python benchmarks/monitoring.py
    python benchmarks/monitoring.py sqlite --records 200000 --seconds 3 --json

The service and the load generator share the machine. Compare figures of one run with one another and with nothing
else: besides records a second, each is given as a share of what this machine can do at least (parsing the same bodies
in this process).
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from benchmarks.surroundings import DATABASE_URL, private_database  # noqa: E402
from foretell.client.load import put_load, request  # noqa: E402
from foretell.kit.clock import uuid7  # noqa: E402

START_TIMEOUT_S = 60.0
#: Records of one list, and how many senders there are: as our services ship them.
LIST = 500
SENDERS = 8
#: The burst: so many senders at once, with lists that are larger.
BURST_SENDERS, BURST_LIST = 80, 4_000
SERVICES = ("app", "dispatcher", "ml-worker", "model-service", "preprocessing-service", "bot")
ROUTES = ("/predictions/predict", "/predictions/{id}", "/balance", "/models")

console = Console(stderr=True)
randomness = random.Random(1)


@dataclass
class Figures:
    """What was measured of one database."""

    database: str
    ready_s: float = 0.0
    idle_rss_mib: float = 0.0
    parsing_per_s: float = 0.0
    ingestion: dict[str, dict[str, float]] = field(default_factory=dict)
    burst: dict[str, Any] = field(default_factory=dict)
    stored: int = 0
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)


def lines_of(number: int, at: datetime) -> list[dict[str, Any]]:
    """Lines as services write them."""
    lines = []
    for index in range(number):
        level = randomness.choices(("info", "warning", "error"), (92, 5, 3))[0]
        line: dict[str, Any] = {
            "@timestamp": (at + timedelta(milliseconds=index)).isoformat(),
            "log.level": level,
            "message": "request_finished" if level == "info" else "prediction_failed: the model did not answer in time",
            "route": randomness.choice(ROUTES),
            "http.request.method": "POST",
            "http.response.status_code": 202,
            "event.duration": randomness.randrange(100_000, 90_000_000),
            "http.request.id": f"{randomness.getrandbits(96):024x}",
            "ecs.version": "8.17.0",
            "service.name": randomness.choices(SERVICES, (40, 20, 20, 10, 9.9, 0.1))[0],
            "service.node.name": f"instance-{randomness.randrange(12)}",
        }
        if randomness.random() < 0.2:
            line["trace.id"] = f"{randomness.getrandbits(128):032x}"
            line["prediction_id"] = str(uuid7())
        lines.append(line)
    return lines


def as_records(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as `POST /logs` takes them from anybody."""
    return [
        {
            "service": line["service.name"],
            "level": line["log.level"].upper(),
            "message": line["message"],
            "timestamp": line["@timestamp"],
            "instance": line["service.node.name"],
            "fields": {"route": line["route"], "duration_ns": line["event.duration"]},
        }
        for line in lines
    ]


#: Stands for the current second in bodies that are made once and sent again and again.
SECOND = b"SSSSSSSSSSSSSSSSSSS"


class Bodies:
    """Requests with fresh times, made with little effort."""

    def __init__(self, content_type: str, bodies: list[bytes], now: datetime) -> None:
        second = now.isoformat()[:19].encode()
        header = {"Content-Type": content_type}
        self._templates = cycle(request("POST", "/logs", header, body.replace(second, SECOND)) for body in bodies)

    def next(self) -> bytes:
        """A request."""
        return next(self._templates).replace(SECOND, datetime.now(UTC).isoformat()[:19].encode())


def ndjson(lines: list[dict[str, Any]]) -> bytes:
    """As JSON Lines."""
    return b"\n".join(json.dumps(line, separators=(",", ":")).encode() for line in lines)


class Service:
    """`foretell serve monitoring` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = psutil.Process(process.pid)
        self.url = url

    def rss_mib(self) -> float:
        """Its memory."""
        return float(self.process.memory_info().rss) / 2**20


@asynccontextmanager
async def running(folder: Path, database_url: str) -> AsyncIterator[tuple[Service, float]]:
    """The service, ready, and how many seconds that took."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FORETELL_")}
    environment |= {
        "FORETELL_PORT": "0",
        "FORETELL_DATA_DIR": str(folder),
        "FORETELL_MONITORING_DATABASE_URL": database_url,
    }
    command = [sys.executable, "-m", "foretell.cli", "serve", "monitoring"]
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    try:
        url = await asyncio.to_thread(_ready_url, folder / "log", process)
        yield Service(process, url), time.monotonic() - started
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _ready_url(log: Path, process: asyncio.subprocess.Process) -> str:
    """Where it answers, once it says that it is ready. Raises `RuntimeError` with its log."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.returncode is None:
        for line in log.read_bytes().splitlines():
            if b'"service_listening"' in line:
                url = f"http://127.0.0.1:{json.loads(line)['port']}"
                with suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health/ready").status_code == 200:
                        return url
        time.sleep(0.01)
    raise RuntimeError(f"the service did not start: {log.read_text()[-2000:]}")


def parsing_per_s(bodies: list[bytes]) -> float:
    """How many records of these bodies this machine's JSON parser reads a second: a yardstick."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.5:
        for body in bodies:
            count += len(json.loads(body))
    return count / (time.perf_counter() - started)


async def measure_ingestion(service: Service, figures: Figures, seconds: float) -> None:
    """Lists as JSON, and lines."""
    now = datetime.now(UTC).replace(microsecond=0)
    made = [lines_of(LIST, now) for _ in range(40)]
    lists = [json.dumps(as_records(lines)).encode() for lines in made]
    figures.parsing_per_s = parsing_per_s(lists)
    kinds = {
        "JSON lists": Bodies("application/json", lists, now),
        "JSON Lines": Bodies("application/x-ndjson", [ndjson(lines) for lines in made], now),
    }
    for name, bodies in kinds.items():
        cpu_s = sum(service.process.cpu_times()[:2])
        load = await put_load(service.url, clients=SENDERS, seconds=seconds, next_request=bodies.next)
        records = load.statuses.get(200, 0) * LIST
        figures.stored += records
        figures.ingestion[name] = {
            "records/s": load.per_second * LIST,
            "of parsing": load.per_second * LIST / figures.parsing_per_s,
            "cpu us/record": (sum(service.process.cpu_times()[:2]) - cpu_s) / max(records, 1) * 1e6,
            "p50 ms": load.percentile_s(50) * 1000,
            "p99 ms": load.percentile_s(99) * 1000,
            "refused": sum(count for status, count in load.statuses.items() if status != 200),
            "rss MiB": service.rss_mib(),
        }


async def measure_burst(service: Service, figures: Figures, seconds: float) -> None:
    """Many more than it can take, all at once: what waits is bounded, and so is memory."""
    now = datetime.now(UTC).replace(microsecond=0)
    bodies = Bodies("application/x-ndjson", [ndjson(lines_of(BURST_LIST, now)) for _ in range(4)], now)
    peak = 0.0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, service.rss_mib())
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    load = await put_load(service.url, clients=BURST_SENDERS, seconds=seconds, next_request=bodies.next)
    watching.cancel()
    figures.stored += load.statuses.get(200, 0) * BURST_LIST
    figures.burst = {
        "offered_per_s": sum(load.statuses.values()) * BURST_LIST / load.duration_s,
        "stored_per_s": load.statuses.get(200, 0) * BURST_LIST / load.duration_s,
        "answers": load.statuses,
        "broken_connections": load.broken_connections,
        "waiting_at_once_mib": BURST_SENDERS * len(bodies.next()) / 2**20,
        "peak_rss_mib": peak,
    }


async def fill(service: Service, figures: Figures, records: int) -> tuple[str, str]:
    """Store until there are so many; a trace id and a prediction id that are there."""
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        known = ("", "")
        while not known[0] or figures.stored < records:
            lines = lines_of(5_000, datetime.now(UTC) - timedelta(seconds=5))
            answer = await client.post("/logs", content=ndjson(lines), headers={"Content-Type": "application/x-ndjson"})
            answer.raise_for_status()
            figures.stored += len(lines)
            traced = next(line for line in lines if "trace.id" in line)
            known = known if known[0] else (traced["trace.id"], traced["prediction_id"])
    return known


async def measure_reports(service: Service, figures: Figures, known: tuple[str, str]) -> None:
    """Every filter; the first page and, where there is one, the hundredth."""
    trace_id, prediction_id = known
    asked = {
        "the newest": {},
        "one service": {"service": "dispatcher"},
        "a rare service": {"service": "bot"},
        "one level": {"level": "INFO"},
        "errors": {"level": "ERROR"},
        "warnings or worse": {"min_level": "WARNING"},
        "errors of a rare service": {"service": "bot", "level": "ERROR"},
        "one instance": {"instance": "instance-3"},
        "an instance that is nowhere": {"instance": "nobody"},
        "a time range": {"since": _ago(30), "until": _ago(10)},
        "text": {"text": "PREDICTION_failed"},
        "text that is nowhere": {"text": "nothing says this"},
        "text in another script that is nowhere": {"text": "ничего"},
        "a prediction": {"prediction_id": prediction_id},
        "a prediction that is nowhere": {"prediction_id": str(uuid7())},
        "a trace": {"trace_id": trace_id},
        "a trace that is nowhere": {"trace_id": "f" * 32},
        "a thousand": {"limit": "1000"},
    }
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        for name, parameters in asked.items():
            figures.reports[name] = await _timed(client, "/reports/logs", parameters)
        page = await client.get("/reports/logs", params={"limit": "10000"})
        deep = page
        for _ in range(9):
            deep = await client.get(deep.links["next"]["url"])
        figures.reports["a deep page"] = await _timed(client, deep.links["next"]["url"].replace("10000", "100"), {})
        figures.reports["values of metrics"] = await _timed(client, "/reports/metrics", {})
        rounds, started, found = 0, time.perf_counter(), await client.get("/reports/logs", params={"text": "nowhere!"})
        while "next" in found.links:
            found = await client.get(found.links["next"]["url"])
            rounds += 1
        figures.reports["all of a text that is nowhere"] = {
            "calls": rounds + 1,
            "total_ms": (time.perf_counter() - started) * 1000,
        }
        started, count = time.perf_counter(), 0
        async with client.stream("GET", "/reports/logs.jsonl", params={"limit": "10000"}) as stream:
            async for line in stream.aiter_lines():
                count += bool(line)
        figures.reports["export of 10,000"] = {"records": count, "total_ms": (time.perf_counter() - started) * 1000}


async def _timed(client: httpx.AsyncClient, path: str, parameters: dict[str, str]) -> dict[str, Any]:
    times, answer = [], None
    for _ in range(7):
        started = time.perf_counter()
        answer = await client.get(path, params=parameters or None)
        times.append((time.perf_counter() - started) * 1000)
        answer.raise_for_status()
    assert answer is not None
    return {
        "median_ms": statistics.median(times),
        "max_ms": max(times),
        "found": len(answer.json()),
        "more": "next" in answer.links,
    }


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


async def measure(name: str, database_url: str, arguments: argparse.Namespace) -> Figures:
    """All of it, on one database."""
    figures = Figures(name)
    with tempfile.TemporaryDirectory() as folder:
        url = database_url or f"sqlite:///{folder}/monitoring.db"
        async with running(Path(folder), url):
            # Makes the tables: what is timed is the start after that.
            pass
        async with running(Path(folder), url) as (service, figures.ready_s):
            figures.idle_rss_mib = service.rss_mib()
            for step, work in _steps(service, figures, arguments):
                console.print(f"{name}: {step}")
                await work()
    return figures


def _steps(service: Service, figures: Figures, arguments: argparse.Namespace) -> list[tuple[str, Callable[[], Any]]]:
    async def report() -> None:
        known = await fill(service, figures, arguments.records)
        await measure_reports(service, figures, known)

    return [
        ("ingestion", lambda: measure_ingestion(service, figures, arguments.seconds)),
        ("burst", lambda: measure_burst(service, figures, arguments.seconds)),
        (f"reports over {arguments.records:,} records and more", report),
    ]


def show(found: list[Figures]) -> None:
    """Tables for people."""
    for figures in found:
        print(
            f"\n{figures.database}: ready after {figures.ready_s:.2f} s, {figures.idle_rss_mib:.0f} MiB; "
            f"this machine parses {figures.parsing_per_s:,.0f} such records a second"
        )
        _table("ingestion", figures.ingestion)
        print("burst:", json.dumps(figures.burst))
        print(f"{figures.stored:,} records stored")
        _table("report", figures.reports)


def _table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table(title, *columns)
    for name, row in rows.items():
        table.add_row(name, *(_cell(row.get(column, "")) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"], help="sqlite, postgresql")
    parser.add_argument("--records", type=int, default=1_000_000, help="how many there are when reports are asked for")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each kind of ingestion lasts")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    found = []
    for name in arguments.databases:
        if name == "sqlite":
            found.append(await measure(name, "", arguments))
        else:
            async with private_database(DATABASE_URL) as url:
                found.append(await measure(name, url, arguments))
    if arguments.json:
        print(json.dumps([vars(figures) for figures in found], indent=2))
    else:
        show(found)


if __name__ == "__main__":
    uvloop.run(main())
