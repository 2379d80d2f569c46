"""Bells wake their owner, and fall silent with it."""

import asyncio
import os
from pathlib import Path

from foretell.broker.sqlite_bells import Bell, alive, remove, ring


async def test_a_ring_is_heard_by_its_owner_alone(tmp_path: Path) -> None:
    heard: list[str] = []
    rung = asyncio.Event()

    def on_ring() -> None:
        heard.append("one")
        rung.set()

    one, two = Bell(tmp_path, on_ring), Bell(tmp_path, lambda: heard.append("two"))
    try:
        assert ring(tmp_path, one.name)
        async with asyncio.timeout(60):
            await rung.wait()
        assert heard == ["one"]
    finally:
        one.close()
        two.close()
    assert list(tmp_path.iterdir()) == []


async def test_ringing_a_busy_owner_never_blocks(tmp_path: Path) -> None:
    rings = 0

    def on_ring() -> None:
        nonlocal rings
        rings += 1

    bell = Bell(tmp_path, on_ring)
    try:
        # More than a pipe holds, while the owner has no time to listen.
        for _ in range(100_000):
            assert ring(tmp_path, bell.name)
        while rings == 0:
            await asyncio.sleep(0)
    finally:
        bell.close()


async def test_a_bell_without_owner_is_dead(tmp_path: Path) -> None:
    bell = Bell(tmp_path, lambda: None)
    assert alive(tmp_path, bell.name)
    bell.close()
    assert not alive(tmp_path, bell.name)
    os.mkfifo(tmp_path / "left by the dead")
    assert not alive(tmp_path, "left by the dead")
    assert not ring(tmp_path, "left by the dead")
    remove(tmp_path, "left by the dead")
    remove(tmp_path, "left by the dead")
    assert list(tmp_path.iterdir()) == []
