"""Leases the endpoints that are due, sends their events and records the result.

Each leased endpoint has its own task, so that a slow endpoint delays no other. The tasks of one account are limited, so
that an account with many slow endpoints does not block the other accounts.
"""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from foretell.domain.notifications import outbox
from foretell.domain.notifications.events import Event
from foretell.domain.notifications.outbox import Taken
from foretell.domain.notifications.spreading import spread
from foretell.domain.predictions import event_views
from foretell.kit.batching import Batcher
from foretell.kit.clock import uuid7
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError
from foretell.kit.outgoing import Outgoing
from foretell.kit.pauses import set_within
from foretell.services.dispatcher.notifying.delivering import Bot, Delivery, Outcome, Work
from foretell.services.dispatcher.notifying.messages import Message, encoded

log = structlog.get_logger()

#: Endpoints that one dispatcher sends to at once, and how many of them may belong to one account.
_MOST_AT_ONCE = 1024
_MOST_OF_ACCOUNT = 16
_TAKEN_AT_ONCE = 64
#: Events of one turn of an endpoint, and of all endpoints that are taken at once. Recording a turn is expensive, so
#: when few endpoints are due, each gets more. What is not recorded when a dispatcher crashes is sent again.
_LONGEST_TURN = 256
_TURNS = 4096
#: Bytes of bodies in memory, approximately. Beyond that, no endpoint is taken.
_MOST_BYTES = 64 * 1024 * 1024
#: How often the database is polled for what no announcement reports: retries, and the endpoints of a dead dispatcher.
_LOOK_EVERY_S = 0.5
#: The least time between two looks at the database, unless the first one was full. Under load, one look then
#: takes the events of several settlements, which costs as much as a look for one; a single event is sent at once.
#: Where a look takes long, because the machine or the database is busy, the next one is later, up to a limit:
#: so looks and the turns after them take a part of the time, and predictions have the rest.
_LOOKS_APART_S = 0.05
_LOOKS_APART_AT_MOST_S = 0.1
_LOOK_DURATIONS_APART = 5
#: The lease of an endpoint, in time-outs of an attempt (plus a moment each). It is due again that long after a crash.
_LEASE_TIMEOUTS = 2
_MOMENT_S = 1.0
#: Leases are renewed after this part of their duration.
_RENEWED_AFTER = 0.25
_RECORDED_AT_ONCE = 256
_STOP_WITHIN_S = 12.0


