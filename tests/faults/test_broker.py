"""The broker dies, loses everything, or stands still. What was promised stands in the database."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest
from tests.faults.callers import FAULT_SECONDS, REQUEST_TIMEOUT_S, Callers, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_rabbitmq import PrivateRabbitMQ
from tests.services_system import Backends
from tests.system import System, wait_until

from foretell.contracts import queues

pytestmark = pytest.mark.faults

#: What was published and is lost is noticed after this long.
_LOST_AFTER = {"FORETELL_LOST_AFTER_S": "3"}
#: Within this long after the broker's return, results come again: three times what is promised, for a slow machine.
_CONSUMING_AGAIN_S = 90.0


@pytest.fixture
def on_private_rabbitmq(fresh_postgresql: str, private_rabbitmq: PrivateRabbitMQ, private_prefix: str) -> Backends:
    """PostgreSQL, and a RabbitMQ that the test may kill."""
    return Backends("servers", fresh_postgresql, private_rabbitmq.url, private_prefix)


@pytest.fixture
def on_files(tmp_path: Path) -> Backends:
    """The embedded pair, in files that the test may delete."""
    return Backends("embedded", f"sqlite:///{tmp_path / 'foretell.db'}", f"sqlite:///{tmp_path / 'broker.db'}", "")


async def _results_come_again(system: System) -> None:
    """Wait until predictions succeed again, all those that were accepted before the call among them."""
    before = await system.count("succeeded")
    async with asyncio.timeout(_CONSUMING_AGAIN_S):
        while await system.count("succeeded") == before:
            await asyncio.sleep(0.1)


def _assert_submissions_never_failed(callers: Callers) -> None:
    # Without the broker they are accepted all the same: they wait in the database.
    assert set(callers.answers) == {202}
    assert callers.slowest_s < REQUEST_TIMEOUT_S


@pytest.mark.parametrize("wiped", [False, True], ids=["restarted", "wiped"])
async def test_rabbitmq_dies_under_load(
    on_private_rabbitmq: Backends, private_rabbitmq: PrivateRabbitMQ, tmp_path: Path, wiped: bool
) -> None:
    system = on_private_rabbitmq.system(tmp_path, **_LOST_AFTER)
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(100)
            # Killed sooner, it may have to be taken for a broker that has lost some of its queues.
            for queue in (queues.TASKS, queues.RESULTS):
                await wait_until(
                    lambda name=system.broker_prefix + queue: private_rabbitmq.remembers(name),  # type: ignore[misc]
                    timeout_s=60,
                    what=f"{queue} to be written down",
                )
            private_rabbitmq.kill()
            if wiped:
                private_rabbitmq.wipe()
            await callers.progress(50)
            await asyncio.to_thread(private_rabbitmq.start)
            await _results_come_again(system)
            await callers.progress(50)
        ended = await assert_promises_kept(system, callers)
    _assert_submissions_never_failed(callers)
    assert set(ended) == {("succeeded", None)}


async def test_rabbitmq_stands_still(
    on_private_rabbitmq: Backends, private_rabbitmq: PrivateRabbitMQ, tmp_path: Path
) -> None:
    system = on_private_rabbitmq.system(tmp_path, **_LOST_AFTER)
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(100)
            private_rabbitmq.pause()
            try:
                for _ in range(round(4 * FAULT_SECONDS)):
                    await callers.progress(5)
                    await asyncio.sleep(1)
            finally:
                private_rabbitmq.resume()
            await _results_come_again(system)
            await callers.progress(50)
        ended = await assert_promises_kept(system, callers)
    _assert_submissions_never_failed(callers)
    assert set(ended) == {("succeeded", None)}


@pytest.mark.parametrize("lost", ["rows", "files"])
async def test_the_embedded_broker_loses_everything_while_all_is_down(
    on_files: Backends, tmp_path: Path, lost: str
) -> None:
    system = on_files.system(tmp_path, **_LOST_AFTER)
    file = tmp_path / "broker.db"
    async with system.running(workers=2):
        await system.scale("worker", 0)
        callers = await new_callers(system)
        async with callers.calling():
            await callers.progress(100)
        assert await system.ready(queues.TASKS)
        await system.end(system.alive())
        if lost == "rows":
            with sqlite3.connect(file) as connection:
                for table in ("message", "payload", "queue", "event", "receiver", "listener"):
                    connection.execute(f"DELETE FROM {table}")
            connection.close()
        else:
            for remains in tmp_path.glob("broker.db*"):
                if remains.is_file():
                    remains.unlink()
                else:
                    shutil.rmtree(remains)
        system.wanted["worker"] = 2
        await system.heal()
        ended = await assert_promises_kept(system, callers)
    assert ended == {("succeeded", None): len(callers.accepted)}


async def test_the_file_of_the_embedded_broker_is_deleted_under_load(on_files: Backends, tmp_path: Path) -> None:
    system = on_files.system(tmp_path, **_LOST_AFTER)
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            for _ in range(3):
                await callers.progress(50)
                for remains in tmp_path.glob("broker.db*"):
                    if remains.is_file():
                        remains.unlink()
                await _results_come_again(system)
        ended = await assert_promises_kept(system, callers)
    _assert_submissions_never_failed(callers)
    assert set(ended) == {("succeeded", None)}


async def test_everything_embedded_dies_at_once_again_and_again(on_files: Backends, tmp_path: Path) -> None:
    system = on_files.system(tmp_path)
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with callers.calling():
            for _ in range(max(2, round(FAULT_SECONDS / 2))):
                await callers.progress(50)
                for running in system.alive():
                    system.kill(running)
                await wait_until(lambda: not system.alive(), timeout_s=60, what="every process to die")
                for name in ("foretell.db", "broker.db"):
                    assert _integrity(tmp_path / name) == ["ok"]
                await system.heal()
        ended = await assert_promises_kept(system, callers)
    assert set(ended) == {("succeeded", None)}
    # Whoever got an answer at all got a good one: no locked database, no half file.
    assert {answer for answer in callers.answers if isinstance(answer, int)} <= {200, 202}
    for name in ("foretell.db", "broker.db"):
        assert _integrity(tmp_path / name) == ["ok"]


def _integrity(file: Path) -> list[str]:
    connection = sqlite3.connect(file)
    try:
        return [row[0] for row in connection.execute("PRAGMA integrity_check")]
    finally:
        connection.close()
