"""A worker takes envelopes, runs them and publishes results, also when a model hangs or the broker is away."""

import asyncio

import msgspec
import pytest
from tests.unit.services.worker.bench import (
    PUBLISHED_AT,
    Bench,
    Engine,
    Exited,
    Observed,
    envelope_of,
    redeliver,
    until,
)

from foretell.broker.port import Delivery
from foretell.contracts import queues
from foretell.contracts.messages import (
    Failure,
    decode_tasks,
    encode,
)
from foretell.kit.clock import now
from foretell.services.worker.work import EXIT_HANGING_MODEL


async def test_results_are_handed_back_before_the_acknowledgement(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a", "fail", "b")
    async with bench.working():
        (answer,) = await bench.results(1)
        await until(lambda: "acknowledge" in broker.noted)
    assert broker.noted == ["publish ml_results", "acknowledge"]
    assert await bench.depth(queues.TASKS) == (0, 0)
    assert (answer.model, answer.version, answer.worker_id) == ("echo", "1.0.0", "worker-7")
    assert answer.published_at == PUBLISHED_AT
    assert PUBLISHED_AT < answer.started_at <= answer.finished_at
    assert [result.id for result in answer.results] == ids
    assert [isinstance(result.output, msgspec.Raw) for result in answer.results] == [True, False, True]
    assert answer.results[1].error == Failure("model_error", "The model failed on this input.")
    assert bench.worker.tasks_done == 3
    assert not bench.worker.busy
    assert bench.worker.current_task is None
    assert bench.exits == []


async def test_envelopes_are_run_whole_and_in_order(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    envelopes = [await bench.put("a"), await bench.put("b", "c"), await bench.put("d")]
    async with bench.working():
        await bench.results(3)
    assert engine.runs == envelopes


@pytest.mark.parametrize(
    "garbage",
    [b"", b"not JSON", b"{}", b"\xff\xfe", b"[" * 100_000, encode(envelope_of("a")).replace(b"09:30:00Z", b"09:30:00")],
    ids=["empty", "text", "no envelope", "no text", "deep", "time without zone"],
)
async def test_garbage_goes_to_the_dead_letters_and_the_next_is_run(
    broker: Observed, engine: Engine, garbage: bytes
) -> None:
    bench = Bench(broker, engine)
    await broker.publish(queues.TASKS, garbage, message_id="garbage")
    ids = await bench.put("a")
    async with bench.working() as working:
        (answer,) = await bench.results(1)
        assert not working.done()
    assert [result.id for result in answer.results] == ids
    assert await bench.depth(queues.dead_queue(queues.TASKS)) == (1, 0)
    assert broker.noted[0] == "reject"


async def test_what_comes_again_with_many_tasks_is_split(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a", "b", "c")
    await redeliver(broker)
    async with bench.working():
        answers = await bench.results(3)
    # If one of them ended the worker, it is alone when it does so again.
    assert sorted(engine.runs) == sorted([identifier] for identifier in ids)
    assert sorted(result.id for answer in answers for result in answer.results) == sorted(ids)
    assert {answer.published_at for answer in answers} == {PUBLISHED_AT}
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_a_large_envelope_is_split_whole(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put(*["a"] * 150)
    await redeliver(broker)
    async with bench.working():
        answers = await bench.results(150)
    assert sorted(answer.results[0].id for answer in answers) == sorted(ids)


async def test_a_task_that_comes_again_alone_is_run(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a")
    await redeliver(broker)
    async with bench.working():
        await bench.results(1)
    assert engine.runs == [ids]


# A model that hangs.


async def test_a_task_that_hangs_fails_and_the_process_ends(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    ids = await bench.put("hang")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    (answer,) = await bench.results(1)
    assert [result.id for result in answer.results] == ids
    assert answer.results[0].error == Failure("timeout", "The model did not answer within 0.1 seconds.")
    assert bench.exits == [EXIT_HANGING_MODEL] == [70]
    # Settled as it is, it must not hang the next worker too.
    assert await bench.depth(queues.TASKS) == (0, 0)


async def test_many_tasks_of_which_one_hangs_are_split_and_the_process_ends(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    ids = await bench.put("a", "hang", "b")
    async with bench.working() as working:
        with pytest.raises(Exited):
            await working
    assert bench.exits == [70]
    assert await bench.depth(queues.RESULTS) == (0, 0)
    assert await bench.depth(queues.TASKS) == (3, 0)
    consumer = await broker.consume(queues.TASKS, prefetch=3)
    deliveries: list[Delivery] = []
    while len(deliveries) < 3:
        deliveries += await consumer.receive(3)
    singles = [decode_tasks(delivery.body) for delivery in deliveries]
    assert sorted(task.id for single in singles for task in single.tasks) == sorted(ids)
    assert [len(single.tasks) for single in singles] == [1, 1, 1]
    assert [delivery.attempts for delivery in deliveries] == [1, 1, 1]
    await consumer.close()


async def test_of_many_tasks_only_the_one_that_hangs_fails(broker: Observed, engine: Engine) -> None:
    ids = await Bench(broker, engine).put("a", "hang", "b")
    # As the supervisor does: whoever leaves is replaced.
    for _ in range(3):
        bench = Bench(broker, engine, time_limit_s=0.5)
        async with bench.working() as working:
            await asyncio.wait({working}, timeout=3)
    answers = await Bench(broker, engine).results(3)
    failures = {result.id: result.error and result.error.code for answer in answers for result in answer.results}
    assert failures == {ids[0]: None, ids[1]: "timeout", ids[2]: None}


# A broker that is away.


async def test_results_are_published_as_soon_as_the_broker_is_back(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    ids = await bench.put("a")
    broker.away = 1
    async with bench.working():
        (answer,) = await bench.results(1)
        await until(lambda: "acknowledge" in broker.noted)
    assert [result.id for result in answer.results] == ids
    assert broker.noted == ["no publish ml_results", "publish ml_results", "acknowledge"]
    # Not run again: that is what trying again is for.
    assert engine.runs == [ids]


async def test_told_to_stop_it_leaves_behind_what_nobody_takes(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    await bench.put("a")
    broker.away = 1_000_000
    async with bench.working() as working:
        await until(lambda: bool(broker.noted))
        bench.stopping.set()
        await working
    assert "acknowledge" not in broker.noted
    assert not bench.worker.busy
    # With the consumer gone, the next worker gets it.
    assert await bench.depth(queues.TASKS) == (1, 0)


async def test_told_to_stop_with_a_model_that_hangs_and_a_broker_that_is_away_it_ends(
    broker: Observed, engine: Engine
) -> None:
    bench = Bench(broker, engine, time_limit_s=0.1)
    await bench.put("hang")
    broker.away = 1_000_000
    async with bench.working() as working:
        await until(lambda: bool(broker.noted))
        bench.stopping.set()
        with pytest.raises(Exited):
            await working
    assert bench.exits == [70]
    assert await bench.depth(queues.TASKS) == (1, 0)


# The end.


async def test_told_to_stop_it_finishes_the_envelope_in_hand(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    engine.wait_in_every_run = True
    ids = await bench.put("a")
    await bench.put("b")
    async with bench.working() as working:
        await asyncio.to_thread(engine.entered.wait)
        assert bench.worker.busy
        task = bench.worker.current_task
        assert task is not None
        assert task.pop("since") <= now()
        # Never what is in it.
        assert task == {"model": "echo", "version": "1.0.0", "tasks": 1, "prediction_id": str(ids[0])}
        bench.stopping.set()
        await asyncio.sleep(0.05)
        assert not working.done()
        engine.released.set()
        await working
    (answer,) = await bench.results(1)
    assert [result.id for result in answer.results] == ids
    assert await bench.depth(queues.TASKS) == (1, 0)


async def test_told_to_stop_while_nothing_waits_it_ends(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    async with bench.working() as working:
        await asyncio.sleep(0.05)
        bench.stopping.set()
        await working
    assert engine.runs == []


async def test_an_engine_that_raises_ends_the_worker_and_loses_nothing(broker: Observed, engine: Engine) -> None:
    bench = Bench(broker, engine)
    await bench.put("raise")
    async with bench.working() as working:
        with pytest.raises(RuntimeError, match="never raises"):
            await working
    assert await bench.depth(queues.TASKS) == (1, 0)
    assert await bench.depth(queues.RESULTS) == (0, 0)
