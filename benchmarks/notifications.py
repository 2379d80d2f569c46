"""What it costs to tell of every prediction by a webhook, how fast that is, and how many a second.

    python benchmarks/notifications.py --pairs embedded --rounds 3 --seconds 5
    python benchmarks/notifications.py --deliveries 3000 --endpoints 10

One system with two users who load it in turns: the one has a webhook, the other has none. The receiver is a process of
its own on this machine and answers at once; its work, and that of the load, is in the throughput. Compare figures of
one run with one another and with nothing else. Needs PostgreSQL and RabbitMQ for the pair `servers`
(BENCHMARK_DATABASE_URL, BENCHMARK_BROKER_URL).
"""

import argparse
import asyncio
import ipaddress
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, cast
from urllib.request import urlopen
from uuid import UUID

import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))
from tests.system import FLIGHT, free_port, running_system  # noqa: E402

from benchmarks import surroundings  # noqa: E402
from benchmarks.way import ORDER, private_prefix  # noqa: E402
from foretell.client.load import put_load, request  # noqa: E402
from foretell.domain.accounts import registration  # noqa: E402
from foretell.domain.migrations.run import migrate  # noqa: E402
from foretell.domain.notifications import endpoints, events  # noqa: E402
from foretell.domain.predictions import history  # noqa: E402
from foretell.domain.predictions.intake import Receipt, accept  # noqa: E402
from foretell.domain.predictions.opening import open_store  # noqa: E402
from foretell.domain.predictions.settlement import settle  # noqa: E402
from foretell.domain.predictions.store import Ending, Submission  # noqa: E402
from foretell.kit.addresses import Addresses  # noqa: E402
from foretell.kit.clock import now, uuid7  # noqa: E402
from foretell.kit.database import Database  # noqa: E402
from foretell.kit.outgoing import Outgoing  # noqa: E402
from foretell.local.measuring import Measured  # noqa: E402
from foretell.services.dispatcher.notifying.sender import Sender  # noqa: E402

ALLOWED = "127.0.0.0/8"
_OK = b"HTTP/1.1 204 No Content\r\n\r\n"

console = Console(stderr=True)


class Sink(asyncio.Protocol):
    """Takes every post, notes how old its event is, and throws it away; `GET` gives what was noted since the last."""

    lags_ms: list[float] = []  # noqa: RUF012 - all connections note in one list

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            if head.startswith(b"get"):
                said = json.dumps(Sink.lags_ms).encode()
                Sink.lags_ms.clear()
                self._buffer = b""
                self._transport.write(b"HTTP/1.0 200 OK\r\n\r\n" + said)
                self._transport.close()
                return
            at = head.find(b"content-length:")
            length = int(head[at + 15 : head.find(b"\r\n", at)])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            stamp = body[body.find(b'"timestamp":"') + 13 :][:32].partition(b'"')[0].decode()
            Sink.lags_ms.append((time.time() - datetime.fromisoformat(stamp).timestamp()) * 1000)
            self._transport.write(_OK)


