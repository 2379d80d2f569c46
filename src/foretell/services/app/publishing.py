"""Publishes accepted predictions to the workers, in envelopes of all that are waiting.

This is not needed for correctness: the dispatcher's sweep finds predictions that are not published or not marked. So
while the broker is unavailable, predictions are late, but submissions succeed.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog

from foretell.broker.port import Broker
from foretell.contracts import queues, spans
from foretell.contracts.envelopes import Parcel, pack
from foretell.domain.predictions.store import Store, Submission
from foretell.kit import metrics, tracing
from foretell.kit.batching import Batcher
from foretell.kit.clock import now, uuid7
from foretell.kit.errors import ForetellError, Overloaded
from foretell.kit.tracing import Span

log = structlog.get_logger()

#: Tasks of one batch, published in envelopes of up to `MAX_ENVELOPE_TASKS`.
_MAX_BATCH = 512
#: The dispatcher's sweep publishes what exceeds this, from the database.
_MAX_WAITING = 20_000
#: Predictions are marked as published this late, because most are settled by then and need no mark.
_MARK_AFTER_S = 0.5


class Publishing:
    """The app's publisher. It publishes one batch of envelopes at a time."""

    def __init__(self, broker: Broker, store: Store, *, close_within_s: float = 5.0) -> None:
        """`close` gives up after `close_within_s`, since each batch may wait for a deadline of the broker."""
        self._broker = broker
        self._store = store
        self._close_within_s = close_within_s
        self._batcher: Batcher[Submission, None] = Batcher(
            self._publish,
            max_batch=_MAX_BATCH,
            max_waiting=_MAX_WAITING,
            observe_size=metrics.BATCH_ITEMS.labels("publish").observe,
        )
        #: Open spans of the waiting predictions that are traced.
        self._spans: dict[UUID, Span] = {}
        self._to_mark: deque[tuple[datetime, list[UUID]]] = deque()
        self._marking: asyncio.Task[None] | None = None

    def publish_soon(self, submission: Submission) -> None:
        """Enqueue an accepted prediction. Never raises or waits."""
        try:
            self._batcher.enqueue(submission)
        except Overloaded:
            log.warning("publishing_left_to_sweep", prediction_id=submission.id)
            return
        trace = tracing.current()
        if trace is not None:
            queue = queues.tasks_queue(submission.pool)
            about = spans.of_prediction(submission.id, submission.model, submission.version) | spans.of_publish(queue)
            self._spans[submission.id] = tracing.begin(spans.publish(queue), "producer", trace, about)

    async def close(self) -> None:
        """Publish what is waiting and mark what was published, as far as broker and database are available."""
        try:
            async with asyncio.timeout(self._close_within_s):
                await self._batcher.drain()
                if self._marking is not None:
                    self._marking.cancel()
                    await asyncio.wait({self._marking})
                await self._mark(len(self._to_mark))
        except TimeoutError:
            log.warning("publishing_left_to_sweep", tasks=self._batcher.waiting, reason="we are told to stop")

    async def _publish(self, submissions: list[Submission]) -> Sequence[None]:
        published_at = now()
        begun = self._take_spans(submissions) if self._spans else {}
        parcels = list(pack(submissions, published_at, {each: span.context for each, span in begun.items()}))
        outcomes = await asyncio.gather(*(self._send(parcel) for parcel in parcels))
        if begun:
            _end(begun, parcels, outcomes)
        sent = [parcel for parcel, was_sent in zip(parcels, outcomes, strict=True) if was_sent]
        if sent:
            self._to_mark.append((published_at, [identifier for parcel in sent for identifier in parcel.ids]))
            if self._marking is None or self._marking.done():
                self._marking = asyncio.create_task(self._mark_by_and_by())
        return [None] * len(submissions)

    def _take_spans(self, submissions: Sequence[Submission]) -> dict[UUID, Span]:
        taken = ((submission.id, self._spans.pop(submission.id, None)) for submission in submissions)
        return {prediction_id: span for prediction_id, span in taken if span is not None}

    async def _send(self, parcel: Parcel) -> bool:
        try:
            await self._broker.publish(parcel.queue, parcel.body, message_id=uuid7().hex)
        except ForetellError as error:
            log.warning("publishing_left_to_sweep", queue=parcel.queue, tasks=len(parcel.ids), reason=error.message)
            return False
        return True

    async def _mark_by_and_by(self) -> None:
        while self._to_mark:
            await asyncio.sleep(_MARK_AFTER_S)
            await self._mark(len(self._to_mark))

    async def _mark(self, batches: int) -> None:
        for _ in range(batches):
            published_at, ids = self._to_mark.popleft()
            try:
                await self._store.mark_published(ids, published_at)
            except ForetellError as error:
                # Without a mark they are published again, which is harmless.
                log.warning("marking_failed", predictions=len(ids), reason=error.message)


def _end(begun: Mapping[UUID, Span], parcels: Sequence[Parcel], outcomes: Sequence[bool]) -> None:
    for parcel, was_sent in zip(parcels, outcomes, strict=True):
        about = spans.of_batch(len(parcel.ids))
        for prediction_id in parcel.ids:
            if prediction_id in begun:
                begun[prediction_id].end(attributes=about, error="" if was_sent else "left_to_sweep")
