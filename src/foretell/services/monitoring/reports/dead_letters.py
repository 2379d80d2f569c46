"""Shows dead letters, returns them to their queue (redrive), or discards them.

The dispatcher also handles them (`services/dispatcher/sweeping.py`): within about a second it ends the predictions of
readable ones, and leaves the others in the queue. Taking and returning messages here does not disturb it. A dead letter
that fails again after a redrive becomes a dead letter again.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import structlog

from foretell.broker.connect import connect
from foretell.broker.port import Broker, BrokerUnavailable, Consumer, Delivery, MessageRefused, Unroutable
from foretell.contracts import queues
from foretell.contracts.messages import ResultEnvelope, TaskEnvelope, decode_results, decode_tasks
from foretell.contracts.reports.activity import DeadLetter, DeadLetters, MovedLetters
from foretell.kit.clock import uuid7
from foretell.kit.errors import ForetellError
from foretell.kit.settings import ServiceSettings

log = structlog.get_logger()

MOST_SHOWN = 500
MOST_MOVED = 100_000
#: Messages that are handled at the same time.
_IN_HAND = 100
#: The next message should arrive within this time, unless another consumer has it or the broker is unavailable.
_NEXT_WITHIN_S = 3.0
#: How often it may be late although the broker reports one: the broker may just have restarted.
_MOST_LATE = 5
_MOST_IDS = 20
#: The header with the number of redrives of a message.
_REDRIVEN = "redriven"
_is_pool = re.compile(rf"{re.escape(queues.TASKS)}\.[a-z0-9][a-z0-9-]*", re.ASCII).fullmatch
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class UnknownQueue(ForetellError):
    """There is no queue {queue}. Task queues are ml_tasks and ml_tasks.POOL, results come by ml_results."""

    code = "unknown_queue"
    status = 404


class NotConfirmed(ForetellError):
    """There are {count} dead letters in {queue}, not {confirmed}. To discard these, repeat it with confirm={count}."""

    code = "not_confirmed"
    status = 409


class CutShort(ForetellError):
    """The broker went away after {moved} messages; the others are where they were. Try again shortly."""

    code = "cut_short"
    status = 503
    retry_after_s = 5.0


class DeadLetterOffice:
    """Shows, redrives and discards dead letters; connects to the broker for each call."""

    def __init__(self, settings: ServiceSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        # Concurrent calls would take messages from each other.
        self._turn = asyncio.Lock()

    async def show(self, queue: str, limit: int) -> DeadLetters:
        """The oldest dead letters, which stay in the queue. Raises `UnknownQueue`, `BrokerUnavailable`."""
        async with self._turn, self._open(queue) as (broker, count):
            shown: list[DeadLetter] = []
            async with _consuming(broker, queue, min(limit, count)) as consumer:
                async for deliveries in _taken(broker, consumer, queue, min(limit, count)):
                    shown += [_described(delivery) for delivery in deliveries]
            return DeadLetters(queue, count, shown)

    async def redrive(self, queue: str, limit: int) -> MovedLetters:
        """Return the oldest to their queue, each at most once, even if it becomes a dead letter again meanwhile.

        Each is acknowledged after its copy is stored, so it may be delivered twice but is never lost. Raises
        `UnknownQueue`, `BrokerUnavailable`, and `CutShort` if the broker becomes unavailable meanwhile.
        """
        async with self._turn, self._open(queue) as (broker, count):
            moved = await _settled(broker, queue, min(limit, count), partial(_send_back, broker, queue))
            log.info("dead_letters_redriven", queue=queue, messages=moved)
            return MovedLetters(queue, moved, max(0, count - moved))

    async def discard(self, queue: str, confirmed: int) -> MovedLetters:
        """Discard all dead letters if there are exactly `confirmed`, so that the operator knows how many are lost.

        Predictions whose tasks are discarded end when they expire. Raises `UnknownQueue`, `NotConfirmed`,
        `BrokerUnavailable`, and `CutShort` if the broker becomes unavailable meanwhile.
        """
        async with self._turn, self._open(queue) as (broker, count):
            if count != confirmed:
                raise NotConfirmed(queue=queue, count=count, confirmed=confirmed)
            discarded = await _settled(broker, queue, count, _let_go)
            log.warning("dead_letters_discarded", queue=queue, messages=discarded)
            return MovedLetters(queue, discarded, max(0, count - discarded))

    @asynccontextmanager
    async def _open(self, queue: str) -> AsyncIterator[tuple[Broker, int]]:
        """The broker, and the number of dead letters of `queue`. Raises `UnknownQueue`, `BrokerUnavailable`."""
        if queue not in (queues.TASKS, queues.RESULTS) and not _is_pool(queue):
            raise UnknownQueue(queue=queue)
        broker = await connect(self._settings.broker_url, name=self._name, prefix=self._settings.broker_prefix)
        try:
            try:
                # First, because consuming or publishing could declare an unknown queue.
                depth = await broker.depth(queues.dead_queue(queue))
                await broker.depth(queue)
            except Unroutable:
                raise UnknownQueue(queue=queue) from None
            # Declared here, so that a publish declares the queue again if it is lost meanwhile.
            await broker.ensure_queue(queue)
            yield broker, depth.ready
        finally:
            await broker.close()


@asynccontextmanager
async def _consuming(broker: Broker, queue: str, prefetch: int) -> AsyncIterator[Consumer]:
    """A consumer of the dead letters of `queue`; messages that are not acknowledged at the end are returned."""
    consumer = await broker.consume(queues.dead_queue(queue), prefetch=max(1, prefetch))
    try:
        yield consumer
    finally:
        await consumer.close()


async def _taken(broker: Broker, consumer: Consumer, queue: str, count: int) -> AsyncIterator[list[Delivery]]:
    """Up to `count` dead letters of `queue`, as they arrive; fewer if another consumer has taken the others.

    Raises `BrokerUnavailable` when messages do not arrive although they exist, or when the depth can't be read.
    """
    left, late = count, 0
    while left > 0:
        try:
            async with asyncio.timeout(_NEXT_WITHIN_S):
                deliveries = await consumer.receive(min(left, _IN_HAND))
        except TimeoutError:
            # A consumer waits without an error for an unavailable broker and for a message that another one has taken.
            if not (await broker.depth(queues.dead_queue(queue))).ready:
                return
            late += 1
            if late == _MOST_LATE:
                raise BrokerUnavailable(f"The dead letters of {queue} are there, and do not come.") from None
        else:
            left, late = left - len(deliveries), 0
            yield deliveries


async def _settled(broker: Broker, queue: str, count: int, handle: Callable[[Delivery], Awaitable[None]]) -> int:
    """Acknowledge up to `count` of the oldest, each after `handle`; returns their number. Raises `CutShort`."""
    settled = 0
    try:
        async with _consuming(broker, queue, min(count, _IN_HAND)) as consumer:
            async for deliveries in _taken(broker, consumer, queue, count):
                await asyncio.gather(*map(handle, deliveries))
                await consumer.acknowledge(deliveries)
                settled += len(deliveries)
    except (BrokerUnavailable, MessageRefused, Unroutable) as error:
        log.warning("dead_letters_cut_short", queue=queue, messages=settled, reason=error.message)
        raise CutShort(moved=settled) from error
    return settled


async def _let_go(_: Delivery) -> None:
    """The handler of discarded messages, which does nothing."""


async def _send_back(broker: Broker, queue: str, delivery: Delivery) -> None:
    headers = {**delivery.headers, _REDRIVEN: str(_redriven(delivery) + 1)}
    # A new id, because the same id may be in flight only once.
    await broker.publish(queue, delivery.body, message_id=uuid7().hex, headers=headers)


def _redriven(delivery: Delivery) -> int:
    text = delivery.headers.get(_REDRIVEN, "")
    return int(text) if re.fullmatch("[0-9]{1,6}", text) else 0


def _described(delivery: Delivery) -> DeadLetter:
    envelope, reason = _read(delivery.body)
    items = [] if envelope is None else envelope.tasks if isinstance(envelope, TaskEnvelope) else envelope.results
    return DeadLetter(
        message_id=delivery.message_id,
        attempts=delivery.attempts,
        redriven=_redriven(delivery),
        size_bytes=len(delivery.body),
        headers=dict(delivery.headers),
        kind="unreadable" if envelope is None else "tasks" if isinstance(envelope, TaskEnvelope) else "results",
        reason=reason,
        model=None if envelope is None else envelope.model,
        version=None if envelope is None else envelope.version,
        tasks=len(items),
        prediction_ids=[str(item.id) for item in items[:_MOST_IDS]],
    )


def _read(body: bytes) -> tuple[TaskEnvelope | ResultEnvelope | None, str | None]:
    try:
        return decode_tasks(body), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error)
    try:
        return decode_results(body), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Quoted text may be a value from an input.
        return None, _QUOTED.sub("…", reason)[:200]
