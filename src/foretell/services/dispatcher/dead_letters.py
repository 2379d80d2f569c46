"""What lies in the dead-letter queues: predictions that are ended, tasks that were only unlucky, results, and garbage.

See docs/decisions/0003 and 0023.
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

#: Dead letters looked at in one go.
_DEAD_LIMIT = 500
#: Copies of unreadable ones under way to the broker at once.
_COPIES_IN_FLIGHT = 64
_TICK = timedelta(microseconds=1)

_UNDELIVERABLE = Failure("undeliverable", "Every worker that took this prediction stopped before it could answer.")


class DeadLetters:
    """Looks after the dead-letter queues. Harmless in any number of dispatchers."""

    def __init__(
        self, database: Database, broker: Broker, settler: Settler, in_hand: InHand, republisher: Republisher
    ) -> None:
        self._database = database
        self._broker = broker
        self._settler = settler
        self._in_hand = in_hand
        self._republisher = republisher
        #: How many unreadable messages were left lying in each dead-letter queue ...
        self._unreadable: dict[str, int] = {}
        #: ... and how far we are where we look through one at this time.
        self._looks: dict[str, _Look] = {}

    async def look_after(self, queue: str) -> None:
        """Empty the dead-letter queue of `queue` but for its garbage, as far as one look goes.

        Predictions whose tasks nobody survived end; tasks that may only have been unlucky are published again; results
        are settled. Raises `BrokerUnavailable` and the database's `Unavailable`.
        """
        await self._broker.ensure_queue(queue)
        depth = await self._broker.depth(queue)
        QUEUE_READY.labels(queue).set(depth.ready)
        dead = queues.dead_queue(queue)
        ready = (await self._broker.depth(dead)).ready
        QUEUE_READY.labels(dead).set(ready)
        DEAD_LETTERS.labels(queue).set(ready)
        if ready == 0:
            self._looks.pop(dead, None)
            self._unreadable[dead] = 0
        elif queue != queues.RESULTS and not self._in_hand.listened_s:
            # Nothing can be said of dead tasks while workers can't be heard.
            return
        elif dead in self._looks or ready != self._unreadable.get(dead, 0):
            await self._look(dead, ready)

    async def _look(self, dead: str, count: int) -> None:
        """Look at the next messages of a dead-letter queue, once at each of the `count` that were there at first."""
        look = self._looks.setdefault(dead, _Look(count))
        left = min(look.unseen, _DEAD_LIMIT)
        consumer = await self._broker.consume(dead, prefetch=_DEAD_LIMIT)
        try:
            while left > 0:
                async with asyncio.timeout(2):
                    deliveries = await consumer.receive(left)
                garbage = await self._handle(consumer, deliveries)
                for start in range(0, len(garbage), _COPIES_IN_FLIGHT):
                    await self._put_back(dead, consumer, garbage[start : start + _COPIES_IN_FLIGHT])
                # What was not handled goes back, and is still to be seen.
                left -= len(deliveries)
                look.unseen -= len(deliveries)
                look.unreadable += len(garbage)
            if look.unseen == 0:
                self._unreadable[dead] = look.unreadable
                del self._looks[dead]
        except TimeoutError:
            # Somebody else, another dispatcher say, was faster: begin anew next time.
            del self._looks[dead]
        finally:
            await consumer.close()

    async def _handle(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Settle, publish again and acknowledge; returns those that nobody can read or the database can't take."""
        garbage: list[Delivery] = []
        unlucky: list[tuple[Delivery, TaskEnvelope, Mapping[str, str]]] = []
        readable: list[tuple[Delivery, list[Ending]]] = []
        settlements: traces.Settlements = {}
        for delivery in deliveries:
            try:
                envelope = _envelope(delivery)
                if isinstance(envelope, ResultEnvelope):
                    endings = endings_of(envelope)
                elif (headers := self._excuse(delivery, envelope)) is not None:
                    unlucky.append((delivery, envelope, headers))
                    continue
                else:
                    endings = [Ending(task.id, error=_UNDELIVERABLE) for task in envelope.tasks]
                traces.begin(envelope, delivery.queue, settlements)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
                garbage.append(delivery)
            else:
                readable.append((delivery, endings))
        for delivery, envelope, headers in unlucky:
            await self._publish_again(envelope, headers)
            await consumer.acknowledge([delivery])
        garbage += await self._settle(consumer, readable, settlements)
        traces.end_rest(settlements)
        return garbage

    def _excuse(self, delivery: Delivery, envelope: TaskEnvelope) -> Mapping[str, str] | None:
        """With which headers these tasks are published again, if they may only have been unlucky; None if not.

        The broker counts every delivery that is not acknowledged, also where a connection was lost, or when nobody was
        there to get it. So attempts count only while no worker that lives lost the broker, and only when a worker was
        heard to begin the last one. Where no such word came, whoever should have said it may have died before it could:
        that excuses a task once.
        """
        if self._in_hand.was_disturbed_after(envelope.published_at):
            return {}
        begun = len(envelope.tasks) == 1 and self._in_hand.has_begun_last_attempt(envelope.tasks[0].id)
        return None if begun or queues.EXCUSED in delivery.headers else {queues.EXCUSED: "1"}

    async def _publish_again(self, envelope: TaskEnvelope, headers: Mapping[str, str]) -> None:
        """Publish what has not ended, each task alone, with all its attempts; unless that was done since."""
        ids = [task.id for task in envelope.tasks]
        async with self._database.snapshot() as connection:
            left = await sweeps.still_queued(connection, ids, before=envelope.published_at + _TICK)
        for prediction in left:
            await self._republisher.publish([prediction], "unlucky", headers)

    async def _put_back(self, dead: str, consumer: Consumer, garbage: Sequence[Delivery]) -> None:
        """Leave a copy of each at the end of the queue: to hand them back would count as a delivery."""

        async def copy(delivery: Delivery) -> bool:
            try:
                await self._broker.publish(dead, delivery.body, message_id=uuid7().hex, headers=delivery.headers)
            except MessageRefused:
                # Larger than what the broker takes by now. It stays where it is.
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
        """Settle these and acknowledge them; returns those that the database can't take. Raises `Unavailable`."""
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
            # One by one, so that one of them does not stand in the way of all others for good.
            return [refused for one in readable for refused in await self._settle(consumer, [one], settlements)]
        await consumer.acknowledge([delivery for delivery, _ in readable])
        return []


@dataclass(slots=True)
class _Look:
    """How far a look through a dead-letter queue has come."""

    unseen: int
    unreadable: int = 0


def _envelope(delivery: Delivery) -> TaskEnvelope | ResultEnvelope:
    try:
        return decode_tasks(delivery.body)
    except msgspec.ValidationError:
        return decode_results(delivery.body)
