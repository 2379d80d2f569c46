"""One allowance for all that a request asks of the database."""

import asyncio

import pytest

from foretell.kit import deadline


async def test_where_nothing_is_said_there_is_no_end() -> None:
    assert deadline.until() is None


async def test_an_allowance_begins_with_its_first_use_and_is_one_for_all() -> None:
    now = asyncio.get_running_loop().time
    with deadline.allowed(10.0):
        before = now()
        first = deadline.until()
        after = now()
        assert first is not None
        assert before + 10.0 <= first <= after + 10.0
        await asyncio.sleep(0.001)
        assert deadline.until() == first
        # What is asked by others in the name of this request has no other.
        assert await asyncio.create_task(_until_of_another_task()) == first
    assert deadline.until() is None


async def _until_of_another_task() -> float | None:
    return deadline.until()


async def test_requests_have_allowances_of_their_own() -> None:
    async def ask(seconds: float) -> float | None:
        with deadline.allowed(seconds):
            await asyncio.sleep(0)
            return deadline.until()

    one, other = await asyncio.gather(ask(10.0), ask(1000.0))
    assert one is not None
    assert other is not None
    assert other - one > 900


async def test_who_has_heard_may_be_told_more_for_as_long_as_it_takes() -> None:
    with deadline.allowed(10.0) as allowance:
        assert deadline.until() is not None
        # A stream is a task of its own.
        stream = asyncio.create_task(_until_of_another_task())
        allowance.lift()
        assert deadline.until() is None
        assert await stream is None


async def test_while_a_body_arrives_no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    real, passed_s = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + passed_s)
    with deadline.allowed(10.0) as allowance:
        with allowance.paused():
            passed_s += 1000.0
        # It had not begun.
        first = deadline.until()
        assert first is not None
        assert first <= loop.time() + 10.0
        with allowance.paused():
            passed_s += 1000.0
        later = deadline.until()
        assert later is not None
        assert later >= first + 1000.0
        passed_s += 1000.0
        assert deadline.until() == later
