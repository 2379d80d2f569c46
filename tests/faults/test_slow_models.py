"""Models that load for minutes, that cannot be loaded, and that answer for longer than the broker is patient."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from tests.faults import faulty_model
from tests.faults.callers import FAULT_SECONDS, authorized
from tests.faults.promises import assert_promises_kept
from tests.faults.slow_models import ASKED, waits_for, write_python_model
from tests.services_rabbitmq import PrivateRabbitMQ
from tests.services_system import Backends
from tests.system import System

from foretell.contracts import queues

pytestmark = pytest.mark.faults

_PATIENCE_S = 60.0


async def _submit(client: httpx.AsyncClient, model: str, count: int) -> list[UUID]:
    value = faulty_model.flight(1) if model == faulty_model.NAME else {"x": ASKED}
    stage = "input" if model == faulty_model.NAME else "features"
    ids = []
    for _ in range(count):
        answer = await client.post("/predictions/predict", json={"model": model, stage: value})
        assert answer.status_code == 202, answer.text
        ids.append(UUID(answer.json()["id"]))
    return ids


async def _until_ended(system: System, ids: list[UUID]) -> dict[UUID, tuple[str, str | None]]:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            ended = await system.statuses(ids)
            if all(status != "queued" for status, _ in ended.values()):
                return ended
            await asyncio.sleep(0.1)


async def test_fast_models_answer_while_one_loads_and_another_cannot(backends: Backends, tmp_path: Path) -> None:
    system = backends.system(tmp_path)
    loaded = tmp_path / "loaded"
    # Before the fast one, by name and so by its turn.
    write_python_model(tmp_path / "models", "a-slow", load=waits_for(loaded))
    write_python_model(tmp_path / "models", "bent", load="raise RuntimeError('the weights are missing')")
    async with system.running(workers=2):
        user_id, client = await authorized(system, credits=10_000)
        async with client:
            slow = await _submit(client, "a-slow", 3)
            bent = await _submit(client, "bent", 2)
            assert set((await _until_ended(system, bent)).values()) == {("failed", "model_error")}
            failed = (await client.get(f"/predictions/{bent[0]}")).json()["error"]["message"]
            assert "bent 1.0.0 could not be loaded" in failed
            assert "the weights are missing" in failed
            fast: list[UUID] = []
            until = time.monotonic() + FAULT_SECONDS
            while not fast or time.monotonic() < until:
                some = await _submit(client, faulty_model.NAME, 10)
                assert set((await _until_ended(system, some)).values()) == {("succeeded", None)}
                fast += some
            # Who is told to stop hands on what it can't answer yet, and who comes is still loading.
            before = {running.instance for running in system.alive("worker")}
            await system.scale("worker", 0)
            await system.scale("worker", 2)
            assert before.isdisjoint(running.instance for running in system.alive("worker"))
            fast += await _submit(client, faulty_model.NAME, 10)
            assert set((await _until_ended(system, fast)).values()) == {("succeeded", None)}
            assert set((await system.statuses(slow)).values()) == {("queued", None)}
            loaded.touch()
            workers = [running.process.pid for running in system.alive("worker")]
            ended = await assert_promises_kept(system, ids=[*slow, *bent, *fast])
            assert [running.process.pid for running in system.alive("worker")] == workers
        assert ended == {("succeeded", None): len(fast) + 3, ("failed", "model_error"): 2}
        assert (await system.balance(user_id)).available == 10_000 - len(fast) - 3


async def test_a_worker_and_a_dispatcher_die_together_with_what_was_kept(backends: Backends, tmp_path: Path) -> None:
    """To the broker it was done, and nobody lives who heard who had it. It counts as lost only much later."""
    system = backends.system(tmp_path, FORETELL_TASK_PULSE_S="0.5")
    loaded = tmp_path / "loaded"
    write_python_model(tmp_path / "models", "a-slow", load=waits_for(loaded))
    async with system.running(workers=1):
        _, client = await authorized(system, credits=100)
        async with client:
            ids = await _submit(client, "a-slow", 3)
        (worker,) = system.alive("worker")
        async with (
            asyncio.timeout(_PATIENCE_S),
            httpx.AsyncClient(base_url=f"http://{worker.host}:{worker.port}") as its,
        ):
            while not (await its.get("/health")).json()["tasks_postponed"]:
                await asyncio.sleep(0.01)
        together = [worker, *system.alive("dispatcher")]
        for running in together:
            system.kill(running)
        for running in together:
            running.process.wait()
        loaded.touch()
        assert await assert_promises_kept(system, ids=ids) == {("succeeded", None): 3}


@pytest.fixture
def impatient(private_rabbitmq: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    """A RabbitMQ that takes back what is not acknowledged within a second or two."""
    _set(private_rabbitmq, timeout_ms=1000, tick_ms=1000)
    yield private_rabbitmq
    _set(private_rabbitmq, timeout_ms=1_800_000, tick_ms=60_000)


def _set(server: PrivateRabbitMQ, *, timeout_ms: int, tick_ms: int) -> None:
    server.control("eval", f"application:set_env(rabbit, consumer_timeout, {timeout_ms}).")
    server.control("eval", f"application:set_env(rabbit, channel_tick_interval, {tick_ms}).")


async def test_a_task_that_outlasts_the_brokers_patience_runs_once(
    impatient: PrivateRabbitMQ, private_prefix: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    url = f"sqlite:///{tmp_path / 'foretell.db'}"
    takes_s = max(6.0, FAULT_SECONDS)
    backends = Backends("servers", url, impatient.url, private_prefix)
    # It is acknowledged after four pulses.
    system = backends.system(tmp_path, FORETELL_TASK_PULSE_S="0.1", FORETELL_LOST_AFTER_S="2")
    write_python_model(
        tmp_path / "models", "long", predict=f"with open({str(runs)!r}, 'a') as file: file.write('x')",
        takes_s=takes_s, timeout_s=60 + takes_s,
    )  # fmt: skip
    async with system.running(workers=2):
        user_id, client = await authorized(system)
        async with client:
            long = await _submit(client, "long", 1)
            fast: list[UUID] = []
            while (await system.statuses(long))[long[0]][0] == "queued":
                some = await _submit(client, faulty_model.NAME, 5)
                assert set((await _until_ended(system, some)).values()) == {("succeeded", None)}
                fast += some
            ended = await assert_promises_kept(system, ids=[*long, *fast])
        assert ended == {("succeeded", None): 1 + len(fast)}
        assert runs.read_text() == "x"
        assert (await system.balance(user_id)).available == 999_999 - len(fast)
        assert "PRECONDITION_FAILED" not in "".join(system.log_of(running) for running in system.processes)


async def test_an_input_that_kills_its_worker_kills_no_more_than_the_limit(backends: Backends, tmp_path: Path) -> None:
    """Though it is overdue all the time, and no message waits while it runs: the sweep starts no second one."""
    system = backends.system(tmp_path, FORETELL_TASK_PULSE_S="0.5", FORETELL_LOST_AFTER_S="1")
    # One dies with its task in hand, the other when the broker has long been told that it is done.
    models = {"dies-soon": 1.5, "dies-late": 3.0}
    for name, seconds in models.items():
        kills = f"import os; time.sleep({seconds}); os._exit(66)"
        write_python_model(tmp_path / "models", name, predict=kills, timeout_s=60.0)
    async with system.running(workers=2), system.supervised():
        user_id, client = await authorized(system, credits=10)
        async with client:
            ids = [identifier for name in models for identifier in await _submit(client, name, 1)]
            ended = await assert_promises_kept(system, ids=ids)
        assert ended == {("failed", "undeliverable"): 2}
        died = sum(running.process.poll() == 66 for running in system.processes)
        assert died == 2 * queues.DELIVERY_LIMIT
        assert (await system.balance(user_id)).available == 10
