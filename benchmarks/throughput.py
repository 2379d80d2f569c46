"""The whole path, from HTTP request to settled prediction, on each pair of backends, beside its limits and its peers.

    python benchmarks/throughput.py --seconds 60
    python benchmarks/throughput.py --pairs embedded --seconds 10 --no-peers --no-limits

Everything runs on this machine, the load included, one after the other; compare figures of one run with one another and
with nothing else. Each pair runs twice: on a new database, and on one with `--history` predictions behind it (0 leaves
that out); `history.py` compares the two in turns, and after a minute at full load.
The first pair, the peers and the limits need PostgreSQL and RabbitMQ (BENCHMARK_DATABASE_URL, BENCHMARK_BROKER_URL).
"""

import argparse
import json
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from benchmarks import history, limits  # noqa: E402
from benchmarks.peers.run import measure as measure_peer  # noqa: E402
from benchmarks.way import running_way  # noqa: E402
from foretell.broker.connect import connect  # noqa: E402
from foretell.contracts import queues  # noqa: E402

PEERS = ("celery", "faststream")

console = Console(stderr=True)


async def measure_pair(kind: str, *, rows: int, seconds: float, workers: int) -> dict[str, Any]:
    """Throughput with 64 and 256 clients, latency with 1 and with 16, on one pair of backends with `rows` behind it."""
    async with AsyncExitStack() as stack:
        database_url = None
        if rows:
            database_url = await stack.enter_async_context(history.new_database(kind))
            await history.fill(database_url, rows)
        way = await stack.enter_async_context(running_way(kind, workers=workers, database_url=database_url))
        measured = way.measured
        pair = f"{kind}, {rows:,} behind" if rows else kind
        report: dict[str, Any] = {"pair": pair, "throughput": [], "latency": []}
        report["latency"].append(asdict(await measured.latency(clients=1, seconds=seconds / 6)))
        report["latency"].append(asdict(await measured.latency(clients=16, seconds=seconds / 6, per_second=700)))
        for clients, share in ((64, 1.0), (256, 0.5)):
            console.print(f"{pair}: {clients} clients for {seconds * share:g} s")
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
        ours = next(
            (p["throughput"][0]["settled_per_s"] for p in report["pairs"] if p["pair"].startswith("servers")), None
        )
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
    parser.add_argument("--history", type=int, default=1_000_000, help="predictions behind it (default 1,000,000)")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-limits", action="store_true")
    parser.add_argument("--json", type=Path, help="write everything there, too")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"pairs": [], "peers": {}, "limits": {}}
    for kind in arguments.pairs:
        for rows in (0, arguments.history) if arguments.history else (0,):
            report["pairs"].append(
                await measure_pair(kind, rows=rows, seconds=arguments.seconds, workers=arguments.workers)
            )
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
