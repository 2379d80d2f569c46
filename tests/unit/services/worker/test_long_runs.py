"""Runs that take long, and tasks that are delivered again: what the worker publishes about them."""

import asyncio

import pytest
from tests.unit.services.worker.bench import (
    Bench,
    Deaf,
    Engine,
    Exited,
    Heard,
    Observed,
    redeliver,
    takes,
    until,
)

from foretell.contracts import queues
from foretell.contracts.messages import (
    TasksKept,
    decode_tasks,
)
from foretell.inference.loading import State
from foretell.services.worker import work


async def test_a_short_run_is_not_spoken_of(broker: Observed, engine: Engine, heard: Heard) -> None:
    bench = Bench(broker, engine)
    await bench.put("a")
    async with bench.working():
        await bench.results(1)
    assert heard.said == []


async def test_a_long_run_is_acknowledged_while_it_lasts_and_nothing_is_taken_meanwhile(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02)
    engine.wait_in_every_run = True
    ids = await bench.put("a", "b")
    async with bench.working():
        await until(lambda: "acknowledge" in broker.noted)
        assert await bench.depth(queues.TASKS) == (0, 0)
        next_ids = await bench.put("c")
        await until(lambda: heard.states.count("alone") > 3)
        # Somebody else may have it.
        assert await bench.depth(queues.TASKS) == (1, 0)
        said = list(heard.said)
        engine.released.set()
        answers = await bench.results(2)
        await until(lambda: not bench.worker.busy)
    assert engine.runs == [ids, next_ids]
    assert [[result.id for result in answer.results] for answer in answers] == [ids, next_ids]
    assert [each.state for each in said[:4]] == ["held", "held", "held", "alone"]
    assert {(each.worker_id, *each.ids) for each in said} == {("worker-7", *ids)}
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_a_run_of_which_nothing_can_be_said_is_not_released(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02)
    engine.wait_in_every_run = True
    await bench.put("a")
    broker.takes_events = False
    async with bench.working():
        await until(lambda: broker.untaken_events > 2 * queues.PULSES_UNTIL_RELEASED)
        assert "acknowledge" not in broker.noted
        assert (await broker.depth(queues.TASKS)).unacknowledged == 1
        broker.takes_events = True
        await until(lambda: "acknowledge" in broker.noted and bool(heard.said))
        engine.released.set()
        await bench.results(1)
    assert heard.states[0] == "alone"


async def test_told_to_stop_during_a_long_run_it_answers_and_ends(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02)
    engine.wait_in_every_run = True
    await bench.put("a")
    async with bench.working() as working:
        await until(lambda: "alone" in heard.states)
        bench.stopping.set()
        await bench.put("b")
        engine.released.set()
        await bench.results(1)
        await working
    assert await bench.depth(queues.TASKS) == (1, 0)


async def test_many_that_hang_after_they_were_released_are_given_back(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.02, time_limit_s=1.0)
    ids = await bench.put("a", "hang")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    assert heard.states[-2:] == ["alone", "returned"]
    copies = await takes(broker, 2)
    assert sorted(task.id for copy in copies for task in decode_tasks(copy.body).tasks) == sorted(ids)


async def test_a_task_that_comes_to_a_second_worker_is_spoken_of_at_once(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a")
    await redeliver(broker)
    async with bench.working():
        await bench.results(1)
        await until(lambda: bool(heard.said))
    # If it kills this one too, the next copy says how often that has happened.
    assert heard.said == [TasksKept("worker-7", ids, "held", 2)]
    # And it may do so at once: the word is out before.
    assert broker.confirmed_events == [True]


async def test_a_worker_that_was_cut_off_says_so(
    broker: Observed, engine: Engine, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_LOOK_EVERY_S", 0.01)
    bench = Bench(broker, engine)
    consumer = await broker.consume(queues.TASKS, prefetch=1)
    working = asyncio.create_task(bench.worker.work(consumer))
    await bench.put("a")
    await bench.results(1)
    assert heard.said == []
    broker.takes_events = False
    consumer.was_cut_off = True
    await until(lambda: broker.untaken_events > 2)
    # Until it has worked.
    broker.takes_events = True
    await until(lambda: bool(heard.said))
    bench.stopping.set()
    await working
    await consumer.close()
    assert heard.said == [TasksKept("worker-7", [], "held", cut_off=True)]
    assert broker.confirmed_events == [True]


async def test_what_was_answered_a_moment_ago_is_not_run_again(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    await bench.put("a")
    consumer = await broker.consume(queues.TASKS, prefetch=1)
    deaf = Deaf(consumer)
    working = asyncio.create_task(bench.worker.work(deaf))
    await bench.results(1)
    await until(lambda: deaf.missed == 1)
    # Its acknowledgement is lost, with the connection: so it comes again.
    await consumer.close()
    working.cancel()
    await asyncio.wait({working})
    async with bench.working():
        await until(lambda: "acknowledge" in broker.noted)
    assert len(engine.runs) == 1
    assert await bench.depth(queues.TASKS) == (0, 0)
    assert await bench.depth(queues.RESULTS) == (0, 0)


async def test_what_is_held_until_its_model_is_loaded_is_spoken_of(
    broker: Observed, engine: Engine, heard: Heard
) -> None:
    bench = Bench(broker, engine, pulse_s=0.01)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", "b", model="slow")
    async with bench.working():
        await until(lambda: len(heard.said) > 1)
        bench.models.states["slow"] = State.READY
        bench.worker.models_changed()
        await bench.results(1)
        await until(lambda: "returned" in heard.states)
    # What follows is said of its run.
    count = heard.states.index("returned")
    assert heard.said[:count] == [TasksKept("worker-7", ids, "alone", 0)] * count
    assert heard.said[count] == TasksKept("worker-7", ids, "returned", 0)


async def test_what_nobody_can_be_told_of_is_not_held(broker: Observed, engine: Engine, heard: Heard) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    ids = await bench.put("a", model="slow")
    broker.takes_events = False
    async with bench.working():
        await until(lambda: broker.noted[:2] == [f"publish {queues.TASKS}", "acknowledge"])
        assert bench.worker.postponed == 0
        broker.takes_events = True
        await until(lambda: bench.worker.postponed == 1 and bool(heard.said))
    assert heard.said[0] == TasksKept("worker-7", ids, "alone", 0)


async def test_told_to_stop_while_the_broker_is_away_it_leaves_what_it_can_neither_hold_nor_give_back(
    broker: Observed, engine: Engine
) -> None:
    bench = Bench(broker, engine)
    bench.models.states["slow"] = State.LOADING
    await bench.put("a", model="slow")
    broker.takes_events, broker.away = False, 1_000
    async with bench.working() as working:
        await until(lambda: f"no publish {queues.TASKS}" in broker.noted)
        bench.stopping.set()
        await working
    assert "acknowledge" not in broker.noted
    assert await bench.depth(queues.TASKS) == (1, 0)
