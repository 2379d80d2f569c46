"""The whole way of a prediction, running on a pair of backends, for the benchmarks that measure it."""

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import psutil

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # The tests' system is found from the repository's root.
    sys.path.insert(0, str(ROOT))
from tests.system import FLIGHT, System, running_system  # noqa: E402

from benchmarks import surroundings  # noqa: E402
from foretell.contracts import queues  # noqa: E402
from foretell.domain.predictions import history  # noqa: E402
from foretell.kit.clock import uuid7  # noqa: E402
from foretell.kit.database import Database  # noqa: E402
from foretell.local.measuring import Measured  # noqa: E402

ORDER = {"model": "flight-delay", "input": FLIGHT}


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
async def running_way(
    kind: str, *, workers: int, database_url: str | None = None, **settings: str
) -> AsyncIterator[Way]:
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
                folder,
                database_url=database_url,
                broker_url=broker_url,
                broker_prefix=prefix,
                workers=workers,
                **settings,
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
