"""The whole path, from HTTP request to settled prediction, on each pair of backends, beside its limits and its peers.

    python benchmarks/throughput.py --seconds 60
    python benchmarks/throughput.py --pairs embedded --seconds 10 --no-peers --no-limits

Everything runs on this machine, the load included, one after the other; compare figures of one run with one another and
with nothing else. All start on a new database; `history.py` measures what ten million predictions behind it change.
The first pair, the peers and the limits need PostgreSQL and RabbitMQ (BENCHMARK_DATABASE_URL, BENCHMARK_BROKER_URL).
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aio_pika
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from tests.system import FLIGHT, System, running_system  # noqa: E402

from benchmarks import limits, surroundings  # noqa: E402
from benchmarks.peers.run import measure as measure_peer  # noqa: E402
from foretell.broker.connect import connect  # noqa: E402
from foretell.contracts import queues  # noqa: E402
from foretell.domain.predictions import history  # noqa: E402
from foretell.kit.clock import uuid7  # noqa: E402
from foretell.kit.database import Database  # noqa: E402
from foretell.local.measuring import Measured  # noqa: E402

ORDER = {"model": "flight-delay", "input": FLIGHT}
PEERS = ("celery", "faststream")

console = Console(stderr=True)


@asynccontextmanager
async def private_prefix() -> AsyncIterator[str]:
    """A prefix for queues in RabbitMQ, which are deleted afterwards."""
    prefix = f"bench-{uuid7().hex[-8:]}."
    try:
        yield prefix
    finally:
        async with await aio_pika.connect(surroundings.BROKER_URL) as connection:
            channel = await connection.channel()
            for queue in (queues.TASKS, queues.RESULTS):
                for name in (queue, queues.dead_queue(queue)):
                    await channel.queue_delete(prefix + name)


def servers_of(kind: str) -> dict[str, int]:
    """The server processes that the path also uses the CPU of."""
    if kind == "embedded":
        return {}
    found: dict[str, int] = {}
    for process in psutil.process_iter(["name", "ppid", "create_time"]):
        name = {"beam.smp": "rabbitmq", "postgres": "postgresql"}.get(process.info["name"])
        if name and (parent := psutil.Process(process.pid).parent()) and parent.name() != process.info["name"]:
            found.setdefault(name, process.pid)
    return found


@dataclass(frozen=True)
class Way:
    """A running system on one pair of backends, and a user who loads it."""

    system: System
    measured: Measured
    broker_url: str
    broker_prefix: str


@asynccontextmanager
async def running_way(kind: str, *, workers: int, database_url: str | None = None) -> AsyncIterator[Way]:
    """The whole system on a pair of backends, warmed up; on a new database unless one is given."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-bench-")))
        if kind == "embedded":
            broker_url, prefix = f"sqlite:///{folder}/broker.db", ""
            database_url = database_url or f"sqlite:///{folder}/foretell.db"
        else:
            broker_url, prefix = surroundings.BROKER_URL, await stack.enter_async_context(private_prefix())
            if database_url is None:
                database_url = await stack.enter_async_context(surroundings.private_database(surroundings.DATABASE_URL))
        system: System = await stack.enter_async_context(
            running_system(
                folder, database_url=database_url, broker_url=broker_url, broker_prefix=prefix, workers=workers
            )
        )
        user_id, token = await system.new_user(credits=1_000_000_000)
        database = Database(database_url, statement_timeout_s=60)
        stack.push_async_callback(database.close)

        async def count_queued() -> int:
            async with database.snapshot() as connection:
                return await history.count_queued(connection, user_id)

        processes = {running.instance: running.process.pid for running in system.alive()}
        processes |= servers_of(kind) | {"load": os.getpid()}
        measured = Measured(system.url, token, ORDER, count_queued, processes)
        await measured.warm_up()
        yield Way(system, measured, broker_url, prefix)


