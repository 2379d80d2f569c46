"""Calls of a model: shared by single rows, off the event loop when they take long, bounded in time."""

import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.model_packages import Doubler, package

from foretell.contracts.messages import Failure
from foretell.kit.offloading import in_thread
from foretell.services.model.calls import ModelCalls, ModelHangs, ModelTimeout


def _at_once() -> float:
    """A clock by which nothing takes any time, whatever the machine does."""
    return 0.0


def _calls(folder: Path, model: Doubler, *, clock: Callable[[], float] = _at_once, **options: Any) -> ModelCalls:
    return ModelCalls(package(folder, **options), load=lambda _: model, clock=clock)


async def test_single_rows_of_one_turn_share_a_call(tmp_path: Path) -> None:
    model = Doubler()
    calls = _calls(tmp_path, model)
    calls.warm()
    model.batches.clear()
    outputs = await asyncio.gather(*(calls.predict_one({"x": x}, "features") for x in range(10)))
    assert outputs == [{"y": x * 2} for x in range(10)]
    assert [len(batch) for batch in model.batches] == [8, 2]


async def test_rows_that_arrive_during_a_call_are_the_next_batch(tmp_path: Path) -> None:
    model = Doubler()
    calls = _calls(tmp_path, model)
    model.gate.clear()
    first = calls.predict_one({"x": 1}, "features")
    await asyncio.sleep(0.05)
    others = [calls.predict_one({"x": x}, "features") for x in (2, 3, 4)]
    model.gate.set()
    assert await asyncio.gather(first, *others) == [{"y": 2}, {"y": 4}, {"y": 6}, {"y": 8}]
    assert [len(batch) for batch in model.batches] == [1, 3]


async def test_a_bad_row_takes_no_neighbour_with_it(tmp_path: Path) -> None:
    calls = _calls(tmp_path, Doubler())
    good, bad = await asyncio.gather(calls.predict_one({"x": 1}, "features"), calls.predict_one({}, "features"))
    assert good == {"y": 2}
    assert isinstance(bad, Failure)
    assert bad.message == "x is missing."


async def test_rows_of_one_request_are_called_in_batches_and_in_order(tmp_path: Path) -> None:
    model = Doubler()
    calls = _calls(tmp_path, model)
    outputs = await calls.predict_many([{"x": x} for x in range(20)], "features")
    assert outputs == [{"y": x * 2} for x in range(20)]
    assert [len(batch) for batch in model.batches] == [8, 8, 4]


async def test_a_model_whose_time_is_not_known_is_called_in_a_thread(tmp_path: Path) -> None:
    model = Doubler()
    calls = _calls(tmp_path, model)
    await calls.predict_one({"x": 1}, "features")
    assert model.threads == ["offloaded"]


async def test_a_fast_model_is_called_on_the_event_loop(tmp_path: Path) -> None:
    model = Doubler()
    calls = _calls(tmp_path, model)
    await in_thread(calls.warm)
    model.threads.clear()
    await calls.predict_one({"x": 1}, "features")
    assert model.threads == ["MainThread"]


async def test_a_slow_model_is_called_in_a_thread(tmp_path: Path) -> None:
    model = Doubler()
    # By this clock each call takes a second.
    calls = _calls(tmp_path, model, clock=count().__next__)
    await in_thread(calls.warm)
    # Its time was learnt by one row, four calls of it; larger batches can only take longer.
    assert [len(batch) for batch in model.batches] == [1] * 4
    await calls.predict_one({"x": 1}, "features")
    assert set(model.threads) == {"offloaded"}


async def test_a_model_that_hangs_fails_in_time_and_is_asked_no_more_until_it_returns(tmp_path: Path) -> None:
    model = Doubler()
    calls = _calls(tmp_path, model, timeout_s=0.05)
    model.gate.clear()
    with pytest.raises(ModelTimeout, match=r"doubler did not answer within 0\.05 s"):
        await calls.predict_one({"x": 1}, "features")
    assert calls.hangs
    with pytest.raises(ModelHangs):
        await calls.predict_one({"x": 1}, "features")
    with pytest.raises(ModelHangs):
        await calls.predict_many([{"x": 1}] * 2, "features")
    model.gate.set()
    while calls.hangs:
        await asyncio.sleep(0.01)
    assert await calls.predict_one({"x": 1}, "features") == {"y": 2}
