"""How far each part goes: a simulation, checked against what is measured here, and arithmetic beyond.

    python benchmarks/scaling.py --measure costs.json      # a minute or two, on a PostgreSQL and a RabbitMQ of its own
    python benchmarks/scaling.py --costs costs.json        # check and extrapolate from what was measured then
    python benchmarks/scaling.py                           # the same from the costs in scaling_costs.json

The costs come from two runs, with one client and with the most. Those in between were not used for them: they are what
the simulation is checked against.
"""

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))

from tests.services_database import PrivatePostgresql, postgresql_programs  # noqa: E402
from tests.services_rabbitmq import PrivateRabbitMQ, rabbitmq_programs  # noqa: E402
from tests.system import FLIGHT, System, running_system  # noqa: E402

from benchmarks.scaling_model import PARTS, Cost, Layout, Outcome, Simulation  # noqa: E402
from foretell.domain.predictions import history  # noqa: E402
from foretell.kit.database import Database  # noqa: E402
from foretell.local.measuring import Measured  # noqa: E402

KEPT = Path(__file__).with_name("scaling_costs.json")
CLIENTS = (1, 4, 16, 64, 256)
RATES = (10, 1_000, 100_000)
#: How busy a process or a core should be at most: beyond it, waiting grows faster than work.
BUSY = 0.6
#: Of how many cores of one server PostgreSQL makes good use; an assumption, to be measured where it matters.
POSTGRESQL_CORES = 32
#: What it writes to its log, and a standby receives, at most, in bytes a second; an assumption, too.
POSTGRESQL_WAL = 100e6
_BATCH_OF = {
    "load": "intake",
    "app": "intake",
    "postgresql": "intake",
    "rabbitmq": "worker",
    "worker": "worker",
    "dispatcher": "settlement",
}

console = Console(width=110)


@dataclass(frozen=True)
class Run:
    """What was measured with so many clients."""

    clients: int
    accepted_per_s: float
    settled_per_s: float
    p50_ms: float
    cpu_us: dict[str, float]
    wal_bytes: float


def _listener(port: int) -> int:
    """The process that listens there."""
    found = (each.pid for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr.port == port)
    return next(pid for pid in found if pid)


async def measure(seconds: float) -> list[Run]:
    """Measure the whole path with each number of clients, on servers of its own, everything on this machine."""
    database, broker = PrivatePostgresql(postgresql_programs()), PrivateRabbitMQ(rabbitmq_programs())
    with tempfile.TemporaryDirectory(prefix="foretell-scaling-") as folder:
        try:
            await asyncio.to_thread(database.start)
            await asyncio.to_thread(broker.start)
            urls = {"database_url": database.url, "broker_url": broker.url}
            async with running_system(Path(folder), **urls, workers=3) as system:
                servers = {"postgresql": _listener(database.port), "rabbitmq": _listener(broker.port)}
                return await _measure(system, servers, seconds)
        finally:
            broker.remove()
            database.remove()


async def _measure(system: System, servers: dict[str, int], seconds: float) -> list[Run]:
    user_id, token = await system.new_user(credits=1_000_000_000)
    database = Database(system.database_url, statement_timeout_s=60)

    async def count_queued() -> int:
        async with database.snapshot() as connection:
            return await history.count_queued(connection, user_id)

    pids = {running.instance: running.process.pid for running in system.alive()} | servers | {"load": os.getpid()}
    measured = Measured(system.url, token, {"model": "flight-delay", "input": FLIGHT}, count_queued, pids)
    connection = await asyncpg.connect(system.database_url)
    try:
        await measured.warm_up()
        await asyncio.sleep(2)
        # What they do whether anybody asks or not is no cost of a prediction.
        idle, begun = _used_s(pids), time.monotonic()
        await asyncio.sleep(seconds)
        idle_us = {part: 1e6 * (used - idle[part]) / (time.monotonic() - begun) for part, used in _used_s(pids).items()}
        console.print({part: f"{used / 1e4:.1f} % at rest" for part, used in idle_us.items()})
        runs = []
        for clients in CLIENTS:
            before = await connection.fetchval("SELECT pg_current_wal_lsn()")
            used, begun = _used_s(pids), time.monotonic()
            found = await measured.throughput(clients=clients, seconds=seconds)
            duration = time.monotonic() - begun
            written = await connection.fetchval("SELECT pg_current_wal_lsn() - $1::pg_lsn", before)
            accepted = found.accepted_per_s * found.seconds
            cpu_us = {
                part: max((1e6 * (now - used[part]) - idle_us[part] * duration) / accepted, 1.0)
                for part, now in _used_s(pids).items()
            }
            run = Run(
                clients, found.accepted_per_s, found.settled_per_s, found.p50_ms, cpu_us, float(written) / accepted
            )
            console.print(f"{clients} clients: {found.accepted_per_s:,.0f}/s, {sum(cpu_us.values()):.0f} us")
            runs.append(run)
        return runs
    finally:
        await connection.close()
        await database.close()


