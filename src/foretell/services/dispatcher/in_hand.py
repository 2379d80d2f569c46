"""What workers say they have in hand: see docs/decisions/0014.

Nothing depends on hearing it. A dispatcher that has just begun to listen waits until every worker that lives must have
spoken; of what was published before, it then takes for lost what nobody spoke of and what waits nowhere. Should it be
mistaken, a task runs twice and is settled once.
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


#: After a pause of this length between two sweeps we may have missed what was said.
_STOOD_STILL_S = 10.0
#: How long last attempts are remembered. Their messages become dead letters when the broker notices that the worker is
#: gone, for a machine that lost its power after a minute or so.
_LAST_ATTEMPTS_KEPT_S = 600.0


@dataclass(frozen=True, slots=True)
class _Kept:
    heard_at: float
    alone: bool
    earlier_attempts: int


class InHand:
    """The tasks that workers keep for longer than a moment, as far as they were heard."""

    def __init__(
        self,
        pulse_s: float,
        *,
        listening_since: Callable[[], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Workers speak every `pulse_s`, by `clock`; `listening_since()` is the subscription's `since`."""
        self._pulse_s = pulse_s
        self._listening_since = listening_since
        self._clock = clock
        self._kept: dict[UUID, _Kept] = {}
        #: When a worker said last that it runs the last attempt of this task.
        self._last_attempts: dict[UUID, float] = {}
        #: When a worker said last that it had lost its connection to the broker.
        self._cut_off_at: datetime | None = None
        self._looked_at = clock()
        #: When we last came to after standing still.
        self._awake_since = -math.inf

    async def listen(self, events: AsyncIterable[bytes]) -> None:
        """Hear what is said, until the subscription ends."""
        async for body in events:
            try:
                self.hear(decode_kept(body))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                log.warning("event_rejected", routing_key=queues.TASKS_KEPT, reason=str(error)[:300])

    def hear(self, said: TasksKept) -> None:
        """A worker has said something."""
        if said.cut_off:
            self._cut_off_at = now()
        if said.state == "returned":
            self.forget(said.ids)
            return
        if said.earlier_attempts >= queues.DELIVERY_LIMIT:
            self._last_attempts.update(dict.fromkeys(said.ids, self._clock()))
        kept = _Kept(self._clock(), said.state == "alone", said.earlier_attempts)
        self._kept.update(dict.fromkeys(said.ids, kept))

    def look(self) -> None:
        """To be called with every sweep: notices that we stood still ourselves."""
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
        """For how long we have heard everything that workers say; 0 while we can't hear."""
        since = self._listening_since()
        return 0.0 if since is None else max(0.0, self._clock() - max(since, self._awake_since))

    def __contains__(self, identifier: UUID) -> bool:
        """Whether a worker has this one in hand, as far as we know."""
        kept = self._kept.get(identifier)
        return kept is not None and not self._is_silent(kept)

    @property
    def abandoned(self) -> Mapping[UUID, int]:
        """Those that a worker had alone and of which it says nothing any more; with the attempts that count."""
        return {
            identifier: kept.earlier_attempts
            for identifier, kept in self._kept.items()
            if kept.alone and self._is_silent(kept)
        }

    def interrupted_since(self, published_at: datetime) -> bool:
        """Whether a live process lost its connection to the broker after a task was published at that time.

        Either a worker has said so, or this dispatcher did not hear everything since then.
        """
        moment = now()
        heard_all_since = moment - timedelta(seconds=self.listened_s)
        cut_off = self._cut_off_at is not None and published_at <= self._cut_off_at
        # A time in the future comes from a wrong clock. If the task is published again it gets our own time.
        return cut_off or published_at <= heard_all_since or published_at > moment

    def last_attempt_started(self, identifier: UUID) -> bool:
        """Whether a worker said within the last ten minutes that it runs the last attempt of this task."""
        return identifier in self._last_attempts

    def forget_last_attempts(self, ids: Collection[UUID]) -> None:
        """These tasks have all their attempts again."""
        for identifier in ids:
            self._last_attempts.pop(identifier, None)

    def forget(self, ids: Collection[UUID]) -> None:
        """These are nobody's any more."""
        for identifier in ids:
            self._kept.pop(identifier, None)

    def _is_silent(self, kept: _Kept) -> bool:
        # While nothing can be heard, silence says nothing.
        silent_s = min(self._clock() - kept.heard_at, self.listened_s)
        return silent_s > queues.PULSES_OF_SILENCE * self._pulse_s
