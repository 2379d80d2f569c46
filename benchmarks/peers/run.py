"""Measures a peer: the flight-delay prediction through RabbitMQ, with its result stored in PostgreSQL.

    python benchmarks/peers/run.py [celery|faststream|all] --seconds 20 --clients 64 --json

Ends with an error if a task is left over: without its result, or still in the queue.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import asyncpg
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from benchmarks import surroundings  # noqa: E402
from benchmarks.peers import environments  # noqa: E402
from benchmarks.peers.processes import Member, PeerFailed, Submitter, family_of, running  # noqa: E402

MODEL = ROOT / "src" / "foretell" / "models" / "flight_delay" / "model.onnx"

#: On a single node a durable classic queue keeps the same promise as a quorum queue: confirmed means on the disk.
QUEUE_TYPE = "classic"
#: Tasks that may be ahead of their results, for each client: enough that no worker is ever idle.
BACKLOG_PER_CLIENT = 8
#: Before the window opens: by then the backlog is full, and tasks are accepted as fast as results are stored.
WARM_UP_S = 3.0
LONE_TASKS = 500
#: Tasks before the first that counts: every worker process has then opened its connections.
WARM_UP_TASKS = 40
#: The lone tasks end after this long, however many they were.
LONE_S = 5.0
START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Peer:
    """How one peer is started, and where its results stand."""

    name: str
    #: Arguments of the environment's Python; `{queue}` stands for the queue's name.
    worker: tuple[str, ...]
    table: str
    #: The condition that a row of `table` is a result, not a failure.
    succeeded: str
    #: How many consumers its two worker processes register: Celery's parent consumes for all its children.
    consumers: int


PEERS = {
    "celery": Peer(
        name="celery",
        worker=(
            *("-m", "celery", "-A", "benchmarks.peers.celery_app.app", "worker", "--queues", "{queue}"),
            *("--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ),
        table="celery_taskmeta",
        succeeded="status = 'SUCCESS'",
        consumers=1,
    ),
    "faststream": Peer(
        name="faststream",
        worker=("-m", "faststream", "run", "benchmarks.peers.faststream_app.app:app", "--workers", "2"),
        table="results",
        succeeded="true",
        consumers=2,
    ),
}


class Results:
    """The table in which the peer stores its results."""

    def __init__(self, connection: Any, peer: Peer) -> None:
        self._connection = connection
        self._any = f"SELECT to_regclass('{peer.table}') IS NOT NULL"
        self._find = f"SELECT 1 FROM {peer.table} WHERE task_id = $1 AND {peer.succeeded}"
        self._count = f"SELECT count(*) FROM {peer.table}"
        self._census = f"SELECT count(*), count(DISTINCT task_id) FILTER (WHERE {peer.succeeded}) FROM {peer.table}"

    async def any(self) -> bool:
        """Whether there is a result yet, or even a table for it."""
        return bool(await self._connection.fetchval(self._any)) and await self.count() > 0

    async def wait_for(self, task_id: str, timeout_s: float) -> float:
        """The monotonic time at which the result could be read."""
        async with asyncio.timeout(timeout_s):
            # Asked again and again, alike for every peer: none of them tells that a result is there.
            while await self._connection.fetchval(self._find, task_id) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
        return time.monotonic()

    async def count(self) -> int:
        """How many results are stored."""
        return int(await self._connection.fetchval(self._count))

    async def census(self) -> tuple[int, int]:
        """How many rows there are, and of how many tasks with a prediction."""
        rows, succeeded = await self._connection.fetchrow(self._census)
        return int(rows), int(succeeded)


async def lone_latency(submitter: Submitter, results: Results) -> dict[str, float]:
    """Submit one task after the other and see when its result can be read; p50 and p99 in milliseconds."""
    latencies_ms: list[float] = []
    end = time.monotonic() + LONE_S
    while len(latencies_ms) < WARM_UP_TASKS + LONE_TASKS and time.monotonic() < end:
        task_id = str(uuid.uuid4())
        submitter.tell("one", task_id)
        read_at = await results.wait_for(task_id, 10.0)
        latencies_ms.append((read_at - float(await submitter.expect("one", 10.0))) * 1000)
    counted = latencies_ms[WARM_UP_TASKS:]
    if len(counted) < 2:
        raise PeerFailed(f"only {len(latencies_ms)} lone tasks ended within {LONE_S:.0f} s")
    cuts = statistics.quantiles(counted, n=100, method="inclusive")
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2), "tasks": len(counted)}


async def sustained(
    submitter: Submitter, results: Results, family: list[Member], *, seconds: float, clients: int
) -> dict[str, Any]:
    """Keep the queue busy for `seconds` after a warm-up; rates and processor time of that window."""
    counted = await results.count()
    start = time.monotonic()
    submitter.tell("start", clients, clients * BACKLOG_PER_CLIENT)
    opened: tuple[float, int, int, list[float]] | None = None
    while True:
        await asyncio.sleep(0.05)
        stored = await results.count()
        submitter.tell("stored", stored - counted)
        counted = stored
        accepted = int(await submitter.expect("accepted", 30.0))
        now = time.monotonic()
        if opened is None and now - start >= WARM_UP_S:
            opened = (now, accepted, stored, [member.cpu_s() for member in family])
        elif opened is not None and now - opened[0] >= seconds:
            break
    elapsed_s = now - opened[0]
    cpu_s = [member.cpu_s() - was for member, was in zip(family, opened[3], strict=True)]
    processes = [
        {
            "role": member.role,
            "pid": member.process.pid,
            "cpu_s": round(used_s, 2),
            "rss_mb": round(member.process.memory_info().rss / 2**20, 1),
        }
        for member, used_s in zip(family, cpu_s, strict=True)
    ]
    return {
        "window_s": round(elapsed_s, 2),
        "accepted_per_s": round((accepted - opened[1]) / elapsed_s, 1),
        "stored_per_s": round((stored - opened[2]) / elapsed_s, 1),
        "cpu_us_per_task": round(sum(cpu_s) / max(1, stored - opened[2]) * 1e6),
        "processes": processes,
    }


async def drain(submitter: Submitter, results: Results, before: int) -> int:
    """Stop submitting and wait for every result. Returns how many tasks there were. Raises `PeerFailed`."""
    submitter.tell("stop")
    expected = before + int(await submitter.expect("accepted", 30.0))
    end = time.monotonic() + DRAIN_TIMEOUT_S
    while await results.count() < expected and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    rows, succeeded = await results.census()
    if rows != expected or succeeded != expected:
        raise PeerFailed(f"{expected} tasks were accepted; there are {rows} rows, {succeeded} with a prediction")
    return expected


async def until_ready(site: "Site", worker: asyncio.subprocess.Process, submitter: Submitter, results: Results) -> None:
    """Wait until the workers consume and have stored a first result. Raises `PeerFailed`."""
    await submitter.expect("ready", START_TIMEOUT_S)
    end = time.monotonic() + START_TIMEOUT_S
    submitted = False
    while not await results.any():
        if worker.returncode is not None:
            raise PeerFailed(f"the worker ended with status {worker.returncode}")
        if time.monotonic() > end:
            raise PeerFailed(f"the workers stored no result within {START_TIMEOUT_S:.0f} s")
        if not submitted and (await surroundings.depth(site.broker_url, site.queue)).consumers >= site.peer.consumers:
            submitter.tell("one", uuid.uuid4())
            await submitter.expect("one", 10.0)
            submitted = True
        await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Site:
    """Where one measurement takes place."""

    peer: Peer
    python: Path
    model: Path
    queue: str
    queue_type: str
    database_url: str
    broker_url: str
    clients: int

    @property
    def environment(self) -> dict[str, str]:
        """What the peer's processes are told."""
        return os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PEER_BROKER_URL": self.broker_url,
            "PEER_DATABASE_URL": self.database_url,
            "PEER_QUEUE": self.queue,
            "PEER_QUEUE_TYPE": self.queue_type,
            "PEER_MODEL": str(self.model),
            "PEER_CLIENTS": str(self.clients),
        }


