"""What the dispatcher counts and times is what happened, once."""

import asyncio
from datetime import timedelta
from uuid import UUID

import msgspec
from prometheus_client import REGISTRY
from tests.integration.dispatcher.sweepers import make_sweeper
from tests.integration.dispatcher.watched import Watched, failure_of, results_of
from tests.predictions import accepted, statuses_of, submission

from foretell.contracts import queues
from foretell.contracts.messages import Result, encode
from foretell.domain.predictions.store import Store
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.dispatcher.settling import ResultsLoop, Settler

_OUTPUT = msgspec.Raw(b'{"prediction":1}')
_MODEL = {"model": "flight-delay", "version": "1.0.0"}


def _value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"foretell_{name}", labels) or 0.0


async def test_predictions_are_timed_from_acceptance_to_settlement_once(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    count, total = (_value(f"prediction_duration_seconds_{each}", **_MODEL) for each in ("count", "sum"))
    done, missed = _value("predictions_settled_total", status="succeeded", code=""), "model_error"
    failures = _value("predictions_settled_total", status="failed", code=missed)
    first, second, failing = await accepted(
        store, submission(ada, age_s=1000), submission(ada, age_s=200), submission(ada, age_s=30)
    )
    before = now()
    # The second one comes twice: in one batch with the first, and later.
    again = encode(results_of(Result(second, output=_OUTPUT)))
    await broker.put(
        queues.RESULTS,
        encode(results_of(Result(first, output=_OUTPUT), Result(second, output=_OUTPUT))),
        encode(results_of(failure_of(failing))),
        again,
    )
    consumer = await broker.consume(queues.RESULTS, prefetch=64)
    stopping = asyncio.Event()
    settling = asyncio.create_task(ResultsLoop(consumer, Settler(store, broker), stopping).run())
    while "queued" in await statuses_of(database, [first, second, failing]):
        await asyncio.sleep(0.01)
    await broker.put(queues.RESULTS, again)
    while await broker.ready(queues.RESULTS):
        await asyncio.sleep(0.01)
    stopping.set()
    await settling
    await consumer.close()
    took = (now() - before).total_seconds()
    assert _value("prediction_duration_seconds_count", **_MODEL) - count == 3
    # To the millisecond, and not before the moment in which they were accepted.
    assert 1230 - 0.01 <= _value("prediction_duration_seconds_sum", **_MODEL) - total <= 1230 + 3 * took + 5
    assert _value("predictions_settled_total", status="succeeded", code="") - done == 2
    assert _value("predictions_settled_total", status="failed", code=missed) - failures == 1


async def test_what_expires_is_no_answer_of_a_model(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    count = _value("prediction_duration_seconds_count", **_MODEL)
    (late,) = await accepted(store, submission(ada, expires_at=now() - timedelta(seconds=1)))
    await make_sweeper(database, store, broker).expire()
    assert await statuses_of(database, [late]) == ["failed"]
    assert _value("prediction_duration_seconds_count", **_MODEL) == count


async def test_dead_letters_are_counted_by_the_queue_they_come_from(
    database: Database, store: Store, broker: Watched
) -> None:
    await broker.put(queues.dead_queue(queues.TASKS), b"garbage", b"more")
    await broker.put(queues.RESULTS, b"waits")
    await make_sweeper(database, store, broker).bury_dead_letters()
    assert _value("dead_letters", queue=queues.TASKS) == 2
    assert _value("queue_ready_messages", queue=queues.dead_queue(queues.TASKS)) == 2
    assert _value("dead_letters", queue=queues.RESULTS) == 0
    assert _value("queue_ready_messages", queue=queues.RESULTS) == 1
    await broker.take_all(queues.dead_queue(queues.TASKS))
    await make_sweeper(database, store, broker).bury_dead_letters()
    assert _value("dead_letters", queue=queues.TASKS) == 0
