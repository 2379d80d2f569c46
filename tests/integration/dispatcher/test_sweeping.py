"""Each sweep does what it says, and no more."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.integration.dispatcher.watched import Watched, failure_of, results_of
from tests.predictions import accepted, balance_of, statuses_of, submission, succeeded, view_of
from tests.tracers import TRACEPARENT, noted

from foretell.broker.port import Delivery
from foretell.contracts import queues
from foretell.contracts.messages import Result, Task, TaskEnvelope, TasksKept, decode_tasks, encode
from foretell.domain.credits.ledger import Balance
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Store
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError
from foretell.kit.tracing import TraceContext
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.dispatcher.settling import Settler
from foretell.services.dispatcher.sweeping import Sweeper

# What the sweeps find is tested on both databases elsewhere; what they do about it is the same on either.
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)

_DEAD_TASKS = queues.dead_queue(queues.TASKS)
_DEAD_RESULTS = queues.dead_queue(queues.RESULTS)
PULSE_S = 4.0


def make_sweeper(
    database: Database,
    store: Store,
    broker: Watched,
    in_hand: InHand | None = None,
    clock: Callable[[], float] = time.monotonic,
    **settings: float,
) -> Sweeper:
    # The database and broker of the settings are not those that are used.
    given = {"sweep_interval_s": 0.01, "worker_pools": ("gpu",), "task_pulse_s": PULSE_S, **settings}
    own = DispatcherSettings.model_validate(given)
    settler = Settler(store, broker)
    in_hand = in_hand or InHand(PULSE_S, listening_since=lambda: 0.0)
    return Sweeper(database, store, broker, settler, in_hand, own, clock=clock)


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Ears:
    """A subscription: since when it has listened."""

    def __init__(self) -> None:
        self.since: float | None = -1_000.0


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def in_hand(clock: Clock, ears: Ears) -> InHand:
    return InHand(PULSE_S, listening_since=lambda: ears.since, clock=clock)


@pytest.fixture
def sweeper(database: Database, store: Store, broker: Watched, in_hand: InHand, clock: Clock) -> Sweeper:
    return make_sweeper(database, store, broker, in_hand, clock)


async def _look_twice(sweeper: Sweeper, clock: Clock) -> None:
    """What seems to be lost is lost when it still seems so two pulses later."""
    await sweeper.publish_lost()
    clock.now += 2 * PULSE_S
    await sweeper.publish_lost()


async def _tasks(broker: Watched, queue: str = queues.TASKS) -> list[TaskEnvelope]:
    return [decode_tasks(body) for body in await broker.take_all(queue)]


async def _mark(store: Store, identifier: UUID, *, published_s_ago: float) -> None:
    await store.mark_published([identifier], now() - timedelta(seconds=published_s_ago))


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
    await _mark(store, marked, published_s_ago=1)
    await settle(store, [succeeded(ended)])
    await sweeper.publish_forgotten()
    (envelope,) = await _tasks(broker)
    (task,) = envelope.tasks
    assert (envelope.model, envelope.version) == ("flight-delay", "1.0.0")
    assert (task.id, task.stage, bytes(task.payload)) == (old, "features", payload)
    assert [task.id for one in await _tasks(broker, "ml_tasks.gpu") for task in one.tasks] == [pooled]
    assert (await view_of(database, ada, old)).published_at == envelope.published_at
    await sweeper.publish_forgotten()
    assert await _tasks(broker) == []


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
    assert [task.id for one in await _tasks(broker) for task in one.tasks] == [identifier]


async def test_very_many_are_published_in_envelopes(store: Store, broker: Watched, sweeper: Sweeper, ada: UUID) -> None:
    ids = await accepted(store, *(submission(ada, age_s=60) for _ in range(1100)))
    await sweeper.publish_forgotten()
    envelopes = await _tasks(broker)
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
    assert sorted(task.id for one in await _tasks(broker) for task in one.tasks) == sorted(set(ids) - {ids[2]})
    assert await statuses_of(database, ids) == ["queued", "queued", "failed", "queued", "queued"]
    refused = await view_of(database, ada, ids[2])
    assert refused.error is not None
    assert refused.error.code == "input_too_large"
    assert (await balance_of(database, ada)).held == before.held + 4
    # It is not tried for ever.
    await sweeper.publish_forgotten()
    assert await _tasks(broker) == []


# What was lost.


async def test_what_was_published_long_ago_is_published_again_when_nothing_waits(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID
) -> None:
    lost, recent = await accepted(store, submission(ada, age_s=61), submission(ada, age_s=61))
    await _mark(store, lost, published_s_ago=60)
    await _mark(store, recent, published_s_ago=5)
    await _look_twice(sweeper, clock)
    assert [task.id for one in await _tasks(broker) for task in one.tasks] == [lost]
    # It is young again.
    await _look_twice(sweeper, clock)
    assert broker.published == [queues.TASKS]


@pytest.mark.parametrize("queue", [queues.TASKS, queues.RESULTS])
async def test_what_may_still_wait_in_a_queue_is_not_lost(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID, queue: str
) -> None:
    (identifier,) = await accepted(store, submission(ada, age_s=61))
    await _mark(store, identifier, published_s_ago=60)
    await broker.put(queue, b"something")
    await _look_twice(sweeper, clock)
    assert broker.published == []
    await broker.take_all(queue)
    await _look_twice(sweeper, clock)
    assert broker.published == [queues.TASKS]


async def test_a_pool_that_nobody_serves_does_not_hide_what_another_lost(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID
) -> None:
    stuck = await accepted(store, *(submission(ada, age_s=70, pool="gpu") for _ in range(1001)))
    (lost,) = await accepted(store, submission(ada, age_s=65))
    await store.mark_published([*stuck, lost], now() - timedelta(seconds=60))
    await broker.put("ml_tasks.gpu", b"the first of many")
    await _look_twice(sweeper, clock)
    assert [task.id for one in await _tasks(broker) for task in one.tasks] == [lost]
    assert await broker.ready("ml_tasks.gpu") == 1


async def test_nothing_is_lost_at_first_sight(
    store: Store, broker: Watched, sweeper: Sweeper, clock: Clock, ada: UUID
) -> None:
    """It may be in the hands of a worker that has not yet spoken of it, or on its way from one to the next."""
    (identifier,) = await accepted(store, submission(ada, age_s=61))
    await _mark(store, identifier, published_s_ago=60)
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
    assert [task.id for one in await _tasks(broker) for task in one.tasks] == [lost]
    # It falls silent, and the broker has lost it.
    for _ in range(queues.PULSES_OF_SILENCE + 1):
        clock.now += PULSE_S
        await sweeper.publish_lost()
    assert broker.published == [queues.TASKS]
    await _look_twice(sweeper, clock)
    assert [task.id for one in await _tasks(broker) for task in one.tasks] == [kept]


async def test_very_many_in_hand_do_not_hide_what_was_lost(
    store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, clock: Clock, ada: UUID
) -> None:
    kept = await accepted(store, *(submission(ada, age_s=70) for _ in range(1001)))
    (lost,) = await accepted(store, submission(ada, age_s=65))
    await store.mark_published([*kept, lost], now() - timedelta(seconds=60))
    in_hand.hear(TasksKept("worker-1", kept, "held"))
    await _look_twice(sweeper, clock)
    assert [task.id for one in await _tasks(broker) for task in one.tasks] == [lost]


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
    await _mark(store, identifier, published_s_ago=60)
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
        await _mark(store, identifier, published_s_ago=silence_s + 1)
    await _mark(store, too_new, published_s_ago=0)
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
    assert [task.id for one in await _tasks(broker) for task in one.tasks] == [lost]


async def test_nobody_is_missed_while_nothing_can_be_heard(
    store: Store, broker: Watched, sweeper: Sweeper, ears: Ears, clock: Clock, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada, age_s=26))
    await _mark(store, identifier, published_s_ago=25)
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


# Dead letters.


def _task(*ids: UUID, published_at: datetime | None = None) -> bytes:
    tasks = [msgspec.Raw(b'{"id":"%s","stage":"input","payload":{}}' % str(each).encode()) for each in ids]
    return encode({"model": "m", "version": "1", "published_at": published_at or now(), "tasks": tasks})


def _start_last_attempt(in_hand: InHand, *ids: UUID) -> None:
    """As a worker says it before it runs what two have died of."""
    for identifier in ids:
        in_hand.hear(TasksKept("worker-1", [identifier], "held", queues.DELIVERY_LIMIT))


async def test_tasks_that_nobody_survived_fail_and_the_credits_are_back(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    first, second, pooled = await accepted(store, *(submission(ada) for _ in range(3)))
    _start_last_attempt(in_hand, first, second, pooled)
    await broker.put(_DEAD_TASKS, _task(first), _task(second))
    await broker.put("ml_tasks.gpu.dead", _task(pooled))
    await sweeper.bury_dead_letters()
    assert broker.published == []
    view = await view_of(database, ada, first)
    assert view.error is not None
    assert view.error.code == "undeliverable"
    assert await statuses_of(database, [second, pooled]) == ["failed", "failed"]
    assert await balance_of(database, ada) == Balance(10_000, 0)
    assert await broker.ready(_DEAD_TASKS) == await broker.ready("ml_tasks.gpu.dead") == 0


async def test_the_trace_of_a_task_that_nobody_survived_ends_too(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    first, second = await accepted(store, submission(ada), submission(ada))
    _start_last_attempt(in_hand, first)
    trace = TraceContext(TRACEPARENT)
    task = Task(first, "input", msgspec.Raw(b"{}"), trace)
    envelope = TaskEnvelope(model="m", version="1", published_at=now(), tasks=[task])
    await broker.put(_DEAD_TASKS, encode(envelope))
    await broker.put(_DEAD_RESULTS, encode(results_of(Result(second, output=msgspec.Raw(b"1"), trace=trace))))
    with noted() as notebook, capture_logs() as lines:
        await sweeper.bury_dead_letters()
    assert await statuses_of(database, [first, second]) == ["failed", "succeeded"]
    assert {span.parent for span in notebook.spans} == {trace}
    assert [(span.attributes["messaging.destination.name"], span.ended) for span in notebook.spans] == [
        (_DEAD_TASKS, True),
        (_DEAD_RESULTS, True),
    ]
    settled = {line["prediction_id"]: line.get("code") for line in lines if line["event"] == "prediction_settled"}
    assert settled == {first: "undeliverable", second: None}


async def _lose_every_delivery(broker: Watched) -> None:
    """Take a task as often as it may be and give it back, as workers do that die, or lose the broker."""
    for _ in range(queues.DELIVERY_LIMIT):
        consumer = await broker.consume(queues.TASKS, prefetch=1)
        deliveries: list[Delivery] = await consumer.receive(1)
        assert len(deliveries) == 1
        await consumer.close()
    await broker.wait_for(_DEAD_TASKS, 1)


async def test_a_task_that_was_given_up_by_every_worker_fails(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    """The way into the dead letters, too."""
    (identifier,) = await accepted(store, submission(ada))
    await broker.put(queues.TASKS, _task(identifier))
    await _lose_every_delivery(broker)
    _start_last_attempt(in_hand, identifier)
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["failed"]


async def test_tasks_that_lived_through_an_outage_are_published_again_each_alone(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    ids = await accepted(store, *(submission(ada) for _ in range(3)))
    ended, *unlucky = ids
    await settle(store, [succeeded(ended)])
    _start_last_attempt(in_hand, *ids)
    await broker.put(_DEAD_TASKS, _task(*ids))
    # A worker lost the broker, and lives.
    in_hand.hear(TasksKept("worker-1", [], "held", cut_off=True))
    for _ in range(2):
        await sweeper.bury_dead_letters()
    assert await statuses_of(database, unlucky) == ["queued", "queued"]
    assert broker.published == [queues.TASKS] * 2
    consumer = await broker.consume(queues.TASKS, prefetch=10)
    copies = await consumer.receive(10)
    await consumer.acknowledge(copies)
    await consumer.close()
    assert sorted(decode_tasks(copy.body).tasks[0].id for copy in copies) == sorted(unlucky)
    # With all their attempts before them.
    assert [copy.attempts for copy in copies] == [1, 1]
    # Another round takes another outage, and each has its own last attempt.
    assert not any(in_hand.last_attempt_started(identifier) for identifier in unlucky)
    _start_last_attempt(in_hand, *unlucky)
    await broker.put(_DEAD_TASKS, *(copy.body for copy in copies))
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, unlucky) == ["failed", "failed"]
    assert await broker.ready(_DEAD_TASKS) == await broker.ready(queues.TASKS) == 0


async def test_what_is_dead_twice_over_is_published_again_once(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    """A copy of it was under way at the same time, and had the same bad luck."""
    (identifier,) = await accepted(store, submission(ada))
    await broker.put(_DEAD_TASKS, *(_task(identifier) for _ in range(3)))
    in_hand.hear(TasksKept("worker-1", [], "held", cut_off=True))
    await sweeper.bury_dead_letters()
    assert broker.published == [queues.TASKS]
    assert await broker.ready(_DEAD_TASKS) == 0
    assert await statuses_of(database, [identifier]) == ["queued"]


async def test_what_no_worker_was_heard_to_begin_is_excused_once(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    """Those that it was delivered to may have been cut off, and still be so; or they died before they could speak."""
    (identifier,) = await accepted(store, submission(ada))
    await broker.put(queues.TASKS, _task(identifier))
    await _lose_every_delivery(broker)
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["queued"]
    await _lose_every_delivery(broker)
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["failed"]
    assert broker.published == [queues.TASKS]


async def test_who_was_cut_off_itself_ends_nothing_that_is_older(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ears: Ears, clock: Clock,
    ada: UUID,
) -> None:  # fmt: skip
    older, younger = await accepted(store, submission(ada), submission(ada))
    _start_last_attempt(in_hand, older, younger)
    ears.since = None
    await broker.put(_DEAD_TASKS, _task(older, published_at=now() - timedelta(seconds=6)))
    await broker.put(_DEAD_TASKS, _task(younger, published_at=now() - timedelta(seconds=3)))
    # While nothing can be heard, nothing is decided.
    await sweeper.bury_dead_letters()
    assert await broker.ready(_DEAD_TASKS) == 2
    # It has been back for 5 s.
    ears.since = clock.now - 5.0
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [older, younger]) == ["queued", "failed"]
    assert broker.published == [queues.TASKS]


async def test_who_stood_still_ends_nothing_that_is_older(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, clock: Clock, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    _start_last_attempt(in_hand, identifier)
    clock.now += 60.0
    await broker.put(_DEAD_TASKS, _task(identifier, published_at=now() - timedelta(seconds=30)))
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["queued"]


async def test_what_a_wrong_clock_dated_into_the_future_is_published_again(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    """From when it is nobody knows; the next time, it has the time of the dispatcher."""
    (identifier,) = await accepted(store, submission(ada))
    _start_last_attempt(in_hand, identifier)
    await broker.put(_DEAD_TASKS, _task(identifier, published_at=now() + timedelta(hours=2)))
    await sweeper.bury_dead_letters()
    (again,) = await broker.take_all(queues.TASKS)
    assert decode_tasks(again).published_at <= now()
    _start_last_attempt(in_hand, identifier)
    await broker.put(_DEAD_TASKS, again)
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["failed"]


async def test_unlucky_tasks_that_can_t_be_published_stay_dead_letters(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    unlucky, ended = await accepted(store, submission(ada), submission(ada))
    await broker.put(_DEAD_TASKS, _task(unlucky))
    await broker.put(_DEAD_RESULTS, encode(results_of(Result(ended, output=msgspec.Raw(b"1")))))
    in_hand.hear(TasksKept("worker-1", [], "held", cut_off=True))
    broker.away = True
    with pytest.raises(ForetellError):
        await sweeper.bury_dead_letters()
    await broker.wait_for(_DEAD_TASKS, 1)
    broker.away = False
    await sweeper.bury_dead_letters()
    assert broker.published == [queues.TASKS]
    assert await statuses_of(database, [unlucky, ended]) == ["queued", "succeeded"]


async def test_results_that_were_only_unlucky_are_settled(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    first, second = await accepted(store, submission(ada), submission(ada))
    results = results_of(Result(first, output=msgspec.Raw(b"1")), failure_of(second))
    await broker.put(_DEAD_RESULTS, encode(results))
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [first, second]) == ["succeeded", "failed"]
    assert await broker.ready(_DEAD_RESULTS) == 0


async def test_garbage_stays_where_it_is_and_is_looked_at_once(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    garbage = [b"", b"not JSON", b"\xff\xfe", b"[" * 100_000, b"{}"]
    await broker.put(_DEAD_TASKS, *garbage)
    for _ in range(5):
        await sweeper.bury_dead_letters()
    assert broker.published == [_DEAD_TASKS] * 5
    # What comes later is found behind it.
    (identifier,) = await accepted(store, submission(ada))
    _start_last_attempt(in_hand, identifier)
    await broker.put(_DEAD_TASKS, _task(identifier))
    for _ in range(5):
        await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["failed"]
    assert len(broker.published) == 10
    assert sorted(await broker.take_all(_DEAD_TASKS)) == sorted(garbage)


async def test_garbage_that_is_too_large_by_now_stays_and_is_in_nobodys_way(
    store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    _start_last_attempt(in_hand, identifier)
    garbage = [b"small", b"x" * 5000]
    await broker.put(_DEAD_TASKS, *garbage, _task(identifier))
    broker.most_bytes = 1000
    await sweeper.bury_dead_letters()
    await sweeper.bury_dead_letters()
    assert sorted(await broker.take_all(_DEAD_TASKS)) == sorted(garbage)


async def test_much_garbage_is_looked_through_piece_by_piece_and_then_left_alone(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    _start_last_attempt(in_hand, identifier)
    await broker.put(_DEAD_TASKS, *[b"garbage"] * 610, _task(identifier))
    published = []
    for _ in range(4):
        await sweeper.bury_dead_letters()
        published.append(len(broker.published))
    # No look takes more than its share, and when all is seen none takes anything.
    assert published == [500, 610, 610, 610]
    assert await statuses_of(database, [identifier]) == ["failed"]
    assert await broker.ready(_DEAD_TASKS) == 610


async def test_dead_letters_that_the_database_cannot_take_do_not_stand_in_the_way(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    first, spoilt, last = await accepted(store, *(submission(ada) for _ in range(3)))
    bodies = [encode(results_of(Result(each, output=msgspec.Raw(b'"x"')))) for each in (first, spoilt, last)]
    # Letters that are none: nobody parsed them on the way.
    bodies[1] = bodies[1].replace(b'"x"', b'"\xff"')
    await broker.put(_DEAD_RESULTS, *bodies)
    for _ in range(3):
        await sweeper.bury_dead_letters()
    assert await statuses_of(database, [first, spoilt, last]) == ["succeeded", "queued", "succeeded"]
    assert await broker.take_all(_DEAD_RESULTS) == [bodies[1]]
    assert broker.published == [_DEAD_RESULTS]


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
    await broker.put(_DEAD_TASKS, b"garbage", *(_task(each) for each in dead), b"more garbage")
    stopping = asyncio.Event()
    sweepers = []
    for _ in range(2):
        in_hand = InHand(PULSE_S, listening_since=lambda: 0.0)
        _start_last_attempt(in_hand, *dead)
        sweepers.append(make_sweeper(database, store, broker, in_hand))
    both = [asyncio.create_task(each.run(stopping)) for each in sweepers]
    while "queued" in await statuses_of(database, [*late, *dead]):
        await asyncio.sleep(0.02)
    stopping.set()
    await asyncio.gather(*both)
    assert set(await statuses_of(database, [*late, *dead])) == {"failed"}
    assert sorted(await broker.take_all(_DEAD_TASKS)) == [b"garbage", b"more garbage"]
    # Twice is harmless, never is not.
    assert {task.id for one in await _tasks(broker) for task in one.tasks} == set(forgotten)
    assert await balance_of(database, ada) == Balance(10_000 - 20, 20)
