"""A full disk under everything embedded: clear words, nothing half done, and all goes on when there is room."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from tests.faults import faulty_model
from tests.faults.callers import authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.ports import free_port
from tests.services_disk import SmallDisk
from tests.services_system import Backends
from tests.system import FLIGHT, System

from foretell.kit.clock import now
from foretell.local.engine import LocalEngine
from foretell.local.installation import Installation
from foretell.local.log_files import tail
from foretell.local.services import Service

pytestmark = pytest.mark.faults

STAND_IN = Path(__file__).parents[1] / "unit" / "local" / "stand_in.py"
ORDER = {"model": "flight-delay", "input": FLIGHT}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_supervisor_lives_on_and_replaces_what_dies(small_disk: SmallDisk) -> None:
    engine = LocalEngine(
        Installation(small_disk.folder / "data"),
        table=[Service("hand", "foretell.kit.clock", count=2, scales=True)],
        serve_command=[sys.executable, str(STAND_IN)],
        # Said at every start, and more than may find room in the last block of a file.
        environment={**os.environ, "STAND_IN_GREETING": "x" * 10_000},
    )
    log = engine.installation.logs_dir / "hand-1.log"

    def pid() -> int:
        return next(each.pid for each in engine.status() if each.name == "hand-1" and each.healthy)

    def is_replaced() -> bool:
        return any(each.name == "hand-1" and each.healthy and each.pid != before for each in engine.status())

    try:
        engine.launch()
        *_, _ = engine.until_healthy()
        before = pid()
        small_disk.fill()
        for _ in range(2):
            before = pid()
            os.kill(before, signal.SIGKILL)
            wait_for(is_replaced)
            # Its first lines are written a moment after it is healthy.
            time.sleep(0.5)
        small_disk.make_room()
        before = pid()
        os.kill(before, signal.SIGKILL)
        wait_for(is_replaced)
        wait_for(lambda: any("lines were lost here: No space left on device" in line for line in tail(log, 100)))
    finally:
        engine.stop(force=True)


def embedded(folder: Path) -> System:
    """A system that keeps everything in one folder."""
    database_url, broker_url = (f"sqlite:///{folder / name}" for name in ("foretell.db", "broker.db"))
    return Backends("embedded", database_url, broker_url, "").system(folder)


async def health(port: int) -> dict[str, object]:
    async with httpx.AsyncClient() as client:
        answer: dict[str, object] = (await client.get(f"http://127.0.0.1:{port}/health", timeout=30)).json()
        return answer


async def test_everything_embedded_outlives_a_full_disk(small_disk: SmallDisk) -> None:
    system = embedded(small_disk.folder)
    async with system.running(workers=2):
        user_id, client = await authorized(system)
        async with client:
            slow = {"model": faulty_model.NAME, "input": faulty_model.flight(faulty_model.SLEEPS_MS + 1000)}
            under_way = (await client.post("/predictions/predict", json=slow)).json()["id"]
            small_disk.fill()
            refused = await client.post("/predictions/predict", json=ORDER)
            assert refused.status_code == 503
            assert refused.json()["code"] == "disk_full"
            assert "disk of the database is full" in refused.json()["detail"]
            for service in ("app", "dispatcher", "worker"):
                failing = (await health(system.alive(service)[0].port))["failing"]
                assert isinstance(failing, dict)
                assert "is full" in failing["disk"]
            # What ends meanwhile can't be written down yet.
            await asyncio.sleep(2)
            assert (await client.get(f"/predictions/{under_way}")).json()["status"] == "queued"
            small_disk.make_room()

            deadline = time.monotonic() + 60
            while (await client.get(f"/predictions/{under_way}")).json()["status"] != "succeeded":
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            answer = await client.post("/predictions/predict", json=ORDER, headers={"Prefer": "wait=30"})
            assert answer.json()["status"] == "succeeded"
        assert await system.count() == 2
        assert (await system.balance(user_id)).held == 0
        assert await system.audit() == []


async def test_promises_are_kept_while_the_disk_fills_up_again_and_again(small_disk: SmallDisk) -> None:
    system = embedded(small_disk.folder)
    async with system.running(workers=2):
        callers = await new_callers(system)
        async with system.supervised(), callers.calling(clients=4):
            for _ in range(3):
                await callers.progress(20)
                small_disk.fill()
                await asyncio.sleep(1)
                small_disk.make_room()
            await callers.progress(20)
        ended = await assert_promises_kept(system, callers)
        assert callers.answers[503]
        assert set(ended) == {("succeeded", None)}


async def test_monitoring_outlives_a_full_disk(small_disk: SmallDisk) -> None:
    system = embedded(small_disk.folder)
    monitoring = system.spawn("monitoring", port=free_port())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{monitoring.port}", timeout=30) as client:

            async def post(message: str) -> httpx.Response:
                record = {"service": "test", "level": "INFO", "message": message, "timestamp": now().isoformat()}
                return await client.post("/logs", json=record)

            async def is_up() -> bool:
                try:
                    return (await client.get("/health")).status_code == 200
                except httpx.TransportError:
                    return False

            async def until(condition: Callable[[], Awaitable[bool]]) -> None:
                deadline = time.monotonic() + 60
                while not await condition():
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.1)

            await until(is_up)
            assert (await post("before")).is_success
            small_disk.fill()
            refused = await post("meanwhile")
            assert (refused.status_code, refused.json()["code"]) == (503, "disk_full")
            assert "is full" in (await client.get("/health")).json()["failing"]["disk"]
            small_disk.make_room()
            await until(is_up)
            assert (await post("after")).is_success
            found = (await client.get("/reports/logs", params={"service": "test"})).json()
            assert [each["message"] for each in found] == ["before", "after"]
    finally:
        await system.end([monitoring])
