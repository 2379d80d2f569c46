"""Sums of usage: complete, once, whoever adds up, and though movements become visible out of order."""

import asyncio
from uuid import UUID

import pytest
from tests.predictions import open_account, submission

from foretell.contracts.messages import Failure
from foretell.domain.credits import ledger
from foretell.domain.predictions import usage
from foretell.domain.predictions.intake import accept
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Ending, Store
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.dispatcher.usage import UsageSums


async def _predict(store: Store, user_id: UUID, *, succeeds: bool = True) -> None:
    wanted = submission(user_id)
    await accept(store, [wanted])
    output = b'{"prediction":1}' if succeeds else None
    error = None if succeeds else Failure("model_error", "no")
    await settle(store, [Ending(wanted.id, output=output, error=error, worker_id="w", started_at=now())])


async def _used(database: Database, user_id: UUID) -> tuple[int, int, int]:
    async with database.snapshot() as connection:
        found = await usage.used(connection, user_id, now().date())
    return (
        sum(each.succeeded for each in found),
        sum(each.failed for each in found),
        sum(each.credits for each in found),
    )


async def _until_all_is_added_up(database: Database, sums: list[UsageSums]) -> None:
    stopping = asyncio.Event()
    running = [asyncio.create_task(each.run(stopping)) for each in sums]
    async with database.snapshot() as connection:
        highest = (await usage.frontier(connection)).ledger_id
    while True:
        async with database.snapshot() as connection:
            if await usage.added_up_to(connection) >= highest:
                break
        await asyncio.sleep(0.02)
    stopping.set()
    await asyncio.gather(*running)


async def test_two_dispatchers_add_up_everything_once(database: Database, store: Store, ada: UUID) -> None:
    for _ in range(5):
        await _predict(store, ada)
    await _predict(store, ada, succeeds=False)
    await _until_all_is_added_up(database, [UsageSums(database, look_every_s=0.01) for _ in range(2)])
    assert await _used(database, ada) == (5, 1, 5)
    await _predict(store, ada)
    await _until_all_is_added_up(database, [UsageSums(database, look_every_s=0.01) for _ in range(2)])
    assert await _used(database, ada) == (6, 1, 6)


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
async def test_a_movement_that_becomes_visible_late_is_waited_for(database: Database, store: Store, ada: UUID) -> None:
    bob = await open_account(database)
    sums = UsageSums(database)

    async def look(times: int) -> int | None:
        found = None
        for _ in range(times):
            found = await sums.complete_up_to() or found
        return found

    async with database.transaction() as connection:
        # Its number is taken, and it is not committed.
        early = await ledger.grant(connection, bob, 5)
        await _predict(store, ada)
        assert await look(6) is None
    async with database.snapshot() as connection:
        highest = (await usage.frontier(connection)).ledger_id
    assert early.id < highest
    assert await look(4) == highest
