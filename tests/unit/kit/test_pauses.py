import asyncio

import pytest

from foretell.kit.pauses import set_within


async def test_it_ends_when_the_event_is_set_or_the_time_is_over() -> None:
    event = asyncio.Event()
    assert not await set_within(event, 0.001)
    asyncio.get_running_loop().call_soon(event.set)
    assert await set_within(event, 3600)
    assert await set_within(event, 3600)


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancellation_at_the_moment_of_the_event_is_not_lost(turns: int) -> None:
    event = asyncio.Event()

    async def work() -> None:
        while True:
            await set_within(event, 3600)
            event.clear()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    working.cancel()
    done, _ = await asyncio.wait({working}, timeout=30)
    assert done == {working}
    assert working.cancelled()