async def sink(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


@contextmanager
def receiver() -> Iterator[str]:
    """The address of a sink in a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "--sink", str(port)])
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        process.terminate()
        process.wait()


def received(url: str) -> list[float]:
    """How old, in milliseconds, the events were that came since the last call."""
    with urlopen(url, timeout=30) as answer:
        lags: list[float] = json.load(answer)
        return lags


async def wait_received(url: str, count: int, *, within_s: float) -> list[float]:
    """The same, once there are so many or time is up."""
    lags: list[float] = []
    until = time.perf_counter() + within_s
    while len(lags) < count and time.perf_counter() < until:
        await asyncio.sleep(0.05)
        lags += await asyncio.to_thread(received, url)
    return lags


@asynccontextmanager
async def new_urls(kind: str, folder: Path) -> AsyncIterator[tuple[str, str, str]]:
    """A database, a broker, and a prefix for its queues, all of them new."""
    if kind == "embedded":
        yield f"sqlite:///{folder}/foretell.db", f"sqlite:///{folder}/broker.db", ""
        return
    async with surroundings.private_database(surroundings.DATABASE_URL) as url, private_prefix() as prefix:
        yield url, surroundings.BROKER_URL, prefix


async def measure_path(kind: str, *, rounds: int, seconds: float, clients: int, workers: int) -> dict[str, Any]:
    """Rounds of load by a user without a webhook and by one with, in turns; then how soon one is told."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-bench-")))
        url = stack.enter_context(receiver())
        database_url, broker_url, prefix = await stack.enter_async_context(new_urls(kind, folder))
        system = await stack.enter_async_context(
            running_system(
                folder,
                database_url=database_url,
                broker_url=broker_url,
                broker_prefix=prefix,
                workers=workers,
                FORETELL_WEBHOOK_ALLOWED_NETWORKS=ALLOWED,
            )
        )
        database = Database(database_url, statement_timeout_s=60)
        stack.push_async_callback(database.close)
        sides: dict[str, Measured] = {}
        tokens: dict[str, str] = {}
        users: dict[str, UUID] = {}
        for name in ("without", "with"):
            user_id, tokens[name] = await system.new_user(credits=1_000_000_000)
            users[name] = user_id
            if name == "with":
                async with database.transaction() as connection:
                    await endpoints.create(connection, user_id, url, types=None, description="")
            sides[name] = Measured(system.url, tokens[name], ORDER, _count_queued(database, user_id), {})
            await sides[name].warm_up()
        await wait_received(url, await _events(database, users["with"]), within_s=30)
        settled: dict[str, list[float]] = {"without": [], "with": []}
        told: list[float] = []
        for number in range(rounds):
            console.print(f"{kind}: round {number + 1} of {rounds}")
            for name in sorted(sides, reverse=bool(number % 2)):
                before = await _events(database, users[name])
                started = time.perf_counter()
                run = await sides[name].throughput(clients=clients, seconds=seconds)
                accepted = run.accepted_per_s * run.seconds
                if name == "with":
                    written = await _events(database, users[name]) - before
                    lags = await wait_received(url, written, within_s=60)
                    told.append(len(lags) / (time.perf_counter() - started))
                # Until all of it has ended, and been told, if it is.
                settled[name].append(accepted / (time.perf_counter() - started))
        lags = await measure_lag(system.url, tokens["with"], url)
        return {
            "pair": kind,
            "without_per_s": median(settled["without"]),
            "with_per_s": median(settled["with"]),
            "told_per_s": median(told),
            "shares": [with_ / without for without, with_ in zip(settled["without"], settled["with"], strict=True)],
            "lag_p50_ms": median(lags),
            "lag_p95_ms": sorted(lags)[int(len(lags) * 0.95)],
        }


async def _events(database: Database, user_id: UUID) -> int:
    async with database.snapshot() as connection:
        return (await events.last_of(connection, [user_id]))[user_id]


