"""Settles all waiting results in one transaction, acknowledges them and publishes what finished."""

import asyncio
from collections import Counter as Tally
from collections.abc import Iterator, Sequence

import msgspec
import structlog

from foretell.broker.port import Broker, BrokerUnavailable, Consumer, Delivery, MessageRefused
from foretell.contracts import queues
from foretell.contracts.messages import Failure, Finished, FinishedEvent, ResultEnvelope, decode_results, encode
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Ending, Store
from foretell.kit import metrics
from foretell.kit.clock import now
from foretell.kit.errors import Unavailable
from foretell.services.dispatcher import traces
from foretell.services.dispatcher.measures import EVENTS_LOST, SETTLE_DURATION_S, SETTLE_LAG_S, SETTLED, Durations

log = structlog.get_logger()

#: Result envelopes of one batch.
MAX_ENVELOPES = 64
#: Endings that one transaction settles at most. The cost of a row is the same from 256 to 16,384 rows; this many take a
#: twentieth of the statement timeout.
MAX_ENDINGS = 2048
_RETRY_S = 0.5


def endings_of(envelope: ResultEnvelope) -> list[Ending]:
    """The endings in a result envelope. Raises `ValueError` if a result has neither an output nor an error, or both."""
    endings = []
    worker_id = _storable(envelope.worker_id)
    for result in envelope.results:
        output = bytes(result.output) if isinstance(result.output, msgspec.Raw) else None
        if (output is None) == (result.error is None):
            raise ValueError(f"result {result.id} must have either an output or an error")
        error = result.error and Failure(result.error.code, _storable(result.error.message))
        endings.append(Ending(result.id, output, error, worker_id, envelope.published_at, envelope.started_at))
    return endings


