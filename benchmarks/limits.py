"""What lies under every figure of this project: how much the database, the broker, the disk and the model can do.

    python benchmarks/limits.py --seconds 1 --runs 3 --json

Each limit is measured alone, by one process, with nothing of ours in between.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from benchmarks import surroundings  # noqa: E402
from benchmarks.peers import flight  # noqa: E402

#: What each limit says, in the order of the table. All are per second.
TITLES = {
    "postgresql_commits_1_connection_per_s": "PostgreSQL: commits of one row, 1 connection",
    "postgresql_commits_16_connections_per_s": "PostgreSQL: commits of one row, 16 connections",
    "postgresql_rows_unnest_100_per_s": "PostgreSQL: rows, 100 a commit by unnest, 1 connection",
    "rabbitmq_publishes_1_in_flight_per_s": "RabbitMQ: confirmed publishes to a quorum queue, 1 in flight",
    "rabbitmq_publishes_256_in_flight_per_s": "RabbitMQ: the same, 256 in flight",
    "rabbitmq_round_trips_256_in_flight_per_s": "RabbitMQ: publish, confirm, consume and acknowledge, 256 in flight",
    "disk_fsyncs_per_s": "Disk: 4 KiB appended and fsync",
    "sqlite_commits_full_per_s": "SQLite: commits of one row, WAL, synchronous=FULL",
    "sqlite_commits_normal_per_s": "SQLite: the same, synchronous=NORMAL (may lose the last ones in a power cut)",
    "onnx_calls_1_row_per_s": "onnxruntime: calls of the flight-delay model, 1 row",
    "onnx_calls_64_rows_per_s": "onnxruntime: the same, 64 rows",
}
#: Those that do one thing after the other, so that the inverse is the time of one.
ONE_AT_A_TIME = frozenset(TITLES) - {
    "postgresql_commits_16_connections_per_s",
    "postgresql_rows_unnest_100_per_s",
    "rabbitmq_publishes_256_in_flight_per_s",
    "rabbitmq_round_trips_256_in_flight_per_s",
}

TABLE = "CREATE TABLE results (task_id uuid PRIMARY KEY, probability double precision NOT NULL)"
INSERT = "INSERT INTO results VALUES ($1, 0.25)"
INSERT_MANY = "INSERT INTO results SELECT * FROM unnest($1::uuid[], $2::double precision[])"
BODY = json.dumps(flight.sample(0)).encode()


async def repeat(work: Callable[[], Awaitable[object]], *, seconds: float) -> float:
    """Await `work` again and again. Returns how often a second."""
    done, start = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - start) < seconds:
        await work()
        done += 1
    return done / elapsed_s


async def repeat_at_once(works: Sequence[Callable[[], Awaitable[object]]], *, seconds: float) -> float:
    """Repeat all of `works` at the same time. Returns how often a second together."""
    return sum(await asyncio.gather(*(repeat(work, seconds=seconds) for work in works)))


def repeat_blocking(work: Callable[[], object], *, seconds: float) -> float:
    """Call `work` again and again. Returns how often a second."""
    done, start = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - start) < seconds:
        work()
        done += 1
    return done / elapsed_s


async def postgresql(admin_url: str, *, seconds: float) -> dict[str, float]:
    """Commits of one row on 1 and 16 connections; rows by `unnest`."""
    async with (
        surroundings.private_database(admin_url) as url,
        asyncpg.create_pool(url, min_size=16, max_size=16) as pool,
    ):
        await pool.execute(TABLE)
        connections = [await pool.acquire() for _ in range(16)]
        inserts = [(await connection.prepare(INSERT)).fetchval for connection in connections]
        many = (await connections[0].prepare(INSERT_MANY)).fetchval
        singles = [partial(_insert, insert) for insert in inserts]
        limits = {
            "postgresql_commits_1_connection_per_s": await repeat(singles[0], seconds=seconds),
            "postgresql_commits_16_connections_per_s": await repeat_at_once(singles, seconds=seconds),
            "postgresql_rows_unnest_100_per_s": 100
            * await repeat(lambda: many([uuid.uuid4() for _ in range(100)], [0.25] * 100), seconds=seconds),
        }
        for connection in connections:
            await pool.release(connection)
        return limits


async def _insert(insert: Callable[[uuid.UUID], Awaitable[object]]) -> None:
    await insert(uuid.uuid4())


async def rabbitmq(url: str, *, seconds: float) -> dict[str, float]:
    """Confirmed publishes of persistent messages to a quorum queue, and the whole way through it."""
    limits = {}
    for in_flight in (1, 256):
        async with surroundings.private_queue(url) as name, await aio_pika.connect(url) as connection:
            publish, _ = await _publisher(connection, name)
            limits[f"rabbitmq_publishes_{in_flight}_in_flight_per_s"] = await repeat_at_once(
                [publish] * in_flight, seconds=seconds
            )
    async with surroundings.private_queue(url) as name, await aio_pika.connect(url) as connection:
        limits["rabbitmq_round_trips_256_in_flight_per_s"] = await _round_trips(connection, name, seconds=seconds)
    return limits


async def _publisher(
    connection: aio_pika.abc.AbstractConnection, name: str
) -> tuple[Callable[[], Awaitable[object]], aio_pika.abc.AbstractQueue]:
    """A function that publishes one message and waits for its confirmation, and the queue where it goes."""
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
    exchange = channel.default_exchange

    async def publish() -> None:
        message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await exchange.publish(message, routing_key=name, mandatory=True)

    return publish, queue


async def _round_trips(connection: aio_pika.abc.AbstractConnection, name: str, *, seconds: float) -> float:
    """Messages a second that one connection publishes (256 at once), takes back (prefetch 256) and acknowledges."""
    publish, _ = await _publisher(connection, name)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=256)
    queue = await channel.get_queue(name)
    acknowledged = 0
    # No more than 256 are on their way from publish to acknowledgement, so none piles up in the queue.
    permits = asyncio.Semaphore(256)

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal acknowledged
        await message.ack()
        acknowledged += 1
        permits.release()

    async def publish_one() -> None:
        await permits.acquire()
        await publish()

    tag = await queue.consume(take)
    start = time.perf_counter()
    publishers = asyncio.create_task(repeat_at_once([publish_one] * 256, seconds=seconds))
    await asyncio.sleep(seconds)
    rate = acknowledged / (time.perf_counter() - start)
    await publishers
    await queue.cancel(tag)
    return rate


def disk(directory: Path, *, seconds: float) -> dict[str, float]:
    """Appends of 4 KiB, each followed by fsync."""
    block = os.urandom(4096)
    with tempfile.TemporaryFile(dir=directory) as file:

        def append() -> None:
            os.write(file.fileno(), block)
            os.fsync(file.fileno())

        return {"disk_fsyncs_per_s": repeat_blocking(append, seconds=seconds)}


def sqlite(directory: Path, *, seconds: float) -> dict[str, float]:
    """Commits of one row in write-ahead mode, with each commit on the disk and without."""
    limits = {}
    for synchronous in ("FULL", "NORMAL"):
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            connection = sqlite3.connect(Path(folder) / "limits.db", isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute("CREATE TABLE results (task_id BLOB PRIMARY KEY, probability REAL NOT NULL)")

            def insert(connection: sqlite3.Connection = connection) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO results VALUES (?, 0.25)", (uuid.uuid4().bytes,))
                connection.execute("COMMIT")

            limits[f"sqlite_commits_{synchronous.lower()}_per_s"] = repeat_blocking(insert, seconds=seconds)
            connection.close()
    return limits


def onnx(model: Path, *, seconds: float) -> dict[str, float]:
    """Calls of the flight-delay model on arrays that are ready; nothing while there is no model."""
    if not model.exists():
        return {}
    loaded = flight.FlightModel(model)
    limits = {}
    for rows, key in ((1, "onnx_calls_1_row_per_s"), (64, "onnx_calls_64_rows_per_s")):
        matrix = loaded.matrix([flight.sample(number) for number in range(rows)])
        limits[key] = repeat_blocking(partial(loaded.run, matrix), seconds=seconds)
    return limits


async def measure(
    *,
    seconds: float = 1.0,
    runs: int = 3,
    model: Path = flight.MODEL,
    directory: Path | None = None,
    database_url: str = surroundings.DATABASE_URL,
    broker_url: str = surroundings.BROKER_URL,
) -> dict[str, Any]:
    """Measure each limit for `seconds`, `runs` times over; the medians stand under `limits`, all in one a second.

    Takes about 11 times `seconds` times `runs`. `directory` says which disk is meant (the benchmarks' cache folder).
    A limit whose model does not exist is absent. Needs PostgreSQL and RabbitMQ.
    """
    place = directory or ROOT / "benchmarks" / ".cache"
    await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
    machine = await surroundings.machine(database_url, broker_url)
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        run = {
            **await postgresql(database_url, seconds=seconds),
            **await rabbitmq(broker_url, seconds=seconds),
            **await asyncio.to_thread(disk, place, seconds=seconds),
            **await asyncio.to_thread(sqlite, place, seconds=seconds),
            **await asyncio.to_thread(onnx, model, seconds=seconds),
        }
        for key, value in run.items():
            found.setdefault(key, []).append(value)
    limits = {key: round(statistics.median(found[key]), 1) for key in TITLES if key in found}
    return {"kind": "limits", "seconds": seconds, "runs": runs, "limits": limits, "machine": machine}


def show(measured: dict[str, Any]) -> None:
    """Print the limits as a table."""
    table = Table(title=f"Limits: medians of {measured['runs']} runs of {measured['seconds']:g} s")
    table.add_column("limit", overflow="fold")
    table.add_column("a second", justify="right", no_wrap=True)
    table.add_column("us each", justify="right", no_wrap=True)
    for key, per_s in measured["limits"].items():
        table.add_row(TITLES[key], f"{per_s:,.0f}", f"{1e6 / per_s:,.0f}" if key in ONE_AT_A_TIME else "")
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each limit is measured (1)")
    parser.add_argument("--runs", type=int, default=3, help="how often; the medians are shown (3)")
    parser.add_argument("--model", type=Path, default=flight.MODEL, help="another model.onnx, its model.toml beside it")
    parser.add_argument("--directory", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    measured = uvloop.run(
        measure(seconds=options.seconds, runs=options.runs, model=options.model, directory=options.directory)
    )
    if options.json:
        print(json.dumps(measured))
    else:
        show(measured)


if __name__ == "__main__":
    main()