async def measure_pair(kind: str, *, seconds: float, workers: int) -> dict[str, Any]:
    """Throughput with 64 and 256 clients, latency with 1 and with 16, on one pair of backends."""
    async with running_way(kind, workers=workers) as way:
        measured = way.measured
        report: dict[str, Any] = {"pair": kind, "throughput": [], "latency": []}
        report["latency"].append(asdict(await measured.latency(clients=1, seconds=seconds / 6)))
        report["latency"].append(asdict(await measured.latency(clients=16, seconds=seconds / 6, per_second=700)))
        for clients, share in ((64, 1.0), (256, 0.5)):
            console.print(f"{kind}: {clients} clients for {seconds * share:g} s")
            report["throughput"].append(asdict(await measured.throughput(clients=clients, seconds=seconds * share)))
        await way.system.drain()
        report["audit_findings"] = len(await way.system.audit())
        broker = await connect(way.broker_url, name="benchmark", prefix=way.broker_prefix)
        try:
            report["messages_left"] = {
                name: (await broker.depth(name)).ready
                for queue in (queues.TASKS, queues.RESULTS)
                for name in (queue, queues.dead_queue(queue))
            }
        finally:
            await broker.close()
        return report


def show(report: dict[str, Any]) -> None:
    """Print the tables of a report."""
    output = Console(width=100)
    path = Table(title="One prediction, from HTTP request to settlement", title_justify="left")
    for column in (
        "backends",
        "clients",
        "accepted/s",
        "settled/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "left over",
        "audit",
    ):
        path.add_column(column, justify="left" if column == "backends" else "right")
    for pair in report["pairs"]:
        for run in pair["throughput"]:
            path.add_row(
                pair["pair"],
                str(run["clients"]),
                f"{run['accepted_per_s']:,.0f}",
                f"{run['settled_per_s']:,.0f}",
                *(f"{run[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
                str(run["left_over"]),
                "clean" if not pair["audit_findings"] else f"{pair['audit_findings']} findings",
            )
    output.print(path)
    waiting = Table(title="From the request to the result (Prefer: wait)", title_justify="left")
    for column in ("backends", "clients", "results/s", "p50 ms", "p95 ms", "p99 ms"):
        waiting.add_column(column, justify="left" if column == "backends" else "right")
    for pair in report["pairs"]:
        for run in pair["latency"]:
            values = (f"{run[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
            waiting.add_row(pair["pair"], str(run["clients"]), f"{run['per_s']:,.0f}", *values)
    output.print(waiting)
    use = Table(title="CPU per prediction (64 clients) and memory", title_justify="left")
    for column in ("backends", "process", "CPU us", "MiB"):
        use.add_column(column, justify="left" if column in ("backends", "process") else "right")
    for pair in report["pairs"]:
        for name, used in pair["throughput"][0]["processes"].items():
            use.add_row(pair["pair"], name, f"{used['cpu_us_per_prediction']:.0f}", f"{used['memory_mib']:.0f}")
    output.print(use)
    if report["peers"]:
        beside = Table(title="The same task on task queues (no HTTP, no accounts, no charging)", title_justify="left")
        for column in ("queue", "results stored/s", "ours, 64 clients, PostgreSQL + RabbitMQ"):
            beside.add_column(column, justify="left" if column == "queue" else "right")
        ours = next((p["throughput"][0]["settled_per_s"] for p in report["pairs"] if p["pair"] != "embedded"), None)
        for name, peer in report["peers"].items():
            stored = peer["stored_per_s"]
            beside.add_row(name, f"{stored:,.0f}", f"{ours / stored:.1f} times" if ours else "-")
        output.print(beside)
    if report["limits"]:
        limits.show(report["limits"])


async def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of the run with 64 clients (default 60)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--pairs", nargs="+", choices=("servers", "embedded"), default=["servers", "embedded"])
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-limits", action="store_true")
    parser.add_argument("--json", type=Path, help="write everything there, too")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"pairs": [], "peers": {}, "limits": {}}
    for kind in arguments.pairs:
        report["pairs"].append(await measure_pair(kind, seconds=arguments.seconds, workers=arguments.workers))
    if not arguments.no_peers:
        for name in PEERS:
            console.print(f"peer: {name}")
            report["peers"][name] = await measure_peer(name, seconds=arguments.seconds / 2, clients=64)
    if not arguments.no_limits:
        console.print("limits")
        report["limits"] = await limits.measure(seconds=2)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, default=str))


if __name__ == "__main__":
    uvloop.run(main())
