"""Webhooks while dispatchers die: every end is told at least once, with one id, in order."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from tests.faults.callers import FAULT_SECONDS, new_callers
from tests.faults.promises import assert_promises_kept
from tests.system import System
from tests.webhook_receiver import ALLOWED, Receiver, receiving

from foretell.domain.notifications import endpoints
from foretell.kit.database import Database

pytestmark = pytest.mark.faults

SETTINGS = {"FORETELL_WEBHOOK_ALLOWED_NETWORKS": ALLOWED, "FORETELL_WEBHOOK_TIMEOUT_S": "4"}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def test_dispatchers_die_between_commit_and_sending(system: System, receiver: Receiver) -> None:
    system.wanted["dispatcher"] = 2
    callers = await new_callers(system)
    database = Database(system.database_url)
    try:
        async with database.transaction() as connection:
            await endpoints.create(connection, callers.user_id, receiver.url, types=None, description="")
    finally:
        await database.close()
    failing = random.Random(1)
    receiver.answer = lambda _: "reset" if failing.random() < 0.002 else 204
    async with system.supervised(), callers.calling():
        for _ in range(max(3, round(FAULT_SECONDS))):
            await callers.progress(20)
            await asyncio.sleep(random.uniform(0, 0.3))
            system.kill(random.choice(system.alive("dispatcher")))
        await callers.progress(20)
    receiver.answer = lambda _: 204
    await assert_promises_kept(system, callers)
    wanted = {str(identifier) for identifier in callers.accepted.values()}
    async with asyncio.timeout(90):
        while len({request.id for request in receiver.requests}) < len(wanted):
            await receiver.wait_for(len(receiver.requests) + 1, timeout_s=90)
    assert {request.id for request in receiver.requests} == wanted
    # In order, as far as they came for the first time.
    sequences = list(dict.fromkeys(request.json["sequence"] for request in receiver.requests))
    assert sequences == list(range(1, len(wanted) + 1))
