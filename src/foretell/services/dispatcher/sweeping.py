"""Pick up what crashes, lost messages and time have left behind."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import structlog

from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.contracts.messages import Failure
from foretell.domain.accounts import refresh_tokens, sessions
from foretell.domain.notifications import events, listening, outbox
from foretell.domain.notifications.events import KEPT
from foretell.domain.predictions import sweeps
from foretell.domain.predictions.store import Ending, Store
from foretell.kit.clock import now
from foretell.kit.database import Database, server_time
from foretell.kit.errors import ForetellError
from foretell.kit.pauses import set_within
from foretell.services.dispatcher.dead_letters import DeadLetters
from foretell.services.dispatcher.in_hand import InHand
from foretell.services.dispatcher.measures import SWEPT
from foretell.services.dispatcher.republishing import Republisher
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.dispatcher.settling import Settler

log = structlog.get_logger()

#: The most predictions of one query; the next query follows at once.
_LIMIT = 1000
_TIDY_EVERY_S = 600.0
#: How often expired events and attempts are deleted, and how many in one transaction.
_FORGET_EVERY_S = 60.0
_FORGOTTEN_AT_ONCE = 5000
#: Expired tokens are kept this long: reuse of one still ends its family.
_TOKENS_KEPT = timedelta(days=1)

_EXPIRED = Failure("expired", "No worker took this prediction in time. The credits are back; please try again.")


class Sweeper:
    """Looks periodically for predictions that do not progress. Any number of dispatchers may do it at once."""

    def __init__(
        self,
        database: Database,
        store: Store,
        broker: Broker,
        settler: Settler,
        in_hand: InHand,
        settings: DispatcherSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._broker = broker
        self._settler = settler
        self._in_hand = in_hand
        self._clock = clock
        self._republisher = Republisher(database, store, broker, settler)
        self._dead_letters = DeadLetters(database, broker, settler, in_hand, self._republisher)
        #: Predictions whose tasks may be lost.
        self._suspected: dict[UUID, _Suspected] = {}
        self._settings = settings
        self._task_queues = [queues.TASKS, *(queues.tasks_queue(pool) for pool in settings.worker_pools)]
        self._tidy_at = 0.0
        self._forget_at = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set. If the broker or database is unavailable, the next sweep tries again."""
        while not stopping.is_set():
            for sweep in (
                self.publish_forgotten,
                self.expire,
                # Before `publish_lost`: tasks in dead-letter queues are not lost.
                self.bury_dead_letters,
                self.publish_lost,
                self.publish_abandoned,
                self.forget_refresh_tokens,
                self.forget_events,
            ):
                try:
                    await sweep()
                except ForetellError as error:
                    log.warning("sweep_postponed", sweep=sweep.__name__, reason=error.message)
                except Exception:
                    log.exception("sweep_failed", sweep=sweep.__name__)
            await set_within(stopping, self._settings.sweep_interval_s)

    async def publish_forgotten(self) -> None:
        """Publish predictions that were never marked as published: the app crashed, or the broker was unavailable."""
        while True:
            before = now() - timedelta(seconds=self._settings.publish_after_s)
            async with self._database.snapshot() as connection:
                forgotten = await sweeps.never_published(connection, before=before, limit=_LIMIT)
            await self._republisher.publish(forgotten, "forgotten")
            if len(forgotten) < _LIMIT:
                return

    async def publish_lost(self) -> None:
        """Publish again predictions that were published long ago and have not ended although no message is waiting.

        Not if a worker has the task: workers report tasks that run for longer than one pulse, and tasks that were
        delivered before. So a task is lost if it seems to be for two pulses, in two consecutive sweeps.

        Tasks from before the subscription to these reports need no long wait: their worker may have died while this
        dispatcher did not listen, and every worker that is alive has reported since.
        """
        self._in_hand.look()
        at, after = now(), timedelta(seconds=self._lost_after_s())
        # Asked once per sweep, so that what this sweep publishes does not make a queue busy.
        empty: dict[str | None, bool] = {}
        suspected: dict[UUID, _Suspected] = {}
        beyond: UUID | None = None
        patience_s = 2 * self._settings.task_pulse_s
        while True:
            busy = [pool for pool, is_empty in empty.items() if not is_empty]
            async with self._database.snapshot() as connection:
                overdue = await sweeps.lost(connection, at, after=after, limit=_LIMIT, except_pools=busy, beyond=beyond)
            for pool in {prediction.pool for prediction in overdue} - empty.keys():
                results_wait = (await self._broker.depth(queues.RESULTS)).ready
                empty[pool] = not results_wait and not (await self._broker.depth(queues.tasks_queue(pool))).ready
            free = [each for each in overdue if empty[each.pool] and each.id not in self._in_hand]
            lost = []
            for each in free:
                before = self._suspected.get(each.id)
                suspected[each.id] = _Suspected(each.pool, self._clock() if before is None else before.since, True)
                if before is not None and before.at_last_look and self._clock() - before.since >= patience_s:
                    lost.append(each)
            await self._republisher.publish(lost, "lost")
            if len(overdue) < _LIMIT:
                break
            beyond = overdue[-1].id
        # While messages are waiting in a pool's queue, nothing is known about its other tasks.
        still = {
            identifier: each._replace(at_last_look=False)
            for identifier, each in self._suspected.items()
            if not empty.get(each.pool, True)
        }
        self._suspected = still | suspected

    def _lost_after_s(self) -> float:
        """The age, in seconds since publishing, from which a task may be lost."""
        listened_s = self._in_hand.listened_s
        if listened_s < (queues.PULSES_OF_SILENCE - 2) * self._settings.task_pulse_s:
            return self._settings.lost_after_s
        # Together with the two pulses that follow, this is the silence after which a worker counts as dead.
        return min(self._settings.lost_after_s, listened_s)

    async def publish_abandoned(self) -> None:
        """Publish again tasks whose lease has ended: the worker had acknowledged them and reports them no more."""
        abandoned = dict(list(self._in_hand.abandoned.items())[:_LIMIT])
        if not abandoned or (await self._broker.depth(queues.RESULTS)).ready:
            return
        before = now() - timedelta(seconds=queues.PULSES_OF_SILENCE * self._settings.task_pulse_s)
        async with self._database.snapshot() as connection:
            left = await sweeps.still_queued(connection, list(abandoned), before=before)
        for prediction in left:
            # Each alone, since one of them may have crashed its worker, and with the number of earlier attempts.
            headers = {queues.EARLIER_ATTEMPTS: str(abandoned[prediction.id])}
            await self._republisher.publish([prediction], "abandoned", headers)
            self._in_hand.forget_abandoned([prediction.id])
        self._in_hand.forget_abandoned(abandoned)

    async def expire(self) -> None:
        """End predictions that no worker has taken in time, and release their credits.

        A prediction expires by both clocks, the dispatcher's and the database's, so that a dispatcher whose clock is
        ahead ends none too early.
        """
        while True:
            async with self._database.snapshot() as connection:
                moment = min(now(), await server_time(connection))
                overdue = await sweeps.expired(connection, moment, limit=_LIMIT)
            if overdue:
                SWEPT.labels("expired").inc(len(overdue))
                await self._settler.settle([Ending(identifier, error=_EXPIRED) for identifier in overdue])
            if len(overdue) < _LIMIT:
                return

    async def bury_dead_letters(self) -> None:
        """Process all dead-letter queues."""
        self._in_hand.look()
        for queue in (*self._task_queues, queues.RESULTS):
            await self._dead_letters.process(queue)

    async def forget_refresh_tokens(self) -> None:
        """Delete refresh tokens and sessions that expired long ago, at most every 10 minutes."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + _TIDY_EVERY_S
        async with self._database.transaction() as connection:
            await refresh_tokens.delete_expired(connection, before=now() - _TOKENS_KEPT)
            await sessions.delete_expired(connection, before=now())

    async def forget_events(self) -> None:
        """Delete events older than 7 days, and stop writing events for accounts without a receiver."""
        if time.monotonic() < self._forget_at:
            return
        before = now() - KEPT
        while True:
            async with self._database.transaction() as connection:
                forgotten = await events.delete_old(connection, before=before, limit=_FORGOTTEN_AT_ONCE)
            async with self._database.transaction() as connection:
                forgotten += await outbox.delete_old(connection, before=before, limit=_FORGOTTEN_AT_ONCE)
            if not forgotten:
                break
        async with self._database.transaction() as connection:
            await listening.end_old(connection, now(), limit=_FORGOTTEN_AT_ONCE)
        self._forget_at = time.monotonic() + _FORGET_EVERY_S


class _Suspected(NamedTuple):
    """A prediction whose task may be lost."""

    pool: str | None
    since: float
    at_last_look: bool
