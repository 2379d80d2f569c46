"""The batcher: nothing lost, nothing twice, in order, and every caller gets what is theirs."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.kit.batching import Batcher
from foretell.kit.errors import Overloaded


class Station:
    """Handles batches of numbers when `open` is set, and remembers them. A negative number is refused."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.open = asyncio.Event()
        if is_open:
            self.open.set()
        self.batches: list[list[int]] = []
        self.under_way = 0
        self.most_under_way = 0

    async def __call__(self, batch: list[int]) -> Sequence[int | BaseException]:
        self.batches.append(list(batch))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.open.wait()
        self.under_way -= 1
        return [ValueError(f"{number} is negative") if number < 0 else number * 10 for number in batch]


async def _until_under_way(station: Station, batches: int = 1) -> None:
    while station.under_way < batches:
        await asyncio.sleep(0)


async def test_a_lone_item_passes_at_once() -> None:
    station = Station()
    batcher = Batcher(station, max_batch=10)
    assert await batcher.submit(1) == 10
    assert await batcher.submit(2) == 20
    assert station.batches == [[1], [2]]


async def test_what_waits_becomes_one_batch() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=10)
    first = batcher.enqueue(1)
    await _until_under_way(station)
    others = [batcher.enqueue(number) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    assert batcher.waiting == 3
    station.open.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert station.batches == [[1], [2, 3, 4]]
    assert batcher.waiting == 0


async def test_a_batch_has_its_bound() -> None:
    station = Station()
    sizes: list[int] = []
    batcher = Batcher(station, max_batch=3, observe_size=sizes.append)
    await asyncio.gather(*(batcher.submit(number) for number in range(8)))
    assert station.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert sizes == [3, 3, 2]


async def test_an_outcome_that_is_an_error_reaches_its_caller_alone() -> None:
    batcher = Batcher(Station(), max_batch=10)
    outcomes = await asyncio.gather(*(batcher.submit(number) for number in (1, -2, 3)), return_exceptions=True)
    assert outcomes[0] == 10
    assert outcomes[2] == 30
    assert str(outcomes[1]) == "-2 is negative"


async def test_an_error_that_is_raised_reaches_all_of_the_batch_and_no_other() -> None:
    calls = 0

    async def fail_once(batch: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the database is away")
        return batch

    batcher: Batcher[int, int] = Batcher(fail_once, max_batch=2)
    outcomes = await asyncio.gather(*(batcher.submit(number) for number in range(4)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["the database is away", "the database is away", "2", "3"]


async def test_a_handler_that_forgets_somebody_fails_the_batch() -> None:
    async def forget(batch: list[int]) -> list[int]:
        return batch[1:]

    batcher: Batcher[int, int] = Batcher(forget, max_batch=10)
    outcomes = await asyncio.gather(*(batcher.submit(number) for number in range(2)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["2 items went into a batch and 1 outcomes came out"] * 2


async def test_a_full_queue_refuses_and_takes_again_later() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=1, max_waiting=2)
    accepted = [batcher.enqueue(0)]
    await _until_under_way(station)
    accepted += [batcher.enqueue(1), batcher.enqueue(2)]
    with pytest.raises(Overloaded) as refusal:
        await batcher.submit(3)
    assert refusal.value.retry_after_s
    station.open.set()
    assert await asyncio.gather(*accepted) == [0, 10, 20]
    assert await batcher.submit(4) == 40


async def test_a_caller_who_gives_up_while_waiting_is_dropped() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=10)
    first = asyncio.create_task(batcher.submit(1))
    await _until_under_way(station)
    second, third = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
    await asyncio.sleep(0)
    second.cancel()
    station.open.set()
    assert (await first, await third) == (10, 30)
    assert second.cancelled()
    assert station.batches == [[1], [3]]


async def test_a_caller_who_gives_up_under_way_leaves_the_others_alone() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=10)
    callers = [asyncio.create_task(batcher.submit(number)) for number in (1, -2, 3)]
    await _until_under_way(station)
    callers[0].cancel()
    callers[1].cancel()
    station.open.set()
    assert await callers[2] == 30
    assert station.batches == [[1, -2, 3]]


async def test_when_everybody_gave_up_nothing_is_handled_and_the_next_is() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=2)
    first = batcher.enqueue(1)
    await _until_under_way(station)
    for future in [batcher.enqueue(number) for number in range(2, 7)]:
        future.cancel()
    station.open.set()
    assert await first == 10
    await batcher.drain()
    assert await batcher.submit(7) == 70
    assert station.batches == [[1], [7]]


async def test_batches_run_beside_each_other_up_to_the_concurrency() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=1, concurrency=3)
    outcomes = [batcher.enqueue(number) for number in range(6)]
    await _until_under_way(station, batches=3)
    assert batcher.waiting == 3
    station.open.set()
    assert await asyncio.gather(*outcomes) == [0, 10, 20, 30, 40, 50]
    assert station.most_under_way == 3


async def test_drain_waits_for_all_that_is_queued() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=2)
    outcomes = [batcher.enqueue(number) for number in range(5)]
    draining = asyncio.create_task(batcher.drain())
    await _until_under_way(station)
    assert not draining.done()
    station.open.set()
    await draining
    assert all(outcome.done() for outcome in outcomes)
    # With nothing to do, it returns.
    await batcher.drain()


