"""Models that load for minutes, that cannot be loaded, and that answer for longer than the broker is patient."""

import asyncio
import time
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from tests.faults import faulty_model
from tests.faults.callers import FAULT_SECONDS, authorized
from tests.faults.promises import assert_promises_kept
from tests.faults.slow_models import waits_for, write_python_model
from tests.services_system import Backends
from tests.system import System

pytestmark = pytest.mark.faults

_PATIENCE_S = 60.0


async def _submit(client: httpx.AsyncClient, model: str, count: int) -> list[UUID]:
    value = faulty_model.flight(1) if model == faulty_model.NAME else {"x": 1.5}
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
