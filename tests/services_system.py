"""Whole systems for tests: real processes on both pairs of backends.

`backends` is a pair that is the module's own: PostgreSQL with RabbitMQ, and the embedded pair, in turn. `system` runs
on it for as long as the module lasts, with a model `faulty` (`tests/faults/faulty_model.py`) beside those that ship.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiormq
import asyncpg
import pytest
from sqlalchemy.engine import make_url

from foretell.contracts import queues
from foretell.local.services import SERVICES
from tests.asides import run_aside
from tests.faults.faulty_model import write_faulty_model
from tests.fork_server import ForkServer
from tests.service_process import ServiceProcess
from tests.system import System

#: Sweeps that look often, so that tests need not wait long, and no more often: each look takes 8 ms of a processor. But
#: a message that was lost stays lost for the length of a test, where no message may be. Tests that take messages away
#: say so.
SWEEPS = {
    "FORETELL_SWEEP_INTERVAL_S": "1",
    "FORETELL_PUBLISH_AFTER_S": "1.5",
    "FORETELL_LOST_AFTER_S": "180",
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: kills, stops and misleads real processes, and takes its time")


@pytest.fixture(scope="session", autouse=True)
def _fork_servers() -> Iterator[None]:
    """Have the processes of every system, and services alone, started quickly."""
    servers = {each.name: ForkServer(each.name) for each in SERVICES}
    System.fork_servers = ServiceProcess.fork_servers = servers
    try:
        yield
    finally:
        for server in servers.values():
            server.close()
        System.fork_servers = ServiceProcess.fork_servers = {}


@dataclass(frozen=True)
class Backends:
    """Where a system keeps what it knows, and what wakes it."""

    name: str
    database_url: str
    broker_url: str
    broker_prefix: str

    @property
    def embedded(self) -> bool:
        """Whether both are files of this machine."""
        return self.name == "embedded"

    def system(self, folder: Path, kind: type[System] = System, **environment: str) -> System:
        """A system on this pair, yet to be started: `SWEEPS` and the faulty model, unless `environment` differs."""
        models = folder / "models"
        write_faulty_model(models)
        return kind(
            folder,
            database_url=self.database_url,
            broker_url=self.broker_url,
            broker_prefix=self.broker_prefix,
            **{**SWEEPS, "FORETELL_MODELS_DIR": str(models), **environment},
        )


@pytest.fixture(scope="module", params=["servers", "embedded"])
def backends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """PostgreSQL and RabbitMQ, then the embedded pair; empty, and the module's own."""
    if request.param == "embedded":
        folder = tmp_path_factory.mktemp("embedded")
        yield Backends("embedded", f"sqlite:///{folder / 'foretell.db'}", f"sqlite:///{folder / 'broker.db'}", "")
        return
    postgresql_url: str = request.getfixturevalue("postgresql_url")
    rabbitmq_url: str = request.getfixturevalue("rabbitmq_url")
    name = f"foretell_test_{secrets.token_hex(6)}"
    prefix = f"test-{secrets.token_hex(6)}."
    run_aside(_execute(postgresql_url, f"CREATE DATABASE {name}"))
    try:
        yield Backends(
            "servers",
            make_url(postgresql_url).set(database=name).render_as_string(hide_password=False),
            rabbitmq_url,
            prefix,
        )
    finally:
        run_aside(_execute(postgresql_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        run_aside(_remove_queues(rabbitmq_url, prefix))


@pytest.fixture(scope="module")
def module_system(
    request: pytest.FixtureRequest, backends: Backends, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """The system of `system`, without the promise that it is whole. The module's `SETTINGS` are the system's."""
    system = backends.system(tmp_path_factory.mktemp("system"), **getattr(request.module, "SETTINGS", {}))
    try:
        # Its processes belong to no event loop, so it may be started in one and used in others.
        run_aside(system.start(workers=2))
        yield system
    finally:
        run_aside(system.stop())


@pytest.fixture
async def system(module_system: System) -> System:
    """A system of one app, one dispatcher and two workers, all of them healthy, on both pairs of backends in turn."""
    module_system.wanted = {"app": 1, "dispatcher": 1, "worker": 2}
    await module_system.heal()
    return module_system


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _remove_queues(url: str, prefix: str) -> None:
    connection: Any = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        for queue in (queues.TASKS, queues.RESULTS):
            await channel.queue_delete(prefix + queue)
            await channel.queue_delete(prefix + queues.dead_queue(queue))
        for exchange in (queues.EVENTS, "ml_dead_letters"):
            await channel.exchange_delete(prefix + exchange)
    finally:
        await connection.close()
