"""Sends queued notifications, each channel independently and in order; retries until delivered or a day old."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from foretell.kit.randomness import RANDOM
from foretell.services.monitoring.alerts import store
from foretell.services.monitoring.alerts.channels import Channel, Outcome
from foretell.services.monitoring.alerts.measures import NOTICES
from foretell.services.monitoring.alerts.store import Notification
from foretell.services.monitoring.storage.database import MonitoringDatabase

log = structlog.get_logger()

GIVEN_UP_AFTER_S = 86_400.0
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0
#: The duration of a claim, longer than an attempt: afterwards another process may send the notification.
_CLAIMED_FOR_S = 30.0
#: After this many attempts, later notifications no longer wait for this one, whose content may be the problem.
_PATIENT_ATTEMPTS = 8
_LOOK_EVERY_S = 5.0


class Sender:
    """Sends the notifications in the database through `channels`."""

    def __init__(
        self, database: MonitoringDatabase, channels: Mapping[str, Channel], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._channels = channels
        self._clock = clock
        self._something_waits = asyncio.Event()

    def wake(self) -> None:
        """Send now: there are new notifications."""
        self._something_waits.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until `stopping` is set."""
        while not stopping.is_set():
            self._something_waits.clear()
            await self.send_due()
            waiting = [asyncio.create_task(event.wait()) for event in (self._something_waits, stopping)]
            try:
                await asyncio.wait(waiting, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()

    async def send_due(self) -> None:
        """Send all notifications that are due: channels concurrently, each in order."""
        async with self._database.snapshot() as connection:
            waiting = await store.waiting_notifications(connection)
        queues: dict[str, list[Notification]] = {}
        for notification in waiting:
            queues.setdefault(notification.channel, []).append(notification)
        done = await asyncio.gather(
            *(self._send_queue(name, queue) for name, queue in queues.items()), return_exceptions=True
        )
        for failure in done:
            if failure is not None:
                raise failure

    async def _send_queue(self, name: str, queue: list[Notification]) -> None:
        channel = self._channels.get(name)
        for notification in queue:
            now = self._clock()
            if channel is None:
                await self._give_up(notification, "this channel is not set any more")
            elif now - notification.created_at >= timedelta(seconds=GIVEN_UP_AFTER_S):
                await self._give_up(notification, notification.last_error or "it was never sent")
            elif notification.next_attempt_at is not None and notification.next_attempt_at > now:
                if notification.attempts < _PATIENT_ATTEMPTS:
                    return
            elif not await self._attempt(channel, notification) and notification.attempts + 1 < _PATIENT_ATTEMPTS:
                return

    async def _attempt(self, channel: Channel, notification: Notification) -> bool:
        """Make one attempt; returns whether the next notification may be sent."""
        now = self._clock()
        async with self._database.transaction() as connection:
            claimed = await store.claim(connection, notification, now + timedelta(seconds=_CLAIMED_FOR_S))
        if claimed is None:
            return False
        outcome = await channel.send(notification.id, notification.body, now)
        if outcome.taken:
            await self._settle(notification, sent_at=self._clock())
            NOTICES.labels(notification.channel, "sent").inc()
            log.debug(
                "notice_sent", notification=notification.id, channel=notification.channel, attempts=claimed.attempts
            )
            return True
        if outcome.final:
            await self._give_up(notification, outcome.detail)
            return True
        pause_s = _pause_s(claimed.attempts, outcome)
        await self._settle(
            notification, next_attempt_at=self._clock() + timedelta(seconds=pause_s), last_error=outcome.detail
        )
        NOTICES.labels(notification.channel, "failed").inc()
        log.warning(
            "notice_postponed",
            notification=notification.id,
            channel=notification.channel,
            attempts=claimed.attempts,
            pause_s=round(pause_s, 1),
            reason=outcome.detail,
        )
        return False

    async def _give_up(self, notification: Notification, reason: str) -> None:
        await self._settle(notification, last_error=reason)
        NOTICES.labels(notification.channel, "given_up").inc()
        log.error("notice_given_up", notification=notification.id, channel=notification.channel, reason=reason)

    async def _settle(
        self,
        notification: Notification,
        *,
        sent_at: datetime | None = None,
        next_attempt_at: datetime | None = None,
        last_error: str | None = None,
    ) -> None:
        async with self._database.transaction() as connection:
            await store.settle_notification(
                connection, notification.id, sent_at=sent_at, next_attempt_at=next_attempt_at, last_error=last_error
            )


def _pause_s(attempts: int, outcome: Outcome) -> float:
    """The delay of the next attempt: doubled each time, at least the receiver's Retry-After."""
    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 10))
    # Jitter, so that senders do not all retry at the same time.
    pause_s *= 0.75 + RANDOM.random() / 2
    return max(pause_s, outcome.retry_after_s or 0.0)
