"""An embedded broker that notes what is done with it, and an engine."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.unit.services.worker.bench import (
    Engine,
    Heard,
    Observed,
)

from foretell.broker.connect import connect
from foretell.contracts import queues


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Observed]:
    broker = await connect(f"sqlite:///{tmp_path / 'broker.db'}", name="test")
    await broker.ensure_queue(queues.TASKS)
    await broker.ensure_queue(queues.RESULTS)
    yield Observed(broker)
    await broker.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    # Threads that hang would keep the tests from ending.
    engine.released.set()


@pytest.fixture
async def heard(broker: Observed) -> AsyncIterator[Heard]:
    heard = Heard(broker)
    while not broker.connected:
        await asyncio.sleep(0.01)
    yield heard
    await heard.close()
