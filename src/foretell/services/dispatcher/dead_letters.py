"""Processes dead letters: ends predictions, publishes interrupted tasks again, settles results, keeps garbage.

See docs/decisions/0003 and 0024.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import structlog

from foretell.broker.port import Broker, Consumer, Delivery, MessageRefused
from foretell.contracts import queues
from foretell.contracts.messages import Failure, ResultEnvelope, TaskEnvelope, decode_results, decode_tasks
from foretell.domain.predictions import sweeps
from foretell.domain.predictions.store import Ending
from foretell.kit.clock import uuid7
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError
from foretell.services.dispatcher import traces
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.measures import DEAD_LETTERS, QUEUE_READY
from foretell.services.dispatcher.republishing import Republisher
from foretell.services.dispatcher.settling import Settler, endings_of

log = structlog.get_logger()

#: Dead letters processed in one sweep.
_DEAD_LIMIT = 500
#: Copies of unreadable messages that are published at once.
_COPIES_IN_FLIGHT = 64
_TICK = timedelta(microseconds=1)

_UNDELIVERABLE = Failure("undeliverable", "Every worker that took this prediction stopped before it could answer.")


class DeadLetters:
    """Processes dead letters. Any number of dispatchers may do it at once."""

    def __init__(
        self, database: Database, broker: Broker, settler: Settler, in_hand: InHand, republisher: Republisher
    ) -> None:
        self._database = database
        self._broker = broker
        self._settler = settler
        self._in_hand = in_hand
        self._republisher = republisher
        #: How many unreadable messages were left in each dead-letter queue ...
        self._unreadable: dict[str, int] = {}
        #: ... and the progress in those that are being processed.
        self._progress: dict[str, _Progress] = {}

    async def process(self, queue: str) -> None:
        """Process the dead letters of `queue`, up to 500 in one call; unreadable ones stay.

        Raises `BrokerUnavailable` and the database's `Unavailable`.
        """
        await self._broker.ensure_queue(queue)
        depth = await self._broker.depth(queue)
        QUEUE_READY.labels(queue).set(depth.ready)
        dead = queues.dead_queue(queue)
        ready = (await self._broker.depth(dead)).ready
        QUEUE_READY.labels(dead).set(ready)
        DEAD_LETTERS.labels(queue).set(ready)
        if ready == 0:
            self._progress.pop(dead, None)
            self._unreadable[dead] = 0
        elif queue != queues.RESULTS and not self._in_hand.listened_s:
            # Without the events of workers nothing can be decided about tasks.
            return
        elif dead in self._progress or ready != self._unreadable.get(dead, 0):
            await self._process(dead, ready)

    async def _process(self, dead: str, count: int) -> None:
        """Process the next messages of a dead-letter queue: each of the `count` that were there at first, once."""
        progress = self._progress.setdefault(dead, _Progress(count))
        left = min(progress.unseen, _DEAD_LIMIT)
        consumer = await self._broker.consume(dead, prefetch=_DEAD_LIMIT)
        try:
            while left > 0:
                async with asyncio.timeout(2):
                    deliveries = await consumer.receive(left)
                garbage = await self._handle(consumer, deliveries)
                for start in range(0, len(garbage), _COPIES_IN_FLIGHT):
                    await self._put_back(dead, consumer, garbage[start : start + _COPIES_IN_FLIGHT])
                # After an error above the messages return to the queue and are still to be processed.
                left -= len(deliveries)
                progress.unseen -= len(deliveries)
                progress.unreadable += len(garbage)
            if progress.unseen == 0:
                self._unreadable[dead] = progress.unreadable
                del self._progress[dead]
        except TimeoutError:
            # Another consumer took the messages, of another dispatcher for example: start again next time.
            del self._progress[dead]
        finally:
            await consumer.close()

    async def _handle(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Settle, publish again and acknowledge; returns those that can't be parsed or stored."""
        garbage: list[Delivery] = []
        interrupted: list[tuple[Delivery, TaskEnvelope, Mapping[str, str]]] = []
        readable: list[tuple[Delivery, list[Ending]]] = []
        settlements: traces.Settlements = {}
        for delivery in deliveries:
            try:
                envelope = _envelope(delivery)
                if isinstance(envelope, ResultEnvelope):
                    endings = endings_of(envelope)
                elif (headers := self._retry_headers(delivery, envelope)) is not None:
                    interrupted.append((delivery, envelope, headers))
                    continue
                else:
                    endings = [Ending(task.id, error=_UNDELIVERABLE) for task in envelope.tasks]
                traces.begin(envelope, delivery.queue, settlements)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
                garbage.append(delivery)
            else:
                readable.append((delivery, endings))
        for delivery, envelope, headers in interrupted:
            await self._publish_again(envelope, headers)
            await consumer.acknowledge([delivery])
        garbage += await self._settle(consumer, readable, settlements)
        traces.end_rest(settlements)
        return garbage

    def _retry_headers(self, delivery: Delivery, envelope: TaskEnvelope) -> Mapping[str, str] | None:
        """The headers with which these tasks are published again, or None if their predictions must end.

        The broker counts every delivery that is not acknowledged, also if only a connection was lost, and also to a
        consumer that does not exist any more. So a task is undeliverable only if no live worker lost its connection
        since the task was published, and a worker sent an event before the last attempt. If that event is missing, the
        worker may have crashed before it could send it, so this is a reason for one more round only.
        """
        if self._in_hand.interrupted_since(envelope.published_at):
            return {}
        started = len(envelope.tasks) == 1 and self._in_hand.last_attempt_started(envelope.tasks[0].id)
        return None if started or queues.SECOND_ROUND in delivery.headers else {queues.SECOND_ROUND: "1"}

    async def _publish_again(self, envelope: TaskEnvelope, headers: Mapping[str, str]) -> None:
        """Publish the tasks of predictions that have not ended, each alone, unless a later copy exists."""
        ids = [task.id for task in envelope.tasks]
        async with self._database.snapshot() as connection:
            left = await sweeps.still_queued(connection, ids, before=envelope.published_at + _TICK)
        for prediction in left:
            await self._republisher.publish([prediction], "interrupted", headers)
        self._in_hand.forget_last_attempts(ids)

    async def _put_back(self, dead: str, consumer: Consumer, garbage: Sequence[Delivery]) -> None:
        """Replace each by a copy at the end of the queue: a return would count as a delivery."""

        async def copy(delivery: Delivery) -> bool:
            try:
                await self._broker.publish(dead, delivery.body, message_id=uuid7().hex, headers=delivery.headers)
            except MessageRefused:
                # It is larger than the broker's present limit and stays where it is.
                return False
            return True

        copied = await asyncio.gather(*map(copy, garbage))
        await consumer.acknowledge([delivery for delivery, is_safe in zip(garbage, copied, strict=True) if is_safe])

    async def _settle(
        self,
        consumer: Consumer,
        readable: Sequence[tuple[Delivery, list[Ending]]],
        settlements: traces.Settlements,
    ) -> list[Delivery]:
        """Settle these and acknowledge them; returns those that the database refuses. Raises `Unavailable`."""
        if not readable:
            return []
        try:
            await self._settler.settle([ending for _, endings in readable for ending in endings], settlements)
        except ForetellError:
            raise
        except Exception:
            log.exception("dead_letters_not_settled", messages=len(readable))
            if len(readable) == 1:
                return [readable[0][0]]
            # One by one, so that one of them does not block the others forever.
            return [refused for one in readable for refused in await self._settle(consumer, [one], settlements)]
        await consumer.acknowledge([delivery for delivery, _ in readable])
        return []


@dataclass(slots=True)
class _Progress:
    """The progress in one dead-letter queue."""

    unseen: int
    unreadable: int = 0


def _envelope(delivery: Delivery) -> TaskEnvelope | ResultEnvelope:
    try:
        return decode_tasks(delivery.body)
    except msgspec.ValidationError:
        return decode_results(delivery.body)
