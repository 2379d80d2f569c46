"""Sends events to one endpoint, one after the other, until one fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from urllib.parse import urlsplit

import structlog

from foretell.domain.notifications.outbox import Attempt, Sent, Taken
from foretell.kit.addresses import AddressRefused, Destination, read_url
from foretell.kit.clock import now
from foretell.kit.outgoing import Answer, NotAnswered, Outgoing
from foretell.services.dispatcher.measures import NOTIFICATION_LAG_S, NOTIFICATIONS
from foretell.services.dispatcher.notifying.messages import Message, body_for, headers
from foretell.services.dispatcher.notifying.retries import GIVEN_UP_AFTER, TURNED_OFF_AFTER, pause_s

log = structlog.get_logger()

GONE = 410


@dataclass(frozen=True, slots=True)
class Work:
    """Events for one endpoint: those to send `again`, and those `following` its cursor (None: not meant for it)."""

    endpoint: Taken
    again: Sequence[Message]
    following: Sequence[tuple[int, Message | None]]


@dataclass(frozen=True, slots=True)
class Bot:
    """The Telegram bot: its URL, and the secret that signs the notifications to it."""

    url: str
    secret: bytes


@dataclass(slots=True)
class _Progress:
    cursor: int
    failures: int
    failing_since: datetime | None
    head_since: datetime | None
    again_done: int = 0
    retry_in_s: float | None = None
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a turn, to be recorded; `turn_off` is the reason to turn the endpoint off, or None."""

    sent: Sent
    turn_off: str | None


class Delivery:
    """One turn: the events that are sent to an endpoint before the result is recorded."""

    def __init__(self, work: Work, internet: Outgoing, local: Outgoing, bot: Bot | None) -> None:
        """`internet` refuses addresses that webhooks must not use; `local` reaches the bot at any address."""
        self._work = work
        self._outgoing = local if work.endpoint.kind == "telegram" else internet
        self._bot = bot
        #: The URL, parsed once for all attempts of this turn; `Outgoing` resolves the host name.
        self._where: tuple[Destination, Sequence[bytes]] | None = None
        endpoint = work.endpoint
        self._progress = _Progress(endpoint.cursor, endpoint.failures, endpoint.failing_since, endpoint.head_since)

    async def run(self, may_go_on: Callable[[], bool]) -> Outcome:
        """Send until an attempt fails, no event is left, or `may_go_on` returns False. Earlier successes count."""
        endpoint, progress = self._work.endpoint, self._progress
        turn_off: str | None = None
        for message in self._work.again:
            if not may_go_on():
                return self._outcome(None)
            # Not retried: the user who asked for it sees the outcome in the list of attempts.
            await self._try(message, attempt=1, again=True)
            progress.again_done += 1
        # Events that were deleted since they were requested count as done.
        progress.again_done = len(endpoint.again)
        for sequence, following in self._work.following:
            if following is None:
                progress.cursor, progress.head_since = sequence, None
                continue
            if not may_go_on():
                break
            status = await self._try(following, attempt=progress.failures + 1, again=False)
            if status is not None and 200 <= status < 300:
                progress.cursor, progress.failures = sequence, 0
                progress.failing_since = progress.head_since = None
                continue
            turn_off = self._after_failure(sequence, status)
            break
        return self._outcome(turn_off)

    def _outcome(self, turn_off: str | None) -> Outcome:
        progress = self._progress
        sent = Sent(
            endpoint=self._work.endpoint,
            cursor=progress.cursor,
            again_done=progress.again_done,
            failures=progress.failures,
            failing_since=progress.failing_since,
            head_since=progress.head_since,
            retry_in_s=progress.retry_in_s,
            attempts=progress.attempts,
        )
        return Outcome(sent, turn_off)

    def _after_failure(self, sequence: int, status: int | None) -> str | None:
        """Record a failed attempt; returns the reason to turn the endpoint off, or None."""
        endpoint, progress, at = self._work.endpoint, self._progress, now()
        progress.failing_since = progress.failing_since or at
        progress.head_since = progress.head_since or at
        if endpoint.kind == "webhook":
            if status == GONE:
                return "gone"
            if at - progress.failing_since >= TURNED_OFF_AFTER:
                return "failing"
        elif endpoint.kind == "once" and status == GONE:
            self._give_up(endpoint.last_event)
            return None
        if endpoint.kind != "telegram" and at - progress.head_since >= GIVEN_UP_AFTER:
            self._give_up(sequence)
        return None

    def _give_up(self, upto: int) -> None:
        """Skip the events up to `upto`. The next one is tried at once, because it may succeed."""
        progress = self._progress
        progress.cursor, progress.failures, progress.head_since, progress.retry_in_s = upto, 0, None, None
        last = progress.attempts.pop()
        progress.attempts.append(
            Attempt(**{name: getattr(last, name) for name in Attempt.__dataclass_fields__} | {"outcome": "given_up"})
        )
        NOTIFICATIONS.labels(self._work.endpoint.kind, "given_up").inc()

    async def _try(self, message: Message, *, attempt: int, again: bool) -> int | None:
        """Make one attempt; returns the status, or None without an answer. A failure sets the delay of the next one."""
        endpoint, progress, event = self._work.endpoint, self._progress, message.event
        started, at = perf_counter(), now()
        waited_s = (at - event.timestamp).total_seconds()
        answer: Answer | None = None
        error: str | None = None
        try:
            answer = await self._post(message, at)
        except NotAnswered as reason:
            error = reason.reason
        except AddressRefused:
            error = "address"
        is_good = answer is not None and 200 <= answer.status < 300
        took_s = perf_counter() - started
        progress.attempts.append(
            Attempt(
                endpoint_id=endpoint.id,
                event_id=event.id,
                sequence=event.sequence,
                type=event.type,
                attempt=attempt,
                outcome="delivered" if is_good else "failed",
                status_code=None if answer is None else answer.status,
                error=error,
                duration_ms=round(took_s * 1000),
                at=at,
            )
        )
        NOTIFICATIONS.labels(endpoint.kind, "delivered" if is_good else "failed").inc()
        if is_good and not again:
            NOTIFICATION_LAG_S.observe(max(0.0, waited_s + took_s))
        if not is_good and not again:
            progress.failures += 1
            progress.retry_in_s = pause_s(
                progress.failures,
                for_bot=endpoint.kind == "telegram",
                asked_for_s=None if answer is None else answer.retry_after_s,
            )
        return None if answer is None else answer.status

    async def _post(self, message: Message, at: datetime) -> Answer:
        endpoint = self._work.endpoint
        body = body_for(message, endpoint)
        if self._where is None:
            self._where = self._destination(endpoint)
        destination, secrets = self._where
        return await self._outgoing.post(destination, headers(message.event, body, secrets, at), body)

    def _destination(self, endpoint: Taken) -> tuple[Destination, Sequence[bytes]]:
        if endpoint.kind != "telegram":
            return read_url(endpoint.url or ""), endpoint.secrets
        assert self._bot is not None
        return _trusted(self._bot.url), (self._bot.secret,)


def _trusted(url: str) -> Destination:
    """The destination of the operator's own URL; private addresses are allowed."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return Destination(secure, parts.hostname or "", port, parts.path.rstrip("/") + "/notifications")
