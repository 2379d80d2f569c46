"""Dead letters: what is in them, back to their queue with them, or away with them.

The dispatcher looks after them, too (`services/dispatcher/sweeping.py`): it ends the predictions of those that can be
read, within a second or so, and leaves the others lying. To look at them here, to take them and to give them back does
it no harm: it only looks again. A dead letter that was sent back and can't be handled this time either is dead again.
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
#: How many are under way at once.
_IN_HAND = 100
#: The next one should be here by then, unless somebody else has taken it or the broker is away.
_NEXT_WITHIN_S = 3.0
#: How often it may be late though the broker says that there is one: it may just have started again.
_MOST_LATE = 5
_MOST_IDS = 20
#: How often a message was sent back by us, in its headers.
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
    """Reaches the broker when asked to, and lets go of it afterwards."""

    def __init__(self, settings: ServiceSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        # Two of us at once would take the messages from under each other's eyes.
        self._turn = asyncio.Lock()

    async def show(self, queue: str, limit: int) -> DeadLetters:
        """The oldest dead letters. They stay where they are. Raises `UnknownQueue`, `BrokerUnavailable`."""
        async with self._turn, self._open(queue) as (broker, count):
            shown: list[DeadLetter] = []
            async with _consuming(broker, queue, min(limit, count)) as consumer:
                async for deliveries in _taken(broker, consumer, queue, min(limit, count)):
                    shown += [_described(delivery) for delivery in deliveries]
            return DeadLetters(queue, count, shown)

    async def redrive(self, queue: str, limit: int) -> MovedLetters:
        """Send the oldest back to their queue, each at most once, however soon it is dead again.

        Each is acknowledged only when its copy is stored: it may arrive twice, never get lost. Raises `UnknownQueue`,
        `BrokerUnavailable`, and `CutShort` if the broker goes away on the way.
        """
        async with self._turn, self._open(queue) as (broker, count):
            moved = await _settled(broker, queue, min(limit, count), partial(_send_back, broker, queue))
            log.info("dead_letters_redriven", queue=queue, messages=moved)
            return MovedLetters(queue, moved, max(0, count - moved))

    async def discard(self, queue: str, confirmed: int) -> MovedLetters:
        """Throw the oldest away, if there are exactly as many as `confirmed`: whoever asks knows what they do.

        Predictions whose tasks are thrown away end all the same, when their time is over. Raises `UnknownQueue`,
        `NotConfirmed`, `BrokerUnavailable`, and `CutShort` if the broker goes away on the way.
        """
        async with self._turn, self._open(queue) as (broker, count):
            if count != confirmed:
                raise NotConfirmed(queue=queue, count=count, confirmed=confirmed)
            discarded = await _settled(broker, queue, count, _let_go)
            log.warning("dead_letters_discarded", queue=queue, messages=discarded)
            return MovedLetters(queue, discarded, max(0, count - discarded))

    @asynccontextmanager
    async def _open(self, queue: str) -> AsyncIterator[tuple[Broker, int]]:
        """The broker, and how many dead letters of `queue` wait. Raises `UnknownQueue`, `BrokerUnavailable`."""
        if queue not in (queues.TASKS, queues.RESULTS) and not _is_pool(queue):
            raise UnknownQueue(queue=queue)
        broker = await connect(self._settings.broker_url, name=self._name, prefix=self._settings.broker_prefix)
        try:
            try:
                # Asked before anything else: to consume from a queue, or to publish to it, could declare it.
                depth = await broker.depth(queues.dead_queue(queue))
                await broker.depth(queue)
            except Unroutable:
                raise UnknownQueue(queue=queue) from None
            # It may be lost at this moment; then a publish brings it back.
            await broker.ensure_queue(queue)
            yield broker, depth.ready
        finally:
            await broker.close()


@asynccontextmanager
async def _consuming(broker: Broker, queue: str, prefetch: int) -> AsyncIterator[Consumer]:
    """A consumer of the dead letters of `queue`; what it holds at the end goes back."""
    consumer = await broker.consume(queues.dead_queue(queue), prefetch=max(1, prefetch))
    try:
        yield consumer
    finally:
        await consumer.close()


async def _taken(broker: Broker, consumer: Consumer, queue: str, count: int) -> AsyncIterator[list[Delivery]]:
    """Up to `count` dead letters of `queue`, as they come; less if somebody else has taken the others.

    Raises `BrokerUnavailable` when they stay away although they are there, or nobody can tell.
    """
    left, late = count, 0
    while left > 0:
        try:
            async with asyncio.timeout(_NEXT_WITHIN_S):
                deliveries = await consumer.receive(min(left, _IN_HAND))
        except TimeoutError:
            # A consumer waits in silence for a broker that is away, as for a message that somebody else has taken.
            if not (await broker.depth(queues.dead_queue(queue))).ready:
                return
            late += 1
            if late == _MOST_LATE:
                raise BrokerUnavailable(f"The dead letters of {queue} are there, and do not come.") from None
        else:
            left, late = left - len(deliveries), 0
            yield deliveries


async def _settled(broker: Broker, queue: str, count: int, handle: Callable[[Delivery], Awaitable[None]]) -> int:
    """Take up to `count` of the oldest for good, each after `handle`; how many those were. Raises `CutShort`."""
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
    """Nothing more is to be done with it."""


async def _send_back(broker: Broker, queue: str, delivery: Delivery) -> None:
    headers = {**delivery.headers, _REDRIVEN: str(_redriven(delivery) + 1)}
    # An identifier of its own: the same one may be in flight only once.
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
        # What is quoted may be a value that somebody sent.
        return None, _QUOTED.sub("…", reason)[:200]
