"""What a dispatcher is made of, on each database and the embedded broker, and books that are right after every test."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.dispatcher.sweepers import (
    PULSE_S,
    Clock,
    Ears,
    make_sweeper,
)
from tests.integration.dispatcher.watched import Watched
from tests.predictions import assert_books_are_right, open_account

from foretell.broker.connect import connect
from foretell.contracts import queues
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.store import Store
from foretell.kit.database import Database
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.sweeping import Sweeper


@pytest.fixture
async def database(database: Database) -> AsyncIterator[Database]:
    yield database
    await assert_books_are_right(database)


@pytest.fixture
def store(database: Database) -> Store:
    return open_store(database)


@pytest.fixture
async def ada(database: Database) -> UUID:
    return await open_account(database, credits=10_000)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Watched]:
    """The embedded broker, which counts its messages to the moment (RabbitMQ: see `test_app`)."""
    broker = await connect(f"sqlite:///{tmp_path / 'broker.db'}", name="dispatcher")
    for queue in (queues.TASKS, queues.RESULTS, queues.tasks_queue("gpu")):
        await broker.ensure_queue(queue)
    yield Watched(broker)
    await broker.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def in_hand(clock: Clock, ears: Ears) -> InHand:
    return InHand(PULSE_S, listening_since=lambda: ears.since, clock=clock)


@pytest.fixture
def sweeper(database: Database, store: Store, broker: Watched, in_hand: InHand, clock: Clock) -> Sweeper:
    return make_sweeper(database, store, broker, in_hand, clock)