async def measure_at(site: Site, log: IO[bytes], seconds: float) -> dict[str, Any]:
    """Start the peer's processes, measure them and end them. Raises `PeerFailed` if a task is left over."""
    folder = f"{site.peer.name}_app"
    connection = await asyncpg.connect(site.database_url)
    try:
        schema = environments.HERE / folder / "schema.sql"
        if schema.exists():
            await connection.execute(schema.read_text())
        results = Results(connection, site.peer)
        work = [str(site.python), *(word.format(queue=site.queue) for word in site.peer.worker)]
        submit = [str(site.python), "-m", f"benchmarks.peers.{folder}.submit"]
        async with (
            running(work, site.environment, log) as worker,
            running(submit, site.environment, log, pipes=True) as process,
        ):
            submitter = Submitter(process)
            await until_ready(site, worker, submitter, results)
            lone_ms = await lone_latency(submitter, results)
            family = family_of("worker", worker) + family_of("submitter", process)
            before = await results.count()
            rates = await sustained(submitter, results, family, seconds=seconds, clients=site.clients)
            tasks = await drain(submitter, results, before)
    finally:
        await connection.close()
    left_over = (await surroundings.depth(site.broker_url, site.queue)).ready
    if left_over:
        raise PeerFailed(f"every result is stored, and yet {left_over} messages are left in the queue")
    return {**rates, "lone_ms": lone_ms, "tasks": tasks, "left_over": left_over}


