"""Each sweep does what it says, and no more."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from tests.integration.dispatcher.sweepers import (
    DEAD_TASKS,
    PULSE_S,
    Clock,
    Ears,
    dead_task,
    look_twice,
    make_sweeper,
    mark_published,
    start_last_attempt,
    tasks_in,
)
from tests.integration.dispatcher.watched import Watched
from tests.predictions import accepted, balance_of, statuses_of, submission, succeeded, view_of

from foretell.contracts import queues
from foretell.contracts.messages import TasksKept, decode_tasks
from foretell.domain.credits.ledger import Balance
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Store
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.dispatcher.sweeping import Sweeper

# What the sweeps find is tested on both databases elsewhere; what they do about it is the same on either.
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


# What was forgotten.


async def test_what_was_never_published_is_published_once(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    payload = '{"слово": "\\u0416", "n": 12345678901234567890.50}'.encode()
    old, pooled, _young, marked, ended = await accepted(
        store,
        submission(ada, age_s=60, payload=payload, stage="features"),
        submission(ada, age_s=60, pool="gpu"),
        submission(ada, age_s=1),
        submission(ada, age_s=60),
        submission(ada, age_s=60),
    )
    await mark_published(store, marked, published_s_ago=1)
    await settle(store, [succeeded(ended)])
    await sweeper.publish_forgotten()
    (envelope,) = await tasks_in(broker)
    (task,) = envelope.tasks
    assert (envelope.model, envelope.version) == ("flight-delay", "1.0.0")
    assert (task.id, task.stage, bytes(task.payload)) == (old, "features", payload)
    assert [task.id for one in await tasks_in(broker, "ml_tasks.gpu") for task in one.tasks] == [pooled]
    assert (await view_of(database, ada, old)).published_at == envelope.published_at
    await sweeper.publish_forgotten()
    assert await tasks_in(broker) == []


async def test_what_was_forgotten_waits_for_the_broker(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada, age_s=60))
    broker.away = True
    with pytest.raises(ForetellError):
        await sweeper.publish_forgotten()
    assert (await view_of(database, ada, identifier)).published_at is None
    broker.away = False
    await sweeper.publish_forgotten()
    assert [task.id for one in await tasks_in(broker) for task in one.tasks] == [identifier]


async def test_very_many_are_published_in_envelopes(store: Store, broker: Watched, sweeper: Sweeper, ada: UUID) -> None:
    ids = await accepted(store, *(submission(ada, age_s=60) for _ in range(1100)))
    await sweeper.publish_forgotten()
    envelopes = await tasks_in(broker)
    assert sorted(task.id for one in envelopes for task in one.tasks) == sorted(ids)
    assert max(len(one.tasks) for one in envelopes) == 256
    assert len(broker.published) <= 6


async def test_what_the_broker_refuses_fails_for_free_and_the_others_go_on(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    large = b'"' + b"x" * 2000 + b'"'
    before = await balance_of(database, ada)
    ids = await accepted(store, *(submission(ada, age_s=60, payload=large if n == 2 else b"{}") for n in range(5)))
    broker.most_bytes = 1500
    await sweeper.publish_forgotten()
    assert sorted(task.id for one in await tasks_in(broker) for task in one.tasks) == sorted(set(ids) - {ids[2]})
    assert await statuses_of(database, ids) == ["queued", "queued", "failed", "queued", "queued"]
    refused = await view_of(database, ada, ids[2])
    assert refused.error is not None
    assert refused.error.code == "input_too_large"
    assert (await balance_of(database, ada)).held == before.held + 4
    # It is not tried for ever.
    await sweeper.publish_forgotten()
    assert await tasks_in(broker) == []


# What was lost.


async def test_what_was_published_long_ago_is_published_again_when_nothing_waits(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID
) -> None:
    lost, recent = await accepted(store, submission(ada, age_s=61), submission(ada, age_s=61))
    await mark_published(store, lost, published_s_ago=60)
    await mark_published(store, recent, published_s_ago=5)
    await look_twice(sweeper, clock)
    assert [task.id for one in await tasks_in(broker) for task in one.tasks] == [lost]
    # It is young again.
    await look_twice(sweeper, clock)
    assert broker.published == [queues.TASKS]


@pytest.mark.parametrize("queue", [queues.TASKS, queues.RESULTS])
async def test_what_may_still_wait_in_a_queue_is_not_lost(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID, queue: str
) -> None:
    (identifier,) = await accepted(store, submission(ada, age_s=61))
    await mark_published(store, identifier, published_s_ago=60)
    await broker.put(queue, b"something")
    await look_twice(sweeper, clock)
    assert broker.published == []
    await broker.take_all(queue)
    await look_twice(sweeper, clock)
    assert broker.published == [queues.TASKS]


async def test_a_pool_that_nobody_serves_does_not_hide_what_another_lost(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID
) -> None:
    stuck = await accepted(store, *(submission(ada, age_s=70, pool="gpu") for _ in range(1001)))
    (lost,) = await accepted(store, submission(ada, age_s=65))
    await store.mark_published([*stuck, lost], now() - timedelta(seconds=60))
    await broker.put("ml_tasks.gpu", b"the first of many")
    await look_twice(sweeper, clock)
    assert [task.id for one in await tasks_in(broker) for task in one.tasks] == [lost]
    assert await broker.ready("ml_tasks.gpu") == 1


async def test_nothing_is_lost_at_first_sight(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID
) -> None:
    """It may be in the hands of a worker that has not yet spoken of it, or on its way from one to the next."""
    (identifier,) = await accepted(store, submission(ada, age_s=61))
    await mark_published(store, identifier, published_s_ago=60)
    await sweeper.publish_lost()
    clock.now += 2 * PULSE_S - 0.1
    await sweeper.publish_lost()
    assert broker.published == []
    # While something waits nothing can be said; and it may have been taken the moment before the next look.
    await broker.put(queues.TASKS, b"something")
    await sweeper.publish_lost()
    clock.now += 0.2
    await broker.take_all(queues.TASKS)
    await sweeper.publish_lost()
    assert broker.published == []
    await sweeper.publish_lost()
    assert broker.published == [queues.TASKS]


async def test_what_a_worker_has_in_hand_is_not_lost(
    store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, clock: Clock, ada: UUID
) -> None:
    kept, lost = await accepted(store, submission(ada, age_s=61), submission(ada, age_s=61))
    await store.mark_published([kept, lost], now() - timedelta(seconds=60))
    await sweeper.publish_lost()
    for _ in range(10):
        in_hand.hear(TasksKept("worker-1", [kept], "held"))
        clock.now += PULSE_S
        await sweeper.publish_lost()
        await sweeper.publish_abandoned()
    assert [task.id for one in await tasks_in(broker) for task in one.tasks] == [lost]
    # It falls silent, and the broker has lost it.
    for _ in range(queues.PULSES_OF_SILENCE + 1):
        clock.now += PULSE_S
        await sweeper.publish_lost()
    assert broker.published == [queues.TASKS]
    await look_twice(sweeper, clock)
    assert [task.id for one in await tasks_in(broker) for task in one.tasks] == [kept]


async def test_very_many_in_hand_do_not_hide_what_was_lost(
    store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, clock: Clock, ada: UUID
) -> None:
    kept = await accepted(store, *(submission(ada, age_s=70) for _ in range(1001)))
    (lost,) = await accepted(store, submission(ada, age_s=65))
    await store.mark_published([*kept, lost], now() - timedelta(seconds=60))
    in_hand.hear(TasksKept("worker-1", kept, "held"))
    await look_twice(sweeper, clock)
    assert [task.id for one in await tasks_in(broker) for task in one.tasks] == [lost]


async def test_what_a_worker_had_alone_is_published_again_when_it_falls_silent(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, clock: Clock, ada: UUID
) -> None:
    first, second, ended, returned = await accepted(store, *(submission(ada, age_s=61) for _ in range(4)))
    await store.mark_published([first, second, ended, returned], now() - timedelta(seconds=60))
    in_hand.hear(TasksKept("worker-1", [first, second, ended, returned], "alone", 2))
    in_hand.hear(TasksKept("worker-1", [returned], "returned"))
    await settle(store, [succeeded(ended)])
    clock.now += queues.PULSES_OF_SILENCE * PULSE_S
    await sweeper.publish_abandoned()
    assert broker.published == []
    clock.now += 0.1
    # Its result may be on its way.
    await broker.put(queues.RESULTS, b"something")
    await sweeper.publish_abandoned()
    assert broker.published == []
    await broker.take_all(queues.RESULTS)
    # No empty queue is needed: to the broker they were done.
    await broker.put(queues.TASKS, b"something")
    await sweeper.publish_abandoned()
    consumer = await broker.consume(queues.TASKS, prefetch=10)
    _, *copies = await consumer.receive(10)
    await consumer.close()
    # Each alone, since one of them may have ended the worker; and it is not forgotten how often that has happened.
    assert sorted(decode_tasks(copy.body).tasks[0].id for copy in copies) == sorted([first, second])
    assert [copy.attempts for copy in copies] == [3, 3]
    await sweeper.publish_abandoned()
    assert len(broker.published) == 2


async def test_silence_says_nothing_while_nothing_can_be_heard(
    store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ears: Ears, clock: Clock, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada, age_s=61))
    await mark_published(store, identifier, published_s_ago=60)
    in_hand.hear(TasksKept("worker-1", [identifier], "alone"))
    # The dispatcher stood still ...
    clock.now += 100 * PULSE_S
    in_hand.look()
    await sweeper.publish_abandoned()
    clock.now += 5.0
    # ... then the broker is away ...
    ears.since = None
    clock.now += 100 * PULSE_S
    in_hand.look()
    await sweeper.publish_abandoned()
    # ... and back.
    ears.since = clock.now
    for _ in range(queues.PULSES_OF_SILENCE):
        clock.now += PULSE_S
        in_hand.look()
        await sweeper.publish_abandoned()
    assert broker.published == []
    clock.now += 0.1
    await sweeper.publish_abandoned()
    assert broker.published == [queues.TASKS]


async def test_what_a_worker_died_with_while_nobody_listened_is_missed_after_the_usual_silence(
    store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ears: Ears, clock: Clock, ada: UUID
) -> None:
    """A dispatcher that has just started knows nothing of what was said before."""
    lost, kept, too_new = await accepted(store, *(submission(ada, age_s=20) for _ in range(3)))
    silence_s = queues.PULSES_OF_SILENCE * PULSE_S
    assert silence_s < DispatcherSettings().lost_after_s
    # The clocks of the database's rows can't be moved: what is to be past, is.
    for identifier in (lost, kept):
        await mark_published(store, identifier, published_s_ago=silence_s + 1)
    await mark_published(store, too_new, published_s_ago=0)
    ears.since = clock.now
    while clock.now < silence_s - PULSE_S / 2:
        in_hand.hear(TasksKept("worker-1", [kept], "alone"))
        await sweeper.publish_lost()
        assert broker.published == []
        clock.now += PULSE_S / 2
    in_hand.hear(TasksKept("worker-1", [kept], "alone"))
    await sweeper.publish_lost()
    clock.now += PULSE_S / 2
    await sweeper.publish_lost()
    assert [task.id for one in await tasks_in(broker) for task in one.tasks] == [lost]


async def test_nobody_is_missed_while_nothing_can_be_heard(
    store: Store, broker: Watched, sweeper: Sweeper, ears: Ears, clock: Clock, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada, age_s=26))
    await mark_published(store, identifier, published_s_ago=25)
    ears.since = None
    for _ in range(5):
        await sweeper.publish_lost()
        clock.now += PULSE_S
    assert broker.published == []


# What expired.


async def test_what_nobody_took_in_time_fails_and_its_credits_are_back(
    database: Database, store: Store, sweeper: Sweeper, ada: UUID
) -> None:
    late, on_time = await accepted(
        store, submission(ada, expires_at=now() - timedelta(seconds=1)), submission(ada, price_credits=2)
    )
    await sweeper.expire()
    await sweeper.expire()
    assert await statuses_of(database, [late, on_time]) == ["failed", "queued"]
    view = await view_of(database, ada, late)
    assert view.error is not None
    assert view.error.code == "expired"
    assert await balance_of(database, ada) == Balance(9_998, 2)


async def test_very_many_expire(database: Database, store: Store, sweeper: Sweeper, ada: UUID) -> None:
    yesterday = now() - timedelta(days=1)
    ids = await accepted(store, *(submission(ada, expires_at=yesterday) for _ in range(1001)))
    await sweeper.expire()
    assert set(await statuses_of(database, ids)) == {"failed"}


# All of them, again and again.


async def test_sweeping_goes_on_when_a_part_is_away_and_ends_when_told(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    forgotten, late = await accepted(
        store, submission(ada, age_s=60), submission(ada, expires_at=now() - timedelta(seconds=1))
    )
    broker.away = True
    stopping = asyncio.Event()
    running = asyncio.create_task(sweeper.run(stopping))
    # What needs no broker is done meanwhile.
    while await statuses_of(database, [late]) != ["failed"]:
        await asyncio.sleep(0.01)
    broker.away = False
    while (await view_of(database, ada, forgotten)).published_at is None:
        await asyncio.sleep(0.01)
    stopping.set()
    await running


async def test_two_dispatchers_sweep_without_harm(database: Database, store: Store, broker: Watched, ada: UUID) -> None:
    yesterday = now() - timedelta(days=1)
    forgotten = await accepted(store, *(submission(ada, age_s=60) for _ in range(20)))
    late = await accepted(store, *(submission(ada, expires_at=yesterday) for _ in range(20)))
    dead = await accepted(store, *(submission(ada) for _ in range(20)))
    await broker.put(DEAD_TASKS, b"garbage", *(dead_task(each) for each in dead), b"more garbage")
    stopping = asyncio.Event()
    sweepers = []
    for _ in range(2):
        in_hand = InHand(PULSE_S, listening_since=lambda: 0.0)
        start_last_attempt(in_hand, *dead)
        sweepers.append(make_sweeper(database, store, broker, in_hand))
    both = [asyncio.create_task(each.run(stopping)) for each in sweepers]
    while "queued" in await statuses_of(database, [*late, *dead]):
        await asyncio.sleep(0.02)
    stopping.set()
    await asyncio.gather(*both)
    assert set(await statuses_of(database, [*late, *dead])) == {"failed"}
    assert sorted(await broker.take_all(DEAD_TASKS)) == [b"garbage", b"more garbage"]
    # Twice is harmless, never is not.
    assert {task.id for one in await tasks_in(broker) for task in one.tasks} == set(forgotten)
    assert await balance_of(database, ada) == Balance(10_000 - 20, 20)
