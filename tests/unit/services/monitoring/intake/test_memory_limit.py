"""The memory limit: bytes are granted in order, and all are released."""

import asyncio

import pytest

from foretell.kit.errors import Overloaded
from foretell.services.monitoring.intake.memory_limit import MemoryLimit


async def test_who_finds_room_goes_on_at_once() -> None:
    room = MemoryLimit(10, wait_s=60)
    await room.take(4)
    await room.take(6)
    assert room.taken_bytes == 10
    room.give_back(10)
    assert room.taken_bytes == 0


async def test_who_waits_is_served_in_turn() -> None:
    room = MemoryLimit(10, wait_s=60)
    await room.take(8)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await room.take(size)
        order.append(name)

    tasks = [asyncio.create_task(take("large", 9)), asyncio.create_task(take("small", 1))]
    await asyncio.sleep(0)
    # There is room for the small one, but it came later.
    assert order == []
    with pytest.raises(Overloaded):
        room.take_now(1)
    room.give_back(8)
    await asyncio.gather(*tasks)
    assert (order, room.taken_bytes) == (["large", "small"], 10)


async def test_who_waits_too_long_is_sent_away_and_those_behind_go_on() -> None:
    room = MemoryLimit(10, wait_s=0.01)
    await room.take(5)
    refused, served = await asyncio.gather(room.take(8), room.take(5), return_exceptions=True)
    assert isinstance(refused, Overloaded)
    assert served is None or isinstance(served, Overloaded)
    room.give_back(5 if served is not None else 10)
    assert room.taken_bytes == 0


async def test_a_caller_who_leaves_takes_nothing_along() -> None:
    room = MemoryLimit(10, wait_s=60)
    await room.take(10)
    for given_first in (False, True):
        waiting = asyncio.create_task(room.take(10))
        await asyncio.sleep(0)
        if given_first:
            room.give_back(10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert room.taken_bytes == 0


async def test_nobody_waits_for_what_can_never_be() -> None:
    room = MemoryLimit(10, wait_s=60, max_waiting=1)
    with pytest.raises(Overloaded):
        await room.take(11)
    await room.take(10)
    waiting = asyncio.create_task(room.take(1))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await room.take(1)
    room.give_back(10)
    await waiting
