"""A worker gets tasks of models that are being loaded, or can't be."""

import asyncio
import threading
import time
from dataclasses import replace
from typing import cast

import pytest
from tests.unit.services.worker.bench import (
    PUBLISHED_AT,
    Bench,
    Engine,
    Exited,
    Heard,
    Observed,
    redeliver,
    takes,
    until,
)

from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.contracts.messages import (
    Failure,
    decode_tasks,
)
from foretell.inference.loading import State
from foretell.kit.clock import uuid7
from foretell.services.worker.keeping import Word
from foretell.services.worker.postponed import Held, Postponed


async def test_what_is_being_loaded_is_held_and_others_are_run(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    slow = [await bench.put("a", model="slow"), await bench.put("b", model="slow")]
    fast = await bench.put("c")
    async with bench.working():
        await bench.results(1)
        assert engine.runs == [fast]
        await until(lambda: bench.worker.postponed == 2)
        assert not bench.worker.busy
        bench.models.states["slow"] = State.READY
        bench.worker.models_changed()
        await bench.results(2)
    assert sorted(engine.runs[1:]) == sorted(slow)
    assert bench.worker.postponed == 0
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_what_is_held_goes_back_after_a_while_for_somebody_who_has_the_model(
    broker: Observed, engine: Engine
) -> None:
    bench = Bench(broker, engine, hold_s=0.05)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", "b", model="slow")
    async with bench.working():
        await until(lambda: broker.noted.count("publish ml_tasks") >= 2)
    other = Bench(broker, engine)
    async with other.working():
        (answer,) = await other.results(1)
    # Whole and once, however often it was given back.
    assert engine.runs == [ids]
    assert [result.id for result in answer.results] == ids
    assert answer.published_at == PUBLISHED_AT


async def test_what_comes_again_before_its_return_is_reported_keeps_its_lease(broker: Observed, heard: Heard) -> None:
    """The copy may come to the worker that returned it, which still publishes copies of others."""
    first, second = (Held("slow", "1.0.0", queues.TASKS, b"{}", [uuid7()], earlier_attempts=0) for _ in range(2))
    copies: list[Held] = []

    async def give_back(held: Held) -> None:
        if held is first:
            copies.append(replace(held))
            await postponed.hold(copies[0])

    postponed = Postponed(give_back, lambda *_: True, Word(cast(Broker, broker), "worker-7"), pulse_s=3600.0)
    for held in (first, second):
        await postponed.hold(held)
    await postponed.give_back_all()
    assert len(postponed) == 1
    await postponed.give_back_all()
    await until(lambda: len(heard.said) == 5)
    said = [(each.state, each.ids) for each in heard.said]
    alone = [("alone", held.ids) for held in (first, second, first)]
    assert said == [*alone, ("returned", second.ids), ("returned", first.ids)]
    # All by the same way, so that none overtakes another.
    assert broker.confirmed_events == [True] * 5


async def test_told_to_stop_it_gives_back_what_it_holds(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    ids = [await bench.put("a", model="slow"), await bench.put("b", model="slow")]
    async with bench.working():
        await until(lambda: bench.worker.postponed == 2)
    copies = await takes(broker, 2)
    assert [[task.id for task in decode_tasks(copy.body).tasks] for copy in copies] == ids
    # It is no fault of theirs: nothing counts towards the delivery limit.
    assert [copy.attempts for copy in copies] == [1, 1]


async def test_a_model_that_hangs_does_not_take_along_what_is_held(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", model="slow")
    await bench.put("hang")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    (copy,) = await takes(broker, 1)
    assert [task.id for task in decode_tasks(copy.body).tasks] == ids


async def test_to_be_held_does_not_save_an_input_that_kills_its_worker(broker: Observed, engine: Engine) -> None:
    """A copy is a new message to the broker; how often its worker died is not forgotten with it."""
    await Bench(broker, engine).put("a", model="slow")
    died = 0
    while (await broker.depth(queues.TASKS)).ready:
        # Somebody takes it and dies; the worker that comes next is still loading, and gives it back.
        await redeliver(broker)
        died += 1
        bench = Bench(broker, engine, hold_s=0.01)
        bench.models.states["slow"] = State.LOADING
        async with bench.working():
            while not any("publish" in note for note in broker.noted):
                if (await broker.depth(queues.dead_queue(queues.TASKS))).ready:
                    break
                await asyncio.sleep(0.01)
        broker.noted.clear()
    assert died == queues.DELIVERY_LIMIT
    assert await bench.depth(queues.dead_queue(queues.TASKS)) == (1, 0)
    assert engine.runs == []


async def test_tasks_of_a_model_that_cannot_be_loaded_fail_and_say_why(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    bench.models.states["bent"] = State.LOADING
    ids = await bench.put("a", "b", model="bent")
    async with bench.working():
        await until(lambda: bench.worker.postponed == 1)
        bench.models.states["bent"] = State.FAILED
        bench.worker.models_changed()
        (answer,) = await bench.results(1)
    failure = Failure("model_error", "The model bent 1.0.0 could not be loaded on this worker. It is bent.")
    assert {result.id: result.error for result in answer.results} == dict.fromkeys(ids, failure)
    assert engine.runs == []


async def test_time_in_which_nobody_could_run_is_not_the_models_fault(broker: Observed, engine: Engine) -> None:
    """A model that is loaded beside the call may keep the interpreter's lock for longer than the call may take."""
    bench = Bench(broker, engine, time_limit_s=1.5)
    engine.wait_in_every_run = True
    await bench.put("a")
    async with bench.working():
        await asyncio.to_thread(engine.entered.wait)
        # Nothing in this process can look at the clock meanwhile, nor can the call go on.
        threading.Timer(2.0, engine.released.set).start()
        time.sleep(2.0)
        (answer,) = await bench.results(1)
    assert answer.results[0].error is None
    assert bench.exits == []
