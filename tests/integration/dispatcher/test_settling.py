"""Results from the queue to the books, whatever else is in the queue and whoever is away."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.integration.dispatcher.watched import Watched, failure_of, results_of
from tests.predictions import accepted, balance_of, movements_of, statuses_of, submission, view_of
from tests.tracers import TRACE_ID, TRACEPARENT, noted

from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.contracts.messages import Failure, Result, decode_finished, encode
from foretell.domain.credits.ledger import Balance
from foretell.domain.predictions.store import Earlier, Ending, Store, Submission
from foretell.kit.clock import uuid7
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable
from foretell.kit.tracing import TraceContext
from foretell.services.dispatcher.settling import MAX_ENDINGS, ResultsLoop, Settler

_OUTPUT = msgspec.Raw(b'{"prediction":1}')


class Flaky:
    """A store whose database goes away when something is settled: `away` times before, or after the commit.

    It does not manage more than `most` at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = 0
        self.lose_answers = 0
        self.most = 1_000_000
        self.sizes: list[int] = []

    @property
    def asked(self) -> int:
        return len(self.sizes)

    async def accept(self, submissions: Sequence[Submission]) -> Collection[UUID]:
        return await self._store.accept(submissions)

    async def explain(
        self, refused: Sequence[Submission]
    ) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
        return await self._store.explain(refused)

    async def mark_published(self, ids: Sequence[UUID], published_at: datetime) -> None:
        await self._store.mark_published(ids, published_at)

    async def settle(self, endings: Sequence[Ending], finished_at: datetime) -> Collection[UUID]:
        self.sizes.append(len(endings))
        if len(endings) > self.most:
            raise Unavailable(part="database")
        if self.away:
            self.away -= 1
            raise Unavailable(part="database")
        settled = await self._store.settle(endings, finished_at)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable(part="database")
        return settled


@asynccontextmanager
async def _settling(broker: Broker, store: Store) -> AsyncIterator["asyncio.Task[None]"]:
    """A dispatcher that settles what arrives, until the end of the context."""
    stopping = asyncio.Event()
    consumer = await broker.consume(queues.RESULTS, prefetch=64)
    running = asyncio.create_task(ResultsLoop(consumer, Settler(store, broker), stopping).run())
    try:
        yield running
    finally:
        stopping.set()
        await running
        await consumer.close()


async def _until_settled(database: Database, ids: Sequence[UUID]) -> list[str]:
    while "queued" in (statuses := await statuses_of(database, ids)):
        await asyncio.sleep(0.02)
    return statuses


async def _until_empty(broker: Watched, queue: str = queues.RESULTS) -> None:
    while (depth := await broker.depth(queue)).ready or depth.unacknowledged:
        await asyncio.sleep(0.02)


