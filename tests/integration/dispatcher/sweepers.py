"""A sweeper whose clock and subscription a test controls."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from tests.integration.dispatcher.watched import Watched

from foretell.contracts import queues
from foretell.contracts.messages import TaskEnvelope, TasksKept, decode_tasks, encode
from foretell.domain.predictions.store import Store
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.dispatcher.settling import Settler
from foretell.services.dispatcher.sweeping import Sweeper

DEAD_TASKS = queues.dead_queue(queues.TASKS)
#: How often workers report, in seconds.
PULSE_S = 4.0


def make_sweeper(
    database: Database,
    store: Store,
    broker: Watched,
    in_hand: InHand | None = None,
    clock: Callable[[], float] = time.monotonic,
    **settings: float,
) -> Sweeper:
    # The database and broker of the settings are not those that are used.
    given = {"sweep_interval_s": 0.01, "worker_pools": ("gpu",), "task_pulse_s": PULSE_S, **settings}
    own = DispatcherSettings.model_validate(given)
    settler = Settler(store, broker)
    in_hand = in_hand or InHand(PULSE_S, listening_since=lambda: 0.0)
    return Sweeper(database, store, broker, settler, in_hand, own, clock=clock)


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Ears:
    """A subscription: since when it has listened."""

    def __init__(self) -> None:
        self.since: float | None = -1_000.0


async def look_twice(sweeper: Sweeper, clock: Clock) -> None:
    """What seems to be lost is lost when it still seems so two pulses later."""
    await sweeper.publish_lost()
    clock.now += 2 * PULSE_S
    await sweeper.publish_lost()


async def tasks_in(broker: Watched, queue: str = queues.TASKS) -> list[TaskEnvelope]:
    return [decode_tasks(body) for body in await broker.take_all(queue)]


async def mark_published(store: Store, identifier: UUID, *, published_s_ago: float) -> None:
    await store.mark_published([identifier], now() - timedelta(seconds=published_s_ago))


def dead_task(*ids: UUID, published_at: datetime | None = None) -> bytes:
    tasks = [msgspec.Raw(b'{"id":"%s","stage":"input","payload":{}}' % str(each).encode()) for each in ids]
    return encode({"model": "m", "version": "1", "published_at": published_at or now(), "tasks": tasks})


def start_last_attempt(in_hand: InHand, *ids: UUID) -> None:
    """As a worker says it before it runs what two have died of."""
    for identifier in ids:
        in_hand.hear(TasksKept("worker-1", [identifier], "held", queues.DELIVERY_LIMIT))
