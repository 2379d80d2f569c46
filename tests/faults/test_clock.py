"""Clocks that are wrong: nobody's prediction expires, nothing is dated into the future, nothing is lost."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select
from tests.faults.callers import FAULT_SECONDS, authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.services_faketime import SetClock
from tests.services_system import Backends
from tests.system import FLIGHT, Running, System

from foretell.domain.predictions.tables import predictions
from foretell.kit.clock import now
from foretell.kit.database import Database

pytestmark = pytest.mark.faults

#: Longer than a prediction and a token of the tests last.
_JUMP = timedelta(days=2)
_ORDER = {"model": "flight-delay", "input": FLIGHT}


async def newest(system: System) -> timedelta:
    """How far the newest prediction is ahead of the real time."""
    database = Database(system.database_url)
    try:
        async with database.snapshot() as connection:
            columns = (func.max(column) for column in (predictions.c.created_at, predictions.c.published_at))
            row = (await connection.execute(select(*columns))).one()
    finally:
        await database.close()
    return max(*row) - now()


async def failing_parts(running: Running) -> set[str]:
    """What `/health` says once the process answers and its broker is connected."""
    deadline = time.monotonic() + 60
    while True:
        try:
            async with httpx.AsyncClient() as client:
                answer = (await client.get(f"http://127.0.0.1:{running.port}/health", timeout=10)).json()
            parts = set(answer.get("failing", ()))
            if not parts & {"broker", "database"}:
                return parts
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def queued(system: System, count: int) -> list[UUID]:
    """Predictions that wait since there is no worker."""
    _, client = await authorized(system)
    async with client:
        answers = [await client.post("/predictions/predict", json=_ORDER) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {202}
    return [UUID(answer.json()["id"]) for answer in answers]


class WorkersElsewhere(System):
    """Workers on machines of their own, whose clocks are right.

    No worker looks at the time of day; and now and then libfaketime kept one from ever loading its models.
    """

    def launcher_of(self, service: str) -> list[str]:
        return ["env", "-u", "LD_PRELOAD"] if service == "worker" else []


async def test_nothing_expires_or_is_lost_by_a_clock_that_is_wrong(
    backends: Backends, tmp_path: Path, set_clock: SetClock
) -> None:
    kind = System if backends.embedded else WorkersElsewhere
    system = backends.system(tmp_path, kind, **set_clock.environment)
    async with system.running(workers=1):
        callers = await new_callers(system)
        async with callers.calling(clients=4):
            for jump in (_JUMP, -_JUMP):
                await callers.progress(20)
                set_clock.set_ahead(jump)
                await asyncio.sleep(min(max(FAULT_SECONDS, 2.0), 50.0))
                await callers.progress(20)
                set_clock.set_ahead(timedelta())
                await asyncio.sleep(2)
            await callers.progress(20)

        # What waits while it is wrong, of an app that died before it had published all, does not wait for that time.
        await system.scale("worker", 0)
        waiting = await queued(system, 5)
        system.kill(system.alive("app")[0])
        set_clock.set_ahead(_JUMP)
        await asyncio.sleep(2)
        if backends.embedded:
            # On one machine there is one clock.
            set_clock.set_ahead(timedelta())
        await system.end(system.alive("dispatcher"))
        # Who is started now knows no other time; the database does, and that is said.
        system.replace_missing()
        for running in (*system.alive("app"), *system.alive("dispatcher")):
            assert await failing_parts(running) == (set() if backends.embedded else {"clock"})
        # Several sweeps.
        await asyncio.sleep(2)
        assert set((await system.statuses(waiting)).values()) == {("queued", None)}
        set_clock.set_ahead(timedelta())
        await asyncio.sleep(2)
        # They would believe it a minute later.
        await system.end([*system.alive("app"), *system.alive("dispatcher")])

        assert await newest(system) < timedelta(minutes=1)
        system.wanted["worker"] = 1
        ended = await assert_promises_kept(system, callers, ids=waiting)
        assert set(ended) == {("succeeded", None)}