@given(
    arrivals=st.lists(st.lists(st.integers(-5, 100), max_size=12), max_size=8),
    max_batch=st.integers(1, 7),
    given_up=st.sets(st.integers(0, 95), max_size=10),
)
def test_nothing_is_lost_nothing_comes_twice_and_order_is_kept(
    arrivals: list[list[int]], max_batch: int, given_up: set[int]
) -> None:
    async def play() -> None:
        handled: list[tuple[int, int]] = []

        async def handle(batch: list[tuple[int, int]]) -> list[int | BaseException]:
            assert 1 <= len(batch) <= max_batch
            handled.extend(batch)
            await asyncio.sleep(0)
            return [ValueError(number) if number < 0 else number for _, number in batch]

        batcher: Batcher[tuple[int, int], int] = Batcher(handle, max_batch=max_batch)
        items: list[tuple[int, int]] = []
        futures: list[asyncio.Future[int]] = []
        for together in arrivals:
            for number in together:
                items.append((len(items), number))
                futures.append(batcher.enqueue(items[-1]))
                if len(futures) - 1 in given_up:
                    futures[-1].cancel()
            await asyncio.sleep(0)
        await batcher.drain()
        # An item is cancelled before the event loop runs on, and so it is never handled.
        assert handled == [item for item in items if item[0] not in given_up]
        for (place, number), future in zip(items, futures, strict=True):
            if place in given_up:
                assert future.cancelled()
            elif number < 0:
                assert isinstance(future.exception(), ValueError)
            else:
                assert future.result() == number

    asyncio.run(play())


async def test_gathering_waits_while_items_keep_coming_and_no_longer() -> None:
    station = Station()
    batcher = Batcher(station, max_batch=100, gather=True)
    futures = []
    for number in range(5):
        futures.append(batcher.enqueue(number))
        await asyncio.sleep(0)
    assert station.batches == []
    assert await asyncio.gather(*futures) == [0, 10, 20, 30, 40]
    assert station.batches == [[0, 1, 2, 3, 4]]


async def test_gathering_stops_at_a_full_batch() -> None:
    station = Station()
    batcher = Batcher(station, max_batch=2, gather=True)
    await asyncio.gather(*(batcher.submit(number) for number in range(5)))
    assert station.batches == [[0, 1], [2, 3], [4]]


async def test_a_gathering_batcher_survives_that_everybody_gives_up() -> None:
    station = Station()
    batcher = Batcher(station, max_batch=2, gather=True)
    batcher.enqueue(1).cancel()
    await batcher.drain()
    assert station.batches == []
    assert await batcher.submit(2) == 20


async def test_who_can_not_afford_a_future_is_called() -> None:
    station = Station()
    batcher = Batcher(station, max_batch=10, max_waiting=3)
    received: list[object] = []
    for number in (1, -2):
        batcher.enqueue_for(received.append, number)
    third = batcher.enqueue(3)
    with pytest.raises(Overloaded):
        batcher.enqueue_for(received.append, 4)
    assert await third == 30
    assert received[0] == 10
    assert isinstance(received[1], ValueError)
    assert station.batches == [[1, -2, 3]]


async def test_a_batch_that_fails_reaches_all_who_are_called() -> None:
    error = RuntimeError("all of it")

    async def fail(batch: list[int]) -> Sequence[int]:
        raise error

    batcher: Batcher[int, int] = Batcher(fail, max_batch=10)
    received: list[object] = []
    batcher.enqueue_for(received.append, 1)
    batcher.enqueue_for(received.append, 2)
    await batcher.drain()
    assert received == [error, error]


async def test_a_receiver_that_fails_takes_nobody_with_it() -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    batcher = Batcher(Station(), max_batch=10)

    def fail(outcome: object) -> None:
        raise RuntimeError("no hands")

    batcher.enqueue_for(fail, 1)
    assert await batcher.submit(2) == 20
    assert [str(context["exception"]) for context in failures] == ["no hands"]
    assert await batcher.submit(3) == 30


async def test_what_waited_too_long_is_turned_away_and_never_handled() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=10, patience_s=0.001)
    first = batcher.enqueue(1)
    await _until_under_way(station)
    late = batcher.enqueue(2)
    await asyncio.sleep(0.01)
    station.open.set()
    with pytest.raises(Overloaded) as error:
        await late
    assert (await first, error.value.outcome) == (10, "not_done")
    assert station.batches == [[1]]


async def test_a_wait_that_began_elsewhere_counts() -> None:
    station = Station(is_open=False)
    batcher = Batcher(station, max_batch=10, patience_s=3600.0)
    first = batcher.enqueue(1)
    await _until_under_way(station)
    now = asyncio.get_running_loop().time()
    just, too_long = batcher.enqueue(2, since=now - 3000.0), batcher.enqueue(3, since=now - 4000.0)
    station.open.set()
    with pytest.raises(Overloaded):
        await too_long
    assert (await first, await just) == (10, 20)
    assert station.batches == [[1], [2]]
