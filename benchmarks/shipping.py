"""What it costs a system to ship its logs and heartbeats: the whole path without and with it, in turns.

    python benchmarks/shipping.py --rounds 6 --seconds 10
    python benchmarks/shipping.py --pairs servers --receiver sink

Two systems run side by side, alike but for `FORETELL_MONITORING_URL`; they get the same load in turns, and the one that
is not asked stands still. Compare the two columns of one run and nothing else. With `--receiver monitoring`, the
monitoring service runs on this machine too (with less priority, as always), so that its work is in the throughput; with
`sink`, what receives throws everything away, so that what is left is what shipping costs the services themselves.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from tests.ports import free_port  # noqa: E402
from tests.service_process import running_service  # noqa: E402
from tests.system import System, running_system  # noqa: E402

from benchmarks import surroundings  # noqa: E402
from benchmarks.way import ORDER, private_prefix  # noqa: E402
from foretell.domain.predictions import history  # noqa: E402
from foretell.kit.database import Database  # noqa: E402
from foretell.local.measuring import Measured, Throughput  # noqa: E402

SERVICES = ("app", "dispatcher", "worker")
#: What a service counts of its shipping.
CPU_S, SHIPPED, DROPPED = (
    "foretell_shipping_cpu_seconds_total",
    "foretell_log_lines_shipped_total",
    "foretell_log_lines_dropped_total",
)

console = Console(stderr=True)


@dataclass
class Side:
    """One of the two systems, and what was measured of it."""

    system: System
    measured: Measured
    runs: list[Throughput] = field(default_factory=list)
    #: By service, in each run.
    cpu_us: list[dict[str, float]] = field(default_factory=list)
    shipping: dict[str, dict[str, float]] = field(default_factory=dict)

    async def run(self, *, clients: int, seconds: float) -> None:
        """Put the load on it once."""
        shipping, cpu_s = await self._shipping(), self._cpu_s()
        self.runs.append(await self.measured.throughput(clients=clients, seconds=seconds))
        accepted = accepted_of(self.runs[-1])
        self.cpu_us.append(
            {service: (used - cpu_s[service]) / accepted * 1e6 for service, used in self._cpu_s().items()}
        )
        for service, counts in (await self._shipping()).items():
            total = self.shipping.setdefault(service, dict.fromkeys(counts, 0.0))
            for name, count in counts.items():
                total[name] += count - shipping[service][name]

    def _cpu_s(self) -> dict[str, float]:
        used = dict.fromkeys(SERVICES, 0.0)
        for running in self.system.alive():
            times = psutil.Process(running.process.pid).cpu_times()
            used[running.service] += times.user + times.system
        return used

    async def _shipping(self) -> dict[str, dict[str, float]]:
        counts = {service: dict.fromkeys((CPU_S, SHIPPED, DROPPED), 0.0) for service in SERVICES}
        async with httpx.AsyncClient() as client:
            for running in self.system.alive():
                text = (await client.get(f"http://127.0.0.1:{running.port}/metrics")).text
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        if sample.name in counts[running.service]:
                            counts[running.service][sample.name] += sample.value
        return counts

    @property
    def accepted(self) -> float:
        """How many predictions were accepted in all runs."""
        return sum(accepted_of(run) for run in self.runs)


def accepted_of(run: Throughput) -> float:
    """How many predictions were accepted in a run."""
    return run.accepted_per_s * run.seconds


def cpu_of(off: Side, on: Side, services: Sequence[str]) -> tuple[float, float, float]:
    """CPU us per prediction of these services together, without and with shipping, and the ratio: medians of rounds."""
    rounds = [
        tuple(sum(cpu_us[service] for service in services) for cpu_us in turns)
        for turns in zip(off.cpu_us, on.cpu_us, strict=True)
    ]
    without, with_it = zip(*rounds, strict=True)
    return median(without), median(with_it), median(after / before for before, after in rounds)


@asynccontextmanager
async def running_side(kind: str, *, workers: int, url: str) -> AsyncIterator[Side]:
    """A system on its own database and broker that ships to `url`, or nowhere if that is empty."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-bench-")))
        if kind == "embedded":
            database_url, broker_url, prefix = f"sqlite:///{folder}/foretell.db", f"sqlite:///{folder}/broker.db", ""
        else:
            database_url = await stack.enter_async_context(surroundings.private_database(surroundings.DATABASE_URL))
            broker_url, prefix = surroundings.BROKER_URL, await stack.enter_async_context(private_prefix())
        system = await stack.enter_async_context(
            running_system(
                folder,
                database_url=database_url,
                broker_url=broker_url,
                broker_prefix=prefix,
                workers=workers,
                FORETELL_MONITORING_URL=url,
            )
        )
        user_id, token = await system.new_user(credits=1_000_000_000)
        database = Database(database_url, statement_timeout_s=60)
        stack.push_async_callback(database.close)

        async def count_queued() -> int:
            async with database.snapshot() as connection:
                return await history.count_queued(connection, user_id)

        yield Side(system, Measured(system.url, token, ORDER, count_queued, {}))