async def measure(
    name: str,
    *,
    seconds: float = 20.0,
    clients: int = 64,
    model: Path = MODEL,
    queue_type: str = QUEUE_TYPE,
    database_url: str = surroundings.DATABASE_URL,
    broker_url: str = surroundings.BROKER_URL,
) -> dict[str, Any]:
    """Measure the peer `name` in a database and a queue of its own, for `seconds` after a warm-up of a few more.

    Rates are tasks a second, `lone_ms` milliseconds, `cpu_s` and `rss_mb` of each process those of the window.
    Raises `PeerFailed`.
    """
    if not await asyncio.to_thread(model.exists):
        raise PeerFailed(f"there is no model at {model}: train it first, or name another with --model")
    python = await asyncio.to_thread(environments.python_of, name)
    machine = await surroundings.machine(database_url, broker_url)
    # With a quorum queue Celery declares dozens of queues for delayed tasks, under names that it doesn't let us choose.
    broker = surroundings.private_vhost if queue_type == "quorum" else nullcontext
    with tempfile.NamedTemporaryFile(prefix=f"peer-{name}-", suffix=".log") as log:
        async with (
            broker(broker_url) as vhost_url,
            surroundings.private_queue(vhost_url) as queue,
            surroundings.private_database(database_url) as database,
        ):
            site = Site(PEERS[name], python, model, queue, queue_type, database, vhost_url, clients)
            try:
                measured = await measure_at(site, log, seconds)
            except (PeerFailed, TimeoutError) as error:
                raise PeerFailed(
                    f"{name}: {str(error) or 'no answer in time'}; its log ends:\n{tail(log.name)}"
                ) from error
    return {
        "kind": "peer",
        "name": name,
        "versions": environments.pins_of(name),
        "queue_type": queue_type,
        "clients": clients,
        **measured,
        "machine": machine,
    }


def tail(path: str, lines: int = 20) -> str:
    """The end of a log."""
    return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])


def measure_peer(name: str, seconds: float = 20.0, clients: int = 64, **options: Any) -> dict[str, Any]:
    """`measure` for callers without an event loop; within one, await `measure`."""
    return asyncio.run(measure(name, seconds=seconds, clients=clients, **options))


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print the runs as tables."""
    console = Console()
    table = Table(title="Tasks through RabbitMQ with results in PostgreSQL, two worker processes")
    for heading in (
        "peer",
        "queue",
        "accepted a second",
        "stored a second",
        "lone p50 ms",
        "lone p99 ms",
        "CPU us a task",
    ):
        table.add_column(heading, justify="left" if heading in ("peer", "queue") else "right")
    processes = Table(title="Their processes, in that window")
    for heading in ("peer", "role", "CPU s", "RSS MB"):
        processes.add_column(heading, justify="left" if heading in ("peer", "role") else "right")
    for run in runs:
        lone = run["lone_ms"]
        figures = (run["accepted_per_s"], run["stored_per_s"], lone["p50"], lone["p99"], run["cpu_us_per_task"])
        table.add_row(run["name"], run["queue_type"], *map(str, figures))
        for process in run["processes"]:
            processes.add_row(run["name"], process["role"], str(process["cpu_s"]), str(process["rss_mb"]))
    console.print(table)
    console.print(processes)


def main() -> int:
    """Measure one peer or all of them, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peer", nargs="?", default="all", choices=[*PEERS, "all"])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the measured window is (20)")
    parser.add_argument("--clients", type=int, default=64, help="how many clients submit at once (64)")
    parser.add_argument("--model", type=Path, default=MODEL, help="another model.onnx, its model.toml beside it")
    parser.add_argument(
        "--queue-type",
        choices=("classic", "quorum"),
        default=QUEUE_TYPE,
        help="quorum needs rabbitmqctl, for a virtual host of its own (classic)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line, instead of tables")
    options = parser.parse_args()
    # So that a terminated driver ends its own processes too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    runs = []
    for name in PEERS if options.peer == "all" else [options.peer]:
        try:
            run = measure_peer(
                name,
                options.seconds,
                options.clients,
                model=options.model.resolve(),
                queue_type=options.queue_type,
            )
        except PeerFailed as error:
            print(error, file=sys.stderr)
            return 1
        if options.json:
            print(json.dumps(run), flush=True)
        runs.append(run)
    if not options.json:
        show(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
