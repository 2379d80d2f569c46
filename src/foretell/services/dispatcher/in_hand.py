"""Tracks the tasks that workers report to have: see docs/decisions/0014.

Correctness does not depend on these reports. A new dispatcher waits until every live worker must have reported. Then
it takes tasks that were published before for lost if no worker has reported them and no queue has them. If that is
wrong, a task runs twice and is settled once.
"""

import math
import time
from collections.abc import AsyncIterable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import structlog

from foretell.contracts import queues
from foretell.contracts.messages import TasksKept, decode_kept
from foretell.kit.clock import now

log = structlog.get_logger()


#: After a pause of this length between two sweeps, reports may have been missed.
_STOOD_STILL_S = 10.0
#: How long last attempts are remembered. Their messages become dead letters when the broker notices that the worker is
#: gone, for a machine that lost its power after a minute or so.
_LAST_ATTEMPTS_KEPT_S = 600.0


@dataclass(frozen=True, slots=True)
class _Kept:
    worker_id: str
    heard_at: float
    alone: bool
    earlier_attempts: int


class InHand:
    """The tasks that workers keep for a long time, according to the reports that this dispatcher has received."""

    def __init__(
        self,
        pulse_s: float,
        *,
        listening_since: Callable[[], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Workers report every `pulse_s`, by `clock`; `listening_since()` is the subscription's `since`."""
        self._pulse_s = pulse_s
        self._listening_since = listening_since
        self._clock = clock
        self._kept: dict[UUID, _Kept] = {}
        #: When a worker last reported that it runs the last attempt of this task.
        self._last_attempts: dict[UUID, float] = {}
        #: When a worker last reported that it had lost its connection to the broker.
        self._cut_off_at: datetime | None = None
        self._looked_at = clock()
        #: When this process last resumed after a pause.
        self._awake_since = -math.inf

    async def listen(self, events: AsyncIterable[bytes]) -> None:
        """Receive reports until the subscription ends."""
        async for body in events:
            try:
                self.hear(decode_kept(body))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                log.warning("event_rejected", routing_key=queues.TASKS_KEPT, reason=str(error)[:300])

    def hear(self, said: TasksKept) -> None:
        """Take a worker's report."""
        if said.cut_off:
            self._cut_off_at = now()
        if said.state == "returned":
            # Another worker may have taken the copy, and have reported that before this report arrived.
            for identifier in said.ids:
                kept = self._kept.get(identifier)
                if kept is not None and kept.worker_id == said.worker_id:
                    del self._kept[identifier]
            return
        if said.earlier_attempts >= queues.DELIVERY_LIMIT:
            self._last_attempts.update(dict.fromkeys(said.ids, self._clock()))
        kept = _Kept(said.worker_id, self._clock(), said.state == "alone", said.earlier_attempts)
        self._kept.update(dict.fromkeys(said.ids, kept))

    def look(self) -> None:
        """Call this with every sweep. Notices pauses of this process, and forgets old reports."""
        moment = self._clock()
        if moment - self._looked_at > _STOOD_STILL_S:
            self._awake_since = moment
        self._looked_at = moment
        self._kept = {
            identifier: kept for identifier, kept in self._kept.items() if kept.alone or not self._is_silent(kept)
        }
        self._last_attempts = {
            identifier: heard_at
            for identifier, heard_at in self._last_attempts.items()
            if moment - heard_at < _LAST_ATTEMPTS_KEPT_S
        }

    @property
    def listened_s(self) -> float:
        """For how many seconds every report has been received; 0 without a subscription."""
        since = self._listening_since()
        return 0.0 if since is None else max(0.0, self._clock() - max(since, self._awake_since))

    def __contains__(self, identifier: UUID) -> bool:
        """Whether a worker has this task, according to its reports."""
        kept = self._kept.get(identifier)
        return kept is not None and not self._is_silent(kept)

    @property
    def abandoned(self) -> Mapping[UUID, int]:
        """Acknowledged tasks that their worker no longer reports, with the number of their earlier attempts."""
        return {
            identifier: kept.earlier_attempts
            for identifier, kept in self._kept.items()
            if kept.alone and self._is_silent(kept)
        }

    def interrupted_since(self, published_at: datetime) -> bool:
        """Whether a live process lost its connection to the broker after a task was published at that time.

        Either a worker has reported that, or this dispatcher has not received all reports since then.
        """
        moment = now()
        heard_all_since = moment - timedelta(seconds=self.listened_s)
        cut_off = self._cut_off_at is not None and published_at <= self._cut_off_at
        # A time in the future comes from a wrong clock. If the task is published again it gets our own time.
        return cut_off or published_at <= heard_all_since or published_at > moment

    def last_attempt_started(self, identifier: UUID) -> bool:
        """Whether a worker reported within the last ten minutes that it runs the last attempt of this task."""
        return identifier in self._last_attempts

    def forget_last_attempts(self, ids: Collection[UUID]) -> None:
        """Forget these: they were published again with all their attempts."""
        for identifier in ids:
            self._last_attempts.pop(identifier, None)

    def forget_abandoned(self, ids: Collection[UUID]) -> None:
        """Forget these, except those that a worker has reported meanwhile: it took a copy."""
        for identifier in self.abandoned.keys() & set(ids):
            del self._kept[identifier]

    def _is_silent(self, kept: _Kept) -> bool:
        # Without a subscription, missing reports mean nothing.
        silent_s = min(self._clock() - kept.heard_at, self.listened_s)
        return silent_s > queues.PULSES_OF_SILENCE * self._pulse_s