@contextmanager
def receiver(kind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Whoever takes what is shipped: its address and process id."""
    port = free_port()
    if kind == "monitoring":
        with running_service("monitoring", folder, FORETELL_PORT=str(port)) as service:
            yield service.url, service.process.pid
        return
    process = subprocess.Popen([sys.executable, __file__, "--sink", str(port)])
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


async def sink(port: int) -> None:
    """Take every post and throw it away."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                (length,) = (
                    int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
                )
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            writer.close()

    os.nice(10)
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


async def measure_pair(
    kind: str, *, receiver_kind: str, rounds: int, seconds: float, clients: int, workers: int
) -> dict[str, Any]:
    """Rounds of load on a system that does not ship and on one that does, in turns."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-bench-")))
        url, pid = stack.enter_context(receiver(receiver_kind, folder))
        off = await stack.enter_async_context(running_side(kind, workers=workers, url=""))
        on = await stack.enter_async_context(running_side(kind, workers=workers, url=url))
        for side in (off, on):
            await side.measured.warm_up()
        received = psutil.Process(pid)
        before = sum(received.cpu_times()[:2])
        for number in range(rounds):
            console.print(f"{kind}: round {number + 1} of {rounds}")
            # Who is first changes, since the machine may get faster or slower all the while.
            for side in (off, on) if number % 2 == 0 else (on, off):
                await side.run(clients=clients, seconds=seconds)
        ratios = [
            with_it.settled_per_s / without.settled_per_s for without, with_it in zip(off.runs, on.runs, strict=True)
        ]
        return {
            "pair": kind,
            "receiver": receiver_kind,
            "settled_per_s": [median(run.settled_per_s for run in side.runs) for side in (off, on)],
            "throughput_ratio": median(ratios),
            "ratios": ratios,
            "receiver_cpu_us": (sum(received.cpu_times()[:2]) - before) / on.accepted * 1e6,
            "cpu_us": cpu_of(off, on, SERVICES),
            "services": {
                service: {
                    "cpu_us": cpu_of(off, on, [service]),
                    "shipping_cpu_us": on.shipping[service][CPU_S] / on.accepted * 1e6,
                    "shipped": on.shipping[service][SHIPPED],
                    "dropped": on.shipping[service][DROPPED],
                }
                for service in SERVICES
            },
        }


def show(report: list[dict[str, Any]]) -> None:
    """Print the tables of a report."""
    output = Console(width=110)
    path = Table(title="Predictions settled a second, without and with shipping", title_justify="left")
    for column in ("backends", "receiver", "without", "with", "ratio (median)", "ratios of the rounds"):
        path.add_column(column, justify="left" if column in ("backends", "receiver") else "right")
    for pair in report:
        path.add_row(
            pair["pair"],
            pair["receiver"],
            *(f"{rate:,.0f}" for rate in pair["settled_per_s"]),
            f"{pair['throughput_ratio']:.3f}",
            " ".join(f"{ratio:.2f}" for ratio in sorted(pair["ratios"])),
        )
    output.print(path)
    use = Table(title="CPU us per prediction (medians of the rounds)", title_justify="left")
    for column in ("backends", "service", "without", "with", "ratio", "shipper's thread", "lines", "dropped"):
        use.add_column(column, justify="left" if column in ("backends", "service") else "right")
    for pair in report:
        for service, used in pair["services"].items():
            use.add_row(
                pair["pair"],
                service,
                *_cpu_cells(used["cpu_us"]),
                f"{used['shipping_cpu_us']:.2f}",
                f"{used['shipped']:,.0f}",
                f"{used['dropped']:,.0f}",
            )
        use.add_row(pair["pair"], "together", *_cpu_cells(pair["cpu_us"]), "", "", "")
        use.add_row(pair["pair"], f"({pair['receiver']})", "", f"{pair['receiver_cpu_us']:.1f}", "", "", "", "")
    output.print(use)


def _cpu_cells(cpu_us: tuple[float, float, float]) -> tuple[str, str, str]:
    without, with_it, ratio = cpu_us
    return f"{without:.1f}", f"{with_it:.1f}", f"{ratio:.3f}"


async def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="each of them once without and once with (default 6)")
    parser.add_argument("--seconds", type=float, default=10, help="of one run (default 10)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", nargs="+", choices=("servers", "embedded"), default=["servers", "embedded"])
    parser.add_argument("--receiver", choices=("monitoring", "sink"), default="monitoring")
    parser.add_argument("--json", type=Path, help="write everything there, too")
    parser.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sink:
        await sink(arguments.sink)
        return
    report = [
        await measure_pair(
            kind,
            receiver_kind=arguments.receiver,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            clients=arguments.clients,
            workers=arguments.workers,
        )
        for kind in arguments.pairs
    ]
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    uvloop.run(main())
