"""Dead letters end their predictions, are published again, or stay: whatever their contents and history ask for."""

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.integration.dispatcher.sweepers import DEAD_TASKS, Clock, Ears, dead_task, start_last_attempt
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
from foretell.services.dispatcher.sweeping import Sweeper

# What the sweeps find is tested on both databases elsewhere; what they do about it is the same on either.
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)

_DEAD_RESULTS = queues.dead_queue(queues.RESULTS)


async def test_tasks_that_nobody_survived_fail_and_the_credits_are_back(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    first, second, pooled = await accepted(store, *(submission(ada) for _ in range(3)))
    start_last_attempt(in_hand, first, second, pooled)
    await broker.put(DEAD_TASKS, dead_task(first), dead_task(second))
    await broker.put("ml_tasks.gpu.dead", dead_task(pooled))
    await sweeper.bury_dead_letters()
    assert broker.published == []
    view = await view_of(database, ada, first)
    assert view.error is not None
    assert view.error.code == "undeliverable"
    assert await statuses_of(database, [second, pooled]) == ["failed", "failed"]
    assert await balance_of(database, ada) == Balance(10_000, 0)
    assert await broker.ready(DEAD_TASKS) == await broker.ready("ml_tasks.gpu.dead") == 0


async def test_the_trace_of_a_task_that_nobody_survived_ends_too(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    first, second = await accepted(store, submission(ada), submission(ada))
    start_last_attempt(in_hand, first)
    trace = TraceContext(TRACEPARENT)
    task = Task(first, "input", msgspec.Raw(b"{}"), trace)
    envelope = TaskEnvelope(model="m", version="1", published_at=now(), tasks=[task])
    await broker.put(DEAD_TASKS, encode(envelope))
    await broker.put(_DEAD_RESULTS, encode(results_of(Result(second, output=msgspec.Raw(b"1"), trace=trace))))
    with noted() as notebook, capture_logs() as lines:
        await sweeper.bury_dead_letters()
    assert await statuses_of(database, [first, second]) == ["failed", "succeeded"]
    assert {span.parent for span in notebook.spans} == {trace}
    assert [(span.attributes["messaging.destination.name"], span.ended) for span in notebook.spans] == [
        (DEAD_TASKS, True),
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
    await broker.wait_for(DEAD_TASKS, 1)


async def test_a_task_that_was_given_up_by_every_worker_fails(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    """The way into the dead letters, too."""
    (identifier,) = await accepted(store, submission(ada))
    await broker.put(queues.TASKS, dead_task(identifier))
    await _lose_every_delivery(broker)
    start_last_attempt(in_hand, identifier)
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["failed"]


async def test_tasks_that_lived_through_an_outage_are_published_again_each_alone(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    ids = await accepted(store, *(submission(ada) for _ in range(3)))
    ended, *unlucky = ids
    await settle(store, [succeeded(ended)])
    start_last_attempt(in_hand, *ids)
    await broker.put(DEAD_TASKS, dead_task(*ids))
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
    start_last_attempt(in_hand, *unlucky)
    await broker.put(DEAD_TASKS, *(copy.body for copy in copies))
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, unlucky) == ["failed", "failed"]
    assert await broker.ready(DEAD_TASKS) == await broker.ready(queues.TASKS) == 0


async def test_what_is_dead_twice_over_is_published_again_once(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    """A copy of it was under way at the same time, and had the same bad luck."""
    (identifier,) = await accepted(store, submission(ada))
    await broker.put(DEAD_TASKS, *(dead_task(identifier) for _ in range(3)))
    in_hand.hear(TasksKept("worker-1", [], "held", cut_off=True))
    await sweeper.bury_dead_letters()
    assert broker.published == [queues.TASKS]
    assert await broker.ready(DEAD_TASKS) == 0
    assert await statuses_of(database, [identifier]) == ["queued"]


async def test_what_no_worker_was_heard_to_begin_is_excused_once(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, ada: UUID
) -> None:
    """Those that it was delivered to may have been cut off, and still be so; or they died before they could speak."""
    (identifier,) = await accepted(store, submission(ada))
    await broker.put(queues.TASKS, dead_task(identifier))
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
    start_last_attempt(in_hand, older, younger)
    ears.since = None
    await broker.put(DEAD_TASKS, dead_task(older, published_at=now() - timedelta(seconds=6)))
    await broker.put(DEAD_TASKS, dead_task(younger, published_at=now() - timedelta(seconds=3)))
    # While nothing can be heard, nothing is decided.
    await sweeper.bury_dead_letters()
    assert await broker.ready(DEAD_TASKS) == 2
    # It has been back for 5 s.
    ears.since = clock.now - 5.0
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [older, younger]) == ["queued", "failed"]
    assert broker.published == [queues.TASKS]


async def test_who_stood_still_ends_nothing_that_is_older(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, clock: Clock, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    start_last_attempt(in_hand, identifier)
    clock.now += 60.0
    await broker.put(DEAD_TASKS, dead_task(identifier, published_at=now() - timedelta(seconds=30)))
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["queued"]


async def test_what_a_wrong_clock_dated_into_the_future_is_published_again(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    """From when it is nobody knows; the next time, it has the time of the dispatcher."""
    (identifier,) = await accepted(store, submission(ada))
    start_last_attempt(in_hand, identifier)
    await broker.put(DEAD_TASKS, dead_task(identifier, published_at=now() + timedelta(hours=2)))
    await sweeper.bury_dead_letters()
    (again,) = await broker.take_all(queues.TASKS)
    assert decode_tasks(again).published_at <= now()
    start_last_attempt(in_hand, identifier)
    await broker.put(DEAD_TASKS, again)
    await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["failed"]


async def test_unlucky_tasks_that_can_t_be_published_stay_dead_letters(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    unlucky, ended = await accepted(store, submission(ada), submission(ada))
    await broker.put(DEAD_TASKS, dead_task(unlucky))
    await broker.put(_DEAD_RESULTS, encode(results_of(Result(ended, output=msgspec.Raw(b"1")))))
    in_hand.hear(TasksKept("worker-1", [], "held", cut_off=True))
    broker.away = True
    with pytest.raises(ForetellError):
        await sweeper.bury_dead_letters()
    await broker.wait_for(DEAD_TASKS, 1)
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
    await broker.put(DEAD_TASKS, *garbage)
    for _ in range(5):
        await sweeper.bury_dead_letters()
    assert broker.published == [DEAD_TASKS] * 5
    # What comes later is found behind it.
    (identifier,) = await accepted(store, submission(ada))
    start_last_attempt(in_hand, identifier)
    await broker.put(DEAD_TASKS, dead_task(identifier))
    for _ in range(5):
        await sweeper.bury_dead_letters()
    assert await statuses_of(database, [identifier]) == ["failed"]
    assert len(broker.published) == 10
    assert sorted(await broker.take_all(DEAD_TASKS)) == sorted(garbage)


async def test_garbage_that_is_too_large_by_now_stays_and_is_in_nobodys_way(
    store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    start_last_attempt(in_hand, identifier)
    garbage = [b"small", b"x" * 5000]
    await broker.put(DEAD_TASKS, *garbage, dead_task(identifier))
    broker.most_bytes = 1000
    await sweeper.bury_dead_letters()
    await sweeper.bury_dead_letters()
    assert sorted(await broker.take_all(DEAD_TASKS)) == sorted(garbage)


async def test_much_garbage_is_looked_through_piece_by_piece_and_then_left_alone(
    database: Database, store: Store, broker: Watched, sweeper: Sweeper, in_hand: InHand, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    start_last_attempt(in_hand, identifier)
    await broker.put(DEAD_TASKS, *[b"garbage"] * 610, dead_task(identifier))
    published = []
    for _ in range(4):
        await sweeper.bury_dead_letters()
        published.append(len(broker.published))
    # No look takes more than its share, and when all is seen none takes anything.
    assert published == [500, 610, 610, 610]
    assert await statuses_of(database, [identifier]) == ["failed"]
    assert await broker.ready(DEAD_TASKS) == 610


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