def _storable(words: str) -> str:
    """`words` without NUL characters, which PostgreSQL can't store in a text."""
    return words.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Settler:
    """Settles endings and publishes `prediction.finished`."""

    def __init__(self, store: Store, broker: Broker) -> None:
        self._store = store
        self._broker = broker
        self._bound = MAX_ENDINGS

    async def settle(self, endings: Sequence[Ending], settlements: traces.Settlements | None = None) -> None:
        """Settle these in batches. Raises `Unavailable`; the batches before that stay settled.

        `settlements` holds the spans of those that are traced; the spans of what this call settles are ended and
        removed.
        """
        rest = endings
        while rest:
            bound = self._bound
            try:
                _, rest = await self.settle_some(rest, settlements)
            except Unavailable:
                if bound == 1 or len(rest) == len(endings):
                    raise

    async def settle_some(
        self, endings: Sequence[Ending], settlements: traces.Settlements | None = None
    ) -> tuple[list[Finished], Sequence[Ending]]:
        """Settle as many as fit into one transaction; return the finished predictions and the endings that are left.

        The event is published after the commit. Raises `Unavailable` and halves the batch size, down to one: a batch
        that exceeds the statement timeout must not be retried at the same size. A success doubles it again.
        """
        batch = endings[: self._bound]
        try:
            with SETTLE_DURATION_S.time():
                finished = await settle(self._store, batch)
        except Unavailable:
            # A database that is down looks like a slow one here; small batches after an outage do no harm.
            self._bound = max(1, min(self._bound, len(batch)) // 2)
            raise
        if len(batch) == self._bound:
            self._bound = min(2 * self._bound, MAX_ENDINGS)
        if finished:
            await self._announce(finished, len(batch) - len(finished), settlements)
        return finished, endings[len(batch) :]

    async def _announce(self, finished: list[Finished], too_late: int, settlements: traces.Settlements | None) -> None:
        tally = Tally((prediction.status, prediction.error.code if prediction.error else "") for prediction in finished)
        for labels, count in tally.items():
            SETTLED.labels(*labels).inc(count)
        log.info(
            "predictions_settled",
            count=len(finished),
            failed=sum(prediction.error is not None for prediction in finished),
            too_late=too_late,
            prediction_ids=[prediction.id for prediction in finished],
        )
        if settlements:
            traces.end(finished, settlements)
        for event in _events(finished):
            try:
                await self._broker.publish_event(queues.PREDICTION_FINISHED, encode(event))
            except (BrokerUnavailable, MessageRefused):
                # The apps also poll the database.
                EVENTS_LOST.inc()


def _events(finished: Sequence[Finished]) -> Iterator[FinishedEvent]:
    """Events of up to `MAX_EVENT_BYTES` of outputs each (one larger output goes alone)."""
    chunk: list[Finished] = []
    size = 0
    for prediction in finished:
        output = len(bytes(prediction.output)) if isinstance(prediction.output, msgspec.Raw) else 0
        if chunk and size + output > queues.MAX_EVENT_BYTES:
            yield FinishedEvent(chunk)
            chunk, size = [], 0
        chunk.append(prediction)
        size += output
    yield FinishedEvent(chunk)


class ResultsLoop:
    """Settles the results from `ml_results`."""

    def __init__(self, consumer: Consumer, settler: Settler, stopping: asyncio.Event) -> None:
        self._consumer = consumer
        self._settler = settler
        self._stopping = stopping

    async def run(self) -> None:
        """Settle until `stopping` is set; the current batch is finished first if the database is available."""
        leaving = asyncio.create_task(self._leave())
        try:
            while deliveries := await self._consumer.receive(MAX_ENVELOPES):
                await self._handle(deliveries)
            await leaving
        finally:
            leaving.cancel()

    async def _leave(self) -> None:
        """Stop the consumer when `stopping` is set: unreceived messages go to another dispatcher, uncounted."""
        await self._stopping.wait()
        await self._consumer.stop()

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        readable: list[tuple[Delivery, list[Ending]]] = []
        settlements: traces.Settlements = {}
        durations = Durations()
        for delivery in deliveries:
            try:
                envelope = decode_results(delivery.body)
                readable.append((delivery, endings_of(envelope)))
                traces.begin(envelope, delivery.queue, settlements)
                durations.expect(envelope)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
                await self._refuse(delivery, str(error))
                continue
            SETTLE_LAG_S.observe(max(0.0, (now() - envelope.finished_at).total_seconds()))
        endings = [ending for _, of_one in readable for ending in of_one]
        if not endings:
            return
        try:
            finished = await self._settle_when_possible(endings, settlements)
        except Exception:
            log.exception("settlement_failed", envelopes=len(readable))
            await self._settle_apart(readable, settlements, durations)
        else:
            if finished is None:
                return
            await self._consumer.acknowledge([delivery for delivery, _ in readable])
            durations.observe(finished)
        traces.end_rest(settlements)

    async def _settle_when_possible(
        self, endings: Sequence[Ending], settlements: traces.Settlements
    ) -> Sequence[Finished] | None:
        """Settle; retry while the database is unavailable. None when `stopping` is set before it succeeds.

        The results stay unacknowledged meanwhile: returning them would use up their delivery limit.
        """
        finished: list[Finished] = []
        rest = endings
        while rest:
            before = len(rest)
            try:
                ended, rest = await self._settler.settle_some(rest, settlements)
            except Unavailable:
                if self._stopping.is_set():
                    return None
                await asyncio.sleep(_RETRY_S)
            else:
                metrics.BATCH_ITEMS.labels("settlement").observe(before - len(rest))
                finished.extend(ended)
        return finished

    async def _settle_apart(
        self,
        deliveries: Sequence[tuple[Delivery, list[Ending]]],
        settlements: traces.Settlements,
        durations: Durations,
    ) -> None:
        """Settle each envelope alone, so that one that the database refuses does not block the others."""
        for delivery, endings in deliveries:
            try:
                finished = await self._settle_when_possible(endings, settlements)
            except Exception as error:
                await self._refuse(delivery, type(error).__name__)
            else:
                if finished is not None:
                    await self._consumer.acknowledge([delivery])
                    durations.observe(finished)

    async def _refuse(self, delivery: Delivery, reason: str) -> None:
        log.error("result_envelope_rejected", message_id=delivery.message_id, reason=reason[:300])
        await self._consumer.reject([delivery], requeue=False)
