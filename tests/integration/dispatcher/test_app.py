"""The whole dispatcher in this process, beside PostgreSQL and RabbitMQ and beside the embedded pair."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from tests.integration.dispatcher.watched import Watched, results_of
from tests.predictions import accepted, assert_books_are_right, open_account, statuses_of, submission, view_of

from foretell.broker.connect import connect
from foretell.contracts import queues
from foretell.contracts.messages import Result, TasksKept, decode_tasks, encode
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions.opening import open_store
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.dispatcher.app import serve
from foretell.services.dispatcher.settings import DispatcherSettings


@pytest.fixture
def settings(request: pytest.FixtureRequest, empty_database_url: str, tmp_path: Path) -> DispatcherSettings:
    broker_url, prefix = f"sqlite:///{tmp_path / 'broker.db'}", ""
    if empty_database_url.startswith("postgresql"):
        broker_url, prefix = request.getfixturevalue("rabbitmq_url"), request.getfixturevalue("broker_prefix")
    return DispatcherSettings(
        database_url=empty_database_url, broker_url=broker_url, broker_prefix=prefix, sweep_interval_s=0.05
    )


@asynccontextmanager
async def _serving(settings: DispatcherSettings, dispatchers: int = 1) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    serving = [asyncio.create_task(serve(settings, f"dispatcher-{each}", stopping)) for each in range(dispatchers)]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*serving)


@asynccontextmanager
async def _surroundings(settings: DispatcherSettings) -> AsyncIterator[tuple[Database, Watched]]:
    database = Database(settings.database_url)
    broker = await connect(settings.broker_url, name="test", prefix=settings.broker_prefix)
    await broker.ensure_queue(queues.TASKS)
    await broker.ensure_queue(queues.RESULTS)
    try:
        yield database, Watched(broker)
    finally:
        await broker.close()
        await database.close()


async def _until(database: Database, ids: Sequence[UUID], status: str) -> None:
    while set(await statuses_of(database, ids)) != {status}:
        await asyncio.sleep(0.05)


async def _die_of_every_task(broker: Watched, taken: list[UUID]) -> None:
    """Take one task after the other and give it back, as workers do that die; `taken` says which."""
    while True:
        consumer = await broker.consume(queues.TASKS, prefetch=1)
        (delivery,) = await consumer.receive(1)
        (task,) = decode_tasks(delivery.body).tasks
        begun = encode(TasksKept("worker-1", [task.id], "held", delivery.attempts))
        await broker.publish_event(queues.TASKS_KEPT, begun, confirmed=True)
        taken.append(task.id)
        await consumer.close()


async def test_everything_ends_and_garbage_stays(settings: DispatcherSettings) -> None:
    async with _surroundings(settings) as (database, broker):
        await migrate(database)
        ada = await open_account(database)
        store = open_store(database)
        done = await accepted(store, submission(ada), submission(ada))
        late = await accepted(store, submission(ada, expires_at=now() - timedelta(seconds=1)))
        forgotten = await accepted(store, submission(ada, age_s=60))
        garbage = [b"not JSON", b'{"results":[]}', encode(results_of(Result(done[0])))]
        for identifier, waste in zip([*done, done[0]], garbage, strict=True):
            result = encode(results_of(Result(identifier, output=msgspec.Raw(b'{"prediction":1}'))))
            await broker.put(queues.RESULTS, waste, result)
        async with _serving(settings, dispatchers=2):
            await _until(database, done, "succeeded")
            await _until(database, late, "failed")
            # The forgotten one is published, and no worker survives it. It is published once more by a dispatcher that
            # has not yet listened for so long.
            taken: list[UUID] = []
            dying = asyncio.create_task(_die_of_every_task(broker, taken))
            await _until(database, forgotten, "failed")
            dying.cancel()
            assert set(taken) == set(forgotten)
            assert len(taken) % queues.DELIVERY_LIMIT == 0
            await broker.wait_for(queues.dead_queue(queues.RESULTS), len(garbage))
        error = (await view_of(database, ada, forgotten[0])).error
        assert error is not None
        assert error.code == "undeliverable"
        consumer = await broker.consume(queues.dead_queue(queues.RESULTS), prefetch=10)
        left: list[bytes] = []
        while len(left) < len(garbage):
            left += [delivery.body for delivery in await consumer.receive(10)]
        assert sorted(left) == sorted(garbage)
        await consumer.close()
        await assert_books_are_right(database)


async def test_it_makes_the_tables_and_stops_while_nothing_happens(settings: DispatcherSettings) -> None:
    async with _surroundings(settings) as (database, broker):
        async with _serving(settings):
            while not await _is_migrated(database):
                await asyncio.sleep(0.05)
            (identifier,) = await accepted(open_store(database), submission(await open_account(database)))
            await broker.put(queues.RESULTS, encode(results_of(Result(identifier, output=msgspec.Raw(b"1")))))
            await _until(database, [identifier], "succeeded")
        await assert_books_are_right(database)


async def _is_migrated(database: Database) -> bool:
    async with database.snapshot() as connection:
        exists = (
            "to_regclass('predictions')"
            if database.dialect == "postgresql"
            else ("(SELECT name FROM sqlite_master WHERE name = 'predictions')")
        )
        return (await connection.exec_driver_sql(f"SELECT {exists} IS NOT NULL")).scalar() in (True, 1)


async def test_without_database_and_broker_it_waits_and_stops_when_told(tmp_path: Path) -> None:
    nowhere = DispatcherSettings(
        database_url="postgresql://postgres@127.0.0.1:1/postgres", broker_url="amqp://guest:guest@127.0.0.1:1/"
    )
    async with _serving(nowhere):
        await asyncio.sleep(0.2)