def _used_s(pids: dict[str, int]) -> dict[str, float]:
    """Processor time of each part up to now."""
    used = dict.fromkeys(PARTS, 0.0)
    for name, pid in pids.items():
        process = psutil.Process(pid)
        # PostgreSQL works in children of its own; ours would be counted twice.
        for member in [process] if name == "load" else [process, *process.children()]:
            with suppress(psutil.NoSuchProcess):
                spent = member.cpu_times()
                used[name.partition("-")[0]] += spent.user + spent.system
    return used


def costs_of(runs: list[Run]) -> dict[str, Cost]:
    """Costs of a batch and of a prediction in it, from the first run and the last one."""
    few, many = runs[0], runs[-1]
    batches = dict.fromkeys(_BATCH_OF.values(), float(many.clients) / 4)
    costs: dict[str, Cost] = {}
    # How large the batches of the last run were nobody measured: the simulation itself says it.
    for _ in range(12):
        for part in PARTS:
            alone, shared = few.cpu_us[part] / 1e6, many.cpu_us[part] / 1e6
            size = max(batches[_BATCH_OF[part]], 1.5)
            each = max((shared - alone / size) / (1 - 1 / size), 0.05 * shared)
            costs[part] = Cost(max(alone - each, 0.0), each)
        found = simulate(costs, many, runs).batch
        batches = {name: (size + found[name]) / 2 for name, size in batches.items()}
    return costs


def slowed(costs: dict[str, Cost], runs: list[Run]) -> dict[str, Cost]:
    """The costs in time on the clock: a machine that is shared gives us a part of its cores only."""
    many = runs[-1]
    cores = many.accepted_per_s * sum(many.cpu_us.values()) / 1e6
    factor = max(2 / cores, 1.0)
    return {name: Cost(cost.per_batch_s * factor, cost.per_prediction_s * factor) for name, cost in costs.items()}


def simulate(costs: dict[str, Cost], run: Run, runs: list[Run]) -> Outcome:
    """The run as the simulation has it, on two cores."""
    seconds = 2.0 if run.clients > 1 else 4.0
    return Simulation(slowed(costs, runs), Layout(cores=2)).closed(run.clients, seconds)


def check(costs: dict[str, Cost], runs: list[Run]) -> None:
    """Print what was measured beside what the simulation says."""
    table = Table(title="Measured, and simulated (the first and the last run gave the costs)", title_justify="left")
    for column in ("clients", "accepted/s", "simulated", "ratio", "p50 ms", "simulated", "CPU us", "simulated"):
        table.add_column(column, justify="right")
    factor = slowed(costs, runs)["load"].per_prediction_s / costs["load"].per_prediction_s
    for run in runs:
        found = simulate(costs, run, runs)
        table.add_row(
            str(run.clients), f"{run.accepted_per_s:,.0f}", f"{found.accepted_per_s:,.0f}",
            f"{found.accepted_per_s / run.accepted_per_s:.2f}", f"{run.p50_ms:.1f}", f"{found.p50_ms:.1f}",
            f"{sum(run.cpu_us.values()):.0f}", f"{sum(found.cpu_us.values()) / factor:.0f}",
        )  # fmt: skip
    console.print(table)
    parts = Table(title="Costs: processor time in us", title_justify="left")
    for column in ("part", "a batch", "each prediction in it", "measured alone", "measured with most clients"):
        parts.add_column(column, justify="left" if column == "part" else "right")
    for name, cost in costs.items():
        parts.add_row(
            name, f"{cost.per_batch_s * 1e6:.0f}", f"{cost.per_prediction_s * 1e6:.0f}",
            f"{runs[0].cpu_us[name]:.0f}", f"{runs[-1].cpu_us[name]:.0f}",
        )  # fmt: skip
    console.print(parts)