async def test_results_are_settled_acknowledged_and_announced(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    first, second = await accepted(store, submission(ada), submission(ada, price_credits=2))
    events = broker.subscribe(queues.PREDICTION_FINISHED)
    while not broker.connected:
        await asyncio.sleep(0.01)
    envelope = results_of(Result(first, output=_OUTPUT), failure_of(second))
    async with _settling(broker, store):
        await broker.put(queues.RESULTS, encode(envelope))
        finished = decode_finished(await anext(events)).predictions
        assert [(one.id, one.status, one.worker_id) for one in finished] == [
            (first, "succeeded", "worker-1"),
            (second, "failed", "worker-1"),
        ]
        # Whoever hears of it finds it in the database.
        assert await statuses_of(database, [first, second]) == ["succeeded", "failed"]
        await _until_empty(broker)
    await events.aclose()
    view = await view_of(database, ada, first)
    assert (view.published_at, view.started_at) == (envelope.published_at, envelope.started_at)
    assert await balance_of(database, ada) == Balance(9_999, 0)


async def test_results_that_come_again_change_nothing(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    body = encode(results_of(Result(identifier, output=_OUTPUT)))
    stranger = encode(results_of(Result(uuid7(), output=_OUTPUT)))
    async with _settling(broker, store):
        await broker.put(queues.RESULTS, *[body, stranger] * 5)
        await _until_empty(broker)
    assert await movements_of(database, ada) == [
        ("grant", 10_000, None),
        ("hold", 1, identifier),
        ("capture", 1, identifier),
    ]


_RESULT = '{"id":"%s"%s}'


def _envelope(results: str) -> bytes:
    whole = encode(results_of(Result(uuid7(), output=_OUTPUT)))
    start = whole.index(b'"results":') + len(b'"results":')
    return whole[:start] + results.encode() + b"}"


_GARBAGE: dict[str, Callable[[UUID], bytes]] = {
    "text": lambda _: b"not JSON",
    "empty": lambda _: b"",
    "bytes": lambda _: b"\xff\xfe\x00",
    "deep": lambda _: b'{"results":' + b"[" * 100_000,
    "no results": lambda _: _envelope("[]"),
    "neither output nor error": lambda identifier: _envelope("[" + _RESULT % (identifier, "") + "]"),
    "both output and error": lambda identifier: _envelope(
        "[" + _RESULT % (identifier, ',"output":1,"error":{"code":"model_error","message":"x"}') + "]"
    ),
    "an unknown code": lambda identifier: _envelope(
        "[" + _RESULT % (identifier, ',"error":{"code":"bored","message":"x"}') + "]"
    ),
    "a time without its zone": lambda identifier: _envelope("[" + _RESULT % (identifier, ',"output":1') + "]").replace(
        b'Z","started_at"', b'","started_at"'
    ),
    # Letters that are none, in what nobody parsed on the way.
    "broken letters": lambda identifier: _envelope("[" + _RESULT % (identifier, ',"output":"x"') + "]").replace(
        b'"x"', b'"\xff"'
    ),
}


async def test_garbage_goes_to_the_dead_letters_and_its_neighbours_are_settled(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    names = list(_GARBAGE)
    good = await accepted(store, *(submission(ada) for _ in names))
    spoilt = await accepted(store, *(submission(ada) for _ in names))
    bodies = [_GARBAGE[name](spoilt[place]) for place, name in enumerate(names)]
    assert b'"\xff"' in bodies[-1]
    # All of it is there before anybody looks, so that it is taken in one batch.
    for identifier, garbage in zip(good, bodies, strict=True):
        await broker.put(queues.RESULTS, garbage, encode(results_of(Result(identifier, output=_OUTPUT))))
    async with _settling(broker, store) as running:
        assert set(await _until_settled(database, good)) == {"succeeded"}
        await _until_empty(broker)
        assert not running.done()
    await broker.wait_for(queues.dead_queue(queues.RESULTS), len(bodies))
    assert sorted(await broker.take_all(queues.dead_queue(queues.RESULTS))) == sorted(bodies)
    assert set(await statuses_of(database, spoilt)) == {"queued"}


async def test_a_worker_that_writes_nul_is_understood(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    first, second = await accepted(store, submission(ada), submission(ada))
    bad = results_of(failure_of(first, "the value \0 is not allowed"), worker_id="worker\0")
    async with _settling(broker, store):
        await broker.put(queues.RESULTS, encode(bad), encode(results_of(Result(second, output=_OUTPUT))))
        await _until_settled(database, [first, second])
        await _until_empty(broker)
    view = await view_of(database, ada, first)
    assert view.error == Failure("model_error", "the value \N{REPLACEMENT CHARACTER} is not allowed")
    assert view.worker_id == "worker\N{REPLACEMENT CHARACTER}"
    assert await broker.ready(queues.dead_queue(queues.RESULTS)) == 0


async def test_an_output_keeps_its_escapes(database: Database, store: Store, broker: Watched, ada: UUID) -> None:
    outputs = [b'{"text":"\\u0000 \\ud83d\\ude00"}', b"null", b"1E+400", b'"\xf0\x9f\x98\x80"']
    ids = await accepted(store, *(submission(ada) for _ in outputs))
    async with _settling(broker, store):
        results = [Result(each, output=msgspec.Raw(output)) for each, output in zip(ids, outputs, strict=True)]
        await broker.put(queues.RESULTS, encode(results_of(*results)))
        assert set(await _until_settled(database, ids)) == {"succeeded"}
    assert [bytes((await view_of(database, ada, each)).output or b"") for each in ids] == outputs


async def test_while_the_database_is_away_results_wait_in_our_hands(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    flaky = Flaky(store)
    flaky.away, flaky.lose_answers = 1, 1
    ids = await accepted(store, submission(ada), submission(ada))
    async with _settling(broker, flaky):
        await broker.put(queues.RESULTS, encode(results_of(*(Result(each, output=_OUTPUT) for each in ids))))
        assert set(await _until_settled(database, ids)) == {"succeeded"}
        await _until_empty(broker)
    assert flaky.sizes == [2, 1, 1, 1]
    assert await broker.ready(queues.dead_queue(queues.RESULTS)) == 0
    assert await balance_of(database, ada) == Balance(9_998, 0)


async def test_a_transaction_settles_no_more_than_its_bound(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    counting = Flaky(store)
    ids = [uuid7() for _ in range(2 * MAX_ENDINGS + 1)]
    await Settler(counting, broker).settle([Ending(each, output=b"1") for each in ids])
    assert counting.sizes == [MAX_ENDINGS, MAX_ENDINGS, 1]


async def test_what_takes_too_long_is_halved_until_it_does_not_and_grows_again(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    slow = Flaky(store)
    slow.most = 3
    ids = await accepted(store, *(submission(ada) for _ in range(24)))
    envelopes = [results_of(*(Result(each, output=_OUTPUT) for each in ids[at : at + 8])) for at in (0, 8, 16)]
    await broker.put(queues.RESULTS, *(encode(envelope) for envelope in envelopes))
    async with _settling(broker, slow):
        assert set(await _until_settled(database, ids)) == {"succeeded"}
        await _until_empty(broker)
        assert slow.sizes[:4] == [24, 12, 6, 3]
        # Doubled each time it fits, halved where that is too much; nothing is lost on the way.
        assert max(slow.sizes[3:]) == 6
        slow.most = 1_000_000
        more = await accepted(store, *(submission(ada) for _ in range(40)))
        await broker.put(queues.RESULTS, encode(results_of(*(Result(each, output=_OUTPUT) for each in more))))
        await _until_settled(database, more)
        assert max(slow.sizes) == 24
        assert slow.sizes[-1] > 6
    assert await balance_of(database, ada) == Balance(10_000 - 64, 0)


async def test_dead_letters_and_what_has_expired_are_halved_too(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    slow = Flaky(store)
    slow.most = 1
    ids = await accepted(store, *(submission(ada) for _ in range(4)))
    settler = Settler(slow, broker)
    endings = [Ending(each, error=Failure("expired", "Too late.")) for each in ids]
    # While nothing succeeds, the database may be away: whoever calls tries again with the next sweep.
    for _ in range(2):
        with pytest.raises(Unavailable):
            await settler.settle(endings)
    await settler.settle(endings)
    assert set(await statuses_of(database, ids)) == {"failed"}


async def test_told_to_stop_while_the_database_is_away_the_results_go_back(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    flaky = Flaky(store)
    flaky.away = 1_000_000
    (identifier,) = await accepted(store, submission(ada))
    await broker.put(queues.RESULTS, encode(results_of(Result(identifier, output=_OUTPUT))))
    async with _settling(broker, flaky):
        while not flaky.asked:
            await asyncio.sleep(0.01)
    assert await broker.ready(queues.RESULTS) == 1
    # The next dispatcher finds them.
    async with _settling(broker, store):
        assert await _until_settled(database, [identifier]) == ["succeeded"]


async def test_several_dispatchers_settle_each_once(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    ids = await accepted(store, *(submission(ada) for _ in range(60)))
    bodies = [
        encode(results_of(*(Result(each, output=_OUTPUT) for each in ids[at : at + 6]))) for at in range(0, 60, 3)
    ]
    async with _settling(broker, store), _settling(broker, store), _settling(broker, store):
        await broker.put(queues.RESULTS, *bodies)
        await _until_settled(database, ids)
        await _until_empty(broker)
    assert await balance_of(database, ada) == Balance(10_000 - 60, 0)
    assert len(await movements_of(database, ada)) == 1 + 120


# Traces.

_TRACE = TraceContext(TRACEPARENT)


async def test_what_is_traced_is_spoken_of_by_itself(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    first, second, third = await accepted(store, *(submission(ada) for _ in range(3)))
    results = results_of(
        Result(first, output=_OUTPUT, trace=_TRACE),
        Result(second, output=_OUTPUT),
        Result(third, output=_OUTPUT, trace=TraceContext("nonsense")),
    )
    with capture_logs() as lines:
        async with _settling(broker, store):
            await broker.put(queues.RESULTS, encode(results))
            assert set(await _until_settled(database, [first, second, third])) == {"succeeded"}
            await _until_empty(broker)
    (line,) = [line for line in lines if line["event"] == "prediction_settled"]
    assert (line["prediction_id"], line["status"], line["trace.id"]) == (first, "succeeded", TRACE_ID)


async def test_where_spans_are_recorded_each_traced_settlement_is_one(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    flaky = Flaky(store)
    flaky.away = 1
    ids = await accepted(store, submission(ada), submission(ada))
    failure = Failure("model_error", "It failed.")
    results = results_of(Result(ids[0], output=_OUTPUT, trace=_TRACE), Result(ids[1], error=failure, trace=_TRACE))
    with noted() as notebook:
        async with _settling(broker, flaky):
            await broker.put(queues.RESULTS, encode(results))
            await _until_settled(database, ids)
            await _until_empty(broker)
    first, second = notebook.spans
    # That a prediction fails is no failure of its settlement.
    assert [(span.name, span.kind, span.parent, span.ended, span.error) for span in (first, second)] == [
        ("settle", "consumer", _TRACE, True, "")
    ] * 2
    assert first.attributes == {
        "foretell.prediction.id": str(ids[0]),
        "foretell.model.name": "flight-delay",
        "foretell.model.version": "1.0.0",
        "foretell.prediction.status": "succeeded",
        "messaging.destination.name": "ml_results",
        "messaging.operation.name": "settle",
        "messaging.operation.type": "process",
        # Two at once were more than the database could do, it seems.
        "messaging.batch.message_count": 1,
    }
    assert second.attributes["foretell.prediction.status"] == "failed"


async def test_a_traced_result_that_comes_again_ends_its_span_too(
    database: Database, store: Store, broker: Watched, ada: UUID
) -> None:
    (identifier,) = await accepted(store, submission(ada))
    body = encode(results_of(Result(identifier, output=_OUTPUT, trace=_TRACE)))
    with noted() as notebook, capture_logs() as lines:
        async with _settling(broker, store):
            for _ in range(2):
                await broker.put(queues.RESULTS, body)
                await _until_settled(database, [identifier])
                await _until_empty(broker)
    assert [span.ended for span in notebook.spans] == [True, True]
    assert [span.attributes["foretell.prediction.status"] for span in notebook.spans] == ["succeeded", "unchanged"]
    assert [line["event"] for line in lines].count("prediction_settled") == 1