async def measure_lag(app_url: str, token: str, url: str) -> list[float]:
    """How soon a quiet system tells of an end, in milliseconds."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Prefer": "wait=30"}
    body = json.dumps({"model": "flight-delay", "input": FLIGHT}).encode()

    def next_request() -> bytes:
        return request("POST", "/predictions/predict", headers | {"Idempotency-Key": uuid7().hex}, body)

    await put_load(app_url, clients=1, seconds=5, next_request=next_request, per_second=20)
    return await wait_received(url, 100, within_s=5)


def _count_queued(database: Database, user_id: UUID) -> Any:
    async def count() -> int:
        async with database.snapshot() as connection:
            return await history.count_queued(connection, user_id)

    return count


async def measure_deliveries(kind: str, *, deliveries: int, count: int) -> dict[str, Any]:
    """How many a second one dispatcher sends that wait already, at `count` endpoints of an account each."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-bench-")))
        url = stack.enter_context(receiver())
        database_url, _, _ = await stack.enter_async_context(new_urls(kind, folder))
        database = Database(database_url, statement_timeout_s=60)
        stack.push_async_callback(database.close)
        await migrate(database)
        store = open_store(database)
        for _ in range(count):
            async with database.transaction() as connection:
                user = await registration.register(
                    connection, username=f"user-{uuid7().hex}", password_hash="!", grant_credits=10**9
                )
                await endpoints.create(connection, user.id, url, types=None, description="")
            ids = []
            for start in range(0, deliveries // count, 256):
                size = min(256, deliveries // count - start)
                outcomes = await accept(store, [_submission(user.id) for _ in range(size)])
                ids += [each.id for each in outcomes if isinstance(each, Receipt)]
            await settle(store, [Ending(each, output=b'{"prediction":0,"probability":0.1874}') for each in ids])
        networks = [ipaddress.ip_network(ALLOWED)]
        outgoing = [Outgoing(Addresses(networks, needs_tls=False), timeout_s=15.0) for _ in range(2)]
        stopping = asyncio.Event()
        started, used = time.perf_counter(), time.process_time()
        sending = asyncio.create_task(Sender(database, *outgoing, None, timeout_s=15.0).run(stopping))
        lags = await wait_received(url, deliveries // count * count, within_s=120)
        seconds = time.perf_counter() - started
        cpu_us = (time.process_time() - used) / max(1, len(lags)) * 1e6
        stopping.set()
        await sending
        return {
            "pair": kind,
            "endpoints": count,
            "deliveries": len(lags),
            "per_s": len(lags) / seconds,
            "cpu_us": cpu_us,
        }


def _submission(user_id: UUID) -> Submission:
    moment = now()
    payload = json.dumps(FLIGHT).encode()
    return Submission(
        *(uuid7(), user_id, "flight-delay", "1.0.0", None, "input", payload, 1, moment, moment + timedelta(hours=1))
    )


def show(paths: list[dict[str, Any]], bursts: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    output = Console(width=100)
    path = Table(title="The whole path, until everybody is told", title_justify="left")
    for column in ("backends", "without/s", "with/s", "share", "shares", "lag p50 ms", "p95 ms"):
        path.add_column(column, justify="left" if column == "backends" else "right")
    for each in paths:
        shares = " ".join(f"{share:.2f}" for share in each["shares"])
        numbers = (f"{each['without_per_s']:,.0f}", f"{each['with_per_s']:,.0f}", f"{median(each['shares']):.2f}")
        path.add_row(each["pair"], *numbers, shares, f"{each['lag_p50_ms']:.1f}", f"{each['lag_p95_ms']:.1f}")
    if paths:
        output.print(path)
    burst = Table(title="Deliveries that wait already, one dispatcher", title_justify="left")
    for column in ("backends", "endpoints", "deliveries", "a second", "CPU us each"):
        burst.add_column(column, justify="left" if column == "backends" else "right")
    for each in bursts:
        numbers = (f"{each['deliveries']:,}", f"{each['per_s']:,.0f}", f"{each['cpu_us']:.0f}")
        burst.add_row(each["pair"], str(each["endpoints"]), *numbers)
    output.print(burst)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="servers,embedded")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--deliveries", type=int, default=5000)
    parser.add_argument("--endpoints", default="1,10")
    parser.add_argument("--no-path", action="store_true")
    parser.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sink:
        uvloop.run(sink(given.sink))
        return
    paths, bursts = [], []
    for kind in given.pairs.split(","):
        if not given.no_path:
            paths.append(
                uvloop.run(
                    measure_path(
                        kind,
                        rounds=given.rounds,
                        seconds=given.seconds,
                        clients=given.clients,
                        workers=given.workers,
                    )
                )
            )
        bursts += [
            uvloop.run(measure_deliveries(kind, deliveries=given.deliveries, count=int(count)))
            for count in given.endpoints.split(",")
        ]
    show(paths, bursts)


if __name__ == "__main__":
    main()