def grown(costs: dict[str, Cost], layout: Layout, per_second: float) -> tuple[Layout, Outcome]:
    """The layout with so many more workers and dispatchers that nothing falls behind.

    More apps send smaller envelopes, and each of these costs a worker about the same, however little is in it.
    """
    while True:
        found = Simulation(costs, layout).open(per_second, min(20.0, max(1.5, 2_000 / per_second)))
        if found.settled_per_s > 0.93 * found.accepted_per_s:
            return layout, found
        busy = {
            "workers": found.cpu_us["worker"] / layout.workers,
            "dispatchers": found.cpu_us["dispatcher"] / layout.dispatchers,
            "rabbitmq": found.cpu_us["rabbitmq"] / layout.rabbitmq,
        }
        name = max(busy, key=lambda part: busy[part])
        layout = replace(layout, **{name: getattr(layout, name) + 1})


def beyond(costs: dict[str, Cost], runs: list[Run], row_bytes: float) -> None:
    """Print what it takes for rates that this machine does not reach: arithmetic, and a simulation of one shard."""
    table = Table(title="Beyond: arithmetic, and one shard simulated, each process on a core of its own")
    for column in ("a second", "shards", "apps", "workers", "dispatchers", "PostgreSQL cores", "RabbitMQ cores",
                   "WAL MB/s", "GB a day", "ms to 202", "ms to settled"):  # fmt: skip
        table.add_column(column, justify="right")
    full = runs[-1]
    for rate in RATES:
        wal = rate * full.wal_bytes
        shards = max(
            math.ceil(rate * full.cpu_us["postgresql"] / 1e6 / (POSTGRESQL_CORES * BUSY)),
            math.ceil(wal / POSTGRESQL_WAL),
            # One process leads a queue.
            math.ceil(rate * full.cpu_us["rabbitmq"] / 1e6 / BUSY),
        )
        share = rate / shards
        # As measured with full batches: who is busier has fuller ones.
        wanted = {name: math.ceil(share * used / 1e6 / BUSY) for name, used in full.cpu_us.items()}
        layout = Layout(
            apps=wanted["app"], workers=wanted["worker"], dispatchers=wanted["dispatcher"],
            postgresql=max(wanted["postgresql"], 4), rabbitmq=max(wanted["rabbitmq"], 2),
        )  # fmt: skip
        layout, found = grown(costs, layout, share)
        processes = (f"{shards * count:,}" for count in (layout.apps, layout.workers, layout.dispatchers))
        table.add_row(
            f"{rate:,}", str(shards), *processes,
            f"{rate * found.cpu_us['postgresql'] / 1e6:.1f}", f"{rate * found.cpu_us['rabbitmq'] / 1e6:.1f}",
            f"{wal / 1e6:,.2f}", f"{rate * row_bytes * 86_400 / 1e9:,.1f}",
            f"{found.p50_ms:.1f}", f"{found.settled_p50_ms:.1f}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Measure, or take what was measured; check; extrapolate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure here and now, and write the costs there")
    parser.add_argument("--costs", type=Path, default=KEPT, help="what was measured before")
    parser.add_argument("--seconds", type=float, default=10, help="of each measured run")
    parser.add_argument("--row-bytes", type=float, default=900, help="what a settled prediction takes on disk")
    arguments = parser.parse_args()
    if arguments.measure:
        measured: list[dict[str, Any]] = [asdict(run) for run in asyncio.run(measure(arguments.seconds))]
        arguments.measure.write_text(json.dumps(measured, indent=1) + "\n")
        arguments.costs = arguments.measure
    runs = [Run(**run) for run in json.loads(arguments.costs.read_text())]
    costs = costs_of(runs)
    check(costs, runs)
    beyond(costs, runs, arguments.row_bytes)


if __name__ == "__main__":
    main()