class Sender:
    """Sends the notifications of all endpoints."""

    def __init__(
        self, database: Database, internet: Outgoing, local: Outgoing, bot: Bot | None, *, timeout_s: float
    ) -> None:
        """`internet` and `local` abort an attempt after `timeout_s`."""
        self._timeout_s = timeout_s
        self._lease = timedelta(seconds=_LEASE_TIMEOUTS * (timeout_s + _MOMENT_S))
        self._database = database
        self._internet = internet
        self._local = local
        self._bot = bot
        self._me = uuid7()
        self._kinds = outbox.INTERNET if bot is None else (*outbox.INTERNET, outbox.TELEGRAM)
        self._woken = asyncio.Event()
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._of_account: Tally[UUID] = Tally()
        #: The end of each endpoint's lease, by the monotonic clock.
        self._leased_until: dict[UUID, float] = {}
        self._bytes = 0
        self._stopping = False
        #: Whether the last look found new events. One that found none does not delay the next.
        self._found_events = False
        self._recorder: Batcher[Outcome, Taken | None] = Batcher(self._record, max_batch=_RECORDED_AT_ONCE)

    def wake(self) -> None:
        """Look for due endpoints now: there may be new events."""
        self._woken.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until `stopping` is set; attempts under way then have `_STOP_WITHIN_S` to finish."""
        renewing = asyncio.create_task(self._renew_now_and_then())
        leaving = asyncio.create_task(self._leave(stopping))
        try:
            while not stopping.is_set():
                self._woken.clear()
                took, looked_at = 0, time.monotonic()
                try:
                    took = await self._take()
                except ForetellError as error:
                    log.warning("notifications_postponed", reason=error.message)
                except Exception:
                    log.exception("notifications_failed")
                next_at = looked_at + apart_s(time.monotonic() - looked_at)
                if took < _TAKEN_AT_ONCE:
                    await set_within(self._woken, _LOOK_EVERY_S)
                    if self._found_events:
                        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
            if self._tasks:
                await asyncio.wait(self._tasks.values(), timeout=_STOP_WITHIN_S)
        finally:
            for task in (renewing, leaving, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(renewing, leaving, *self._tasks.values(), return_exceptions=True)
            self._internet.close()
            self._local.close()

    async def _leave(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._stopping = True
        self._woken.set()

    async def _take(self) -> int:
        """Lease endpoints that are due and start a task for each; returns their number."""
        free = min(_TAKEN_AT_ONCE, _MOST_AT_ONCE - len(self._tasks))
        if free <= 0 or self._bytes > _MOST_BYTES:
            return 0
        busy = [user_id for user_id, count in self._of_account.items() if count >= _MOST_OF_ACCOUNT]
        until = time.monotonic() + self._lease.total_seconds()
        async with self._database.transaction() as connection:
            spread_to = await spread(connection)
            taken = await outbox.take(connection, self._me, lease=self._lease, limit=free, busy=busy, kinds=self._kinds)
        self._found_events = bool(spread_to or taken)
        if not taken:
            return 0
        for work in await self._load(taken):
            endpoint = work.endpoint
            self._leased_until[endpoint.id] = until
            self._of_account[endpoint.user_id] += 1
            self._tasks[endpoint.id] = asyncio.create_task(self._serve(work))
        return len(taken)

    async def _load(self, taken: Sequence[Taken]) -> list[Work]:
        async with self._database.snapshot() as connection:
            # An endpoint that keeps its task is loaded alone, but shares the memory with all other tasks.
            share = max(1, _TURNS // max(len(taken), len(self._tasks)))
            found = await outbox.news(connection, taken, most=min(_LONGEST_TURN, share))
            wanted: dict[tuple[UUID, int], Event] = {}
            for endpoint in taken:
                again, following = found[endpoint.id]
                for event in (*again, *(each for each in following if outbox.is_for(each, endpoint))):
                    wanted[event.user_id, event.sequence] = event
            shown = await event_views.shown(connection, list(wanted.values()))
        messages = dict(zip(wanted, map(encoded, shown), strict=True))
        work = []
        for endpoint in taken:
            again, following = found[endpoint.id]
            work.append(
                Work(
                    endpoint,
                    [messages[event.user_id, event.sequence] for event in again],
                    _in_turn(endpoint, following, messages),
                )
            )
        return work

    async def _serve(self, work: Work) -> None:
        """Run turns until no event is left or another endpoint needs the place."""
        endpoint = work.endpoint
        try:
            kept = await self._turn(work)
            while kept is not None:
                (work,) = await self._load([kept])
                kept = await self._turn(work)
        except ForetellError as error:
            # The endpoint is due again when its lease ends; the same events are then sent again, with the same ids.
            log.warning("deliveries_not_recorded", endpoint_id=endpoint.id, reason=error.message)
        except Exception:
            log.exception("delivery_failed", endpoint_id=endpoint.id)
        finally:
            del self._tasks[endpoint.id], self._leased_until[endpoint.id]
            self._of_account[endpoint.user_id] -= 1
            if not self._of_account[endpoint.user_id]:
                del self._of_account[endpoint.user_id]
            self._woken.set()

    async def _turn(self, work: Work) -> Taken | None:
        """Send and record one turn. Returns the updated endpoint if this task is to go on with it."""
        endpoint = work.endpoint
        size = sum(len(message.body) for message in (*work.again, *(each for _, each in work.following if each)))
        self._bytes += size
        try:
            delivery = Delivery(work, self._internet, self._local, self._bot)
            outcome = await delivery.run(lambda: self._may_begin(endpoint.id))
            return await self._recorder.submit(outcome)
        finally:
            self._bytes -= size

    def _may_keep(self, endpoint: Taken) -> bool:
        """Whether the endpoint keeps its task: no limit is reached, and its lease is long enough for an attempt."""
        return (
            self._may_begin(endpoint.id)
            and self._of_account[endpoint.user_id] < _MOST_OF_ACCOUNT
            and len(self._tasks) < _MOST_AT_ONCE
            and self._bytes <= _MOST_BYTES
        )

    def _may_begin(self, endpoint_id: UUID) -> bool:
        """Whether the longest possible attempt ends before the lease: another dispatcher may send after it."""
        left_s = self._leased_until[endpoint_id] - time.monotonic()
        return not self._stopping and left_s > self._timeout_s + _MOMENT_S

    async def _record(self, outcomes: list[Outcome]) -> list[Taken | None]:
        turned_off = sorted(
            (outcome for outcome in outcomes if outcome.turn_off is not None),
            key=lambda outcome: outcome.sent.endpoint.user_id,
        )
        sent = [outcome.sent for outcome in outcomes]
        keep = [each.endpoint.id for each in sent if self._may_keep(each.endpoint)]
        until = time.monotonic() + self._lease.total_seconds()
        async with self._database.transaction() as connection:
            for outcome in turned_off:
                await outbox.disable(connection, outcome.sent, outcome.turn_off or "")
            kept = await outbox.record(connection, self._me, sent, keep=keep, lease=self._lease)
        for endpoint in kept:
            self._leased_until[endpoint.id] = until
        for outcome in turned_off:
            log.warning("webhook_turned_off", endpoint_id=outcome.sent.endpoint.id, reason=outcome.turn_off)
        by_id = {endpoint.id: endpoint for endpoint in kept}
        return [by_id.get(each.endpoint.id) for each in sent]

    async def _renew_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_RENEWED_AFTER * self._lease.total_seconds())
            self._internet.tidy()
            self._local.tidy()
            ids = list(self._tasks)
            if not ids:
                continue
            until = time.monotonic() + self._lease.total_seconds()
            try:
                async with self._database.transaction() as connection:
                    await outbox.renew(connection, self._me, ids, lease=self._lease)
            except ForetellError as error:
                log.warning("leases_not_renewed", endpoints=len(ids), reason=error.message)
                continue
            for endpoint_id in ids:
                if endpoint_id in self._leased_until:
                    self._leased_until[endpoint_id] = until


def apart_s(look_s: float) -> float:
    """The least time from the beginning of a look that took `look_s` and found events to that of the next one."""
    return min(_LOOKS_APART_AT_MOST_S, max(_LOOKS_APART_S, _LOOK_DURATIONS_APART * look_s))


def _in_turn(
    endpoint: Taken, following: Sequence[Event], messages: dict[tuple[UUID, int], Message]
) -> list[tuple[int, Message | None]]:
    if not endpoint.enabled:
        return []
    turn = [
        (event.sequence, messages[event.user_id, event.sequence] if outbox.is_for(event, endpoint) else None)
        for event in following
    ]
    if not turn and endpoint.cursor < endpoint.last_event:
        # All events after the cursor have been deleted.
        return [(endpoint.last_event, None)]
    return turn
