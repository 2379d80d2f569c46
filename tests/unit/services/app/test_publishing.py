"""The app's publisher: everything leaves in envelopes, and nothing here ever fails a submission."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from structlog.testing import capture_logs
from tests.tracers import TRACEPARENT, noted

from foretell.broker.port import BrokerUnavailable, Unroutable
from foretell.contracts.messages import decode_tasks
from foretell.domain.predictions.store import Earlier, Ending, Submission
from foretell.kit import tracing
from foretell.kit.clock import now, uuid7
from foretell.kit.errors import ForetellError, Unavailable
from foretell.kit.tracing import TraceContext
from foretell.services.app.publishing import Publishing


class Broker:
    """Keeps what is published; `error` is raised instead, `open` holds it up."""

    def __init__(self) -> None:
        self.published: list[tuple[str, list[UUID]]] = []
        self.traces: dict[UUID, TraceContext | None] = {}
        self.error: ForetellError | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.under_way = 0

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self.under_way += 1
        await self.open.wait()
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        tasks = decode_tasks(body).tasks
        self.published.append((queue, [task.id for task in tasks]))
        self.traces.update((task.id, task.trace) for task in tasks)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a publisher needs no {name}")


class Store:
    """Keeps what is marked; `error` is raised instead."""

    def __init__(self) -> None:
        self.marked: list[UUID] = []
        self.error: ForetellError | None = None

    async def mark_published(self, ids: Sequence[UUID], published_at: datetime) -> None:
        assert published_at <= now()
        if self.error is not None:
            raise self.error
        self.marked += ids

    async def accept(self, submissions: Sequence[Submission]) -> Collection[UUID]:
        raise NotImplementedError

    async def explain(
        self, refused: Sequence[Submission]
    ) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
        raise NotImplementedError

    async def settle(self, endings: Sequence[Ending], finished_at: datetime) -> Collection[UUID]:
        raise NotImplementedError


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def store() -> Store:
    return Store()


def _submission(model: str = "flight-delay", pool: str | None = None) -> Submission:
    moment = now()
    return Submission(
        uuid7(), uuid4(), model, "1.0.0", pool, "input", b"{}", 1, moment, moment + timedelta(hours=1), None, None
    )


async def test_one_that_is_alone_leaves_at_once_and_is_marked_by_and_by(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store)
    lone = _submission()
    publishing.publish_soon(lone)
    while not broker.published:
        await asyncio.sleep(0)
    assert broker.published == [("ml_tasks", [lone.id])]
    assert store.marked == []
    while not store.marked:
        await asyncio.sleep(0.01)
    assert store.marked == [lone.id]
    # And so is the next, after nothing was left to mark.
    other = _submission()
    publishing.publish_soon(other)
    while len(store.marked) < 2:
        await asyncio.sleep(0.01)
    await publishing.close()
    assert store.marked == [lone.id, other.id]


async def test_those_that_wait_share_envelopes(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store)
    broker.open.clear()
    first = _submission()
    publishing.publish_soon(first)
    while not broker.under_way:
        await asyncio.sleep(0)
    others = [_submission() for _ in range(300)]
    pooled = _submission("sentiment", "gpu")
    for each in (*others, pooled):
        publishing.publish_soon(each)
    broker.open.set()
    await publishing.close()
    sizes = {(queue, len(ids)) for queue, ids in broker.published}
    assert sizes == {("ml_tasks", 1), ("ml_tasks", 256), ("ml_tasks", 44), ("ml_tasks.gpu", 1)}
    assert sorted(store.marked) == sorted(each.id for each in (first, *others, pooled))


@pytest.mark.parametrize("error", [BrokerUnavailable(), Unroutable(queue="ml_tasks")])
async def test_what_the_broker_does_not_take_is_not_marked(broker: Broker, store: Store, error: ForetellError) -> None:
    publishing = Publishing(broker, store)
    broker.error = error
    publishing.publish_soon(_submission())
    while broker.under_way:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    broker.error = None
    later = _submission()
    publishing.publish_soon(later)
    await publishing.close()
    assert store.marked == [later.id]


async def test_a_mark_that_fails_stops_nobody(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store)
    store.error = Unavailable(part="database")
    publishing.publish_soon(_submission())
    await publishing.close()
    assert len(broker.published) == 1
    assert store.marked == []


async def test_beyond_its_bound_the_sweep_does_it(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store)
    broker.open.clear()
    with capture_logs() as lines:
        for _ in range(20_001):
            publishing.publish_soon(_submission())
    assert [line["event"] for line in lines] == ["publishing_left_to_sweep"]
    broker.open.set()
    await publishing.close()
    assert len(store.marked) == 20_000


async def test_closing_does_not_wait_for_a_broker_that_hangs(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store, close_within_s=0.05)
    broker.open.clear()
    publishing.publish_soon(_submission())
    async with asyncio.timeout(60):
        await publishing.close()
    assert broker.published == []
    broker.open.set()


async def test_closing_with_nothing_to_do_is_quick(broker: Broker, store: Store) -> None:
    await Publishing(broker, store).close()


# Traces.


async def test_a_trace_goes_along_with_its_task(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store)
    broker.open.clear()
    traced, other = _submission(), _submission()
    with tracing.inside(TraceContext(TRACEPARENT, "vendor=1")):
        publishing.publish_soon(traced)
    publishing.publish_soon(other)
    broker.open.set()
    await publishing.close()
    assert broker.traces == {traced.id: TraceContext(TRACEPARENT, "vendor=1"), other.id: None}


async def test_where_spans_are_recorded_the_way_to_the_queue_is_one(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store)
    traced = [_submission(), _submission()]
    with noted() as notebook:
        for submission in traced:
            with tracing.inside(TraceContext(TRACEPARENT)):
                publishing.publish_soon(submission)
        await publishing.close()
    assert [span.name for span in notebook.spans] == ["publish ml_tasks"] * 2
    assert {span.parent for span in notebook.spans} == {TraceContext(TRACEPARENT)}
    assert [(span.kind, span.ended, span.error) for span in notebook.spans] == [("producer", True, "")] * 2
    assert [span.attributes["foretell.prediction.id"] for span in notebook.spans] == [str(each.id) for each in traced]
    assert [span.attributes["messaging.batch.message_count"] for span in notebook.spans] == [2, 2]
    assert broker.traces == {each.id: span.context for each, span in zip(traced, notebook.spans, strict=True)}


async def test_what_is_left_to_the_sweep_says_so(broker: Broker, store: Store) -> None:
    publishing = Publishing(broker, store)
    broker.error = BrokerUnavailable()
    with noted() as notebook, tracing.inside(TraceContext(TRACEPARENT)):
        publishing.publish_soon(_submission())
        await publishing.close()
    assert [(span.ended, span.error) for span in notebook.spans] == [(True, "left_to_sweep")]


async def test_the_lines_of_a_batch_name_no_request(broker: Broker, store: Store) -> None:
    """A batch belongs to all who are in it, and not to the first of them."""
    seen: list[dict[str, Any]] = []

    class Bound(Broker):
        async def publish(self, queue: str, body: bytes, **options: Any) -> None:
            seen.append(structlog.contextvars.get_contextvars())

    publishing = Publishing(Bound(), store)
    with tracing.inside(TraceContext(TRACEPARENT)):
        publishing.publish_soon(_submission())
    await publishing.close()
    assert seen == [{}]
