"""Send to one endpoint, one event after the other, for as long as it takes them."""

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
from foretell.services.dispatcher.notifying.messages import Told, body_for, headers
from foretell.services.dispatcher.notifying.patience import GIVEN_UP_AFTER, TURNED_OFF_AFTER, pause_s

log = structlog.get_logger()

GONE = 410


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be sent to an endpoint: once more, and in its turn; of the latter, what it is not told is None."""

    endpoint: Taken
    again: Sequence[Told]
    following: Sequence[tuple[int, Told | None]]


@dataclass(frozen=True, slots=True)
class Bot:
    """Where the Telegram bot takes what its chats are told, and the secret of the installation that signs it."""

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
    """What is to be written down; `turn_off` is why an endpoint is to be turned off, if it is."""

    sent: Sent
    turn_off: str | None


class Delivery:
    """One turn of an endpoint."""

    def __init__(self, work: Work, internet: Outgoing, house: Outgoing, bot: Bot | None) -> None:
        """`internet` refuses what is not there; by `house`, the bot is reached, which the operator named."""
        self._work = work
        self._outgoing = house if work.endpoint.kind == "telegram" else internet
        self._bot = bot
        #: The URL, taken apart once for all attempts of this turn; names are resolved by `Outgoing`.
        self._where: tuple[Destination, Sequence[bytes]] | None = None
        endpoint = work.endpoint
        self._progress = _Progress(endpoint.cursor, endpoint.failures, endpoint.failing_since, endpoint.head_since)

    async def run(self, may_go_on: Callable[[], bool]) -> Outcome:
        """Send until something fails, nothing is left, or we may not go on. What was done by then counts."""
        endpoint, progress = self._work.endpoint, self._progress
        turn_off: str | None = None
        for message in self._work.again:
            if not may_go_on():
                return self._outcome(None)
            # Tried once: whoever asked for it looks what became of it.
            await self._try(message, attempt=1, again=True)
            progress.again_done += 1
        # What is no longer kept can't be sent.
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
        """Settle when to go on, and with what; returns why the endpoint is to be turned off, if it is."""
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
        """Leave what is up to there behind: what comes next is tried at once, and may succeed."""
        progress = self._progress
        progress.cursor, progress.failures, progress.head_since, progress.retry_in_s = upto, 0, None, None
        last = progress.attempts.pop()
        progress.attempts.append(
            Attempt(**{name: getattr(last, name) for name in Attempt.__dataclass_fields__} | {"outcome": "given_up"})
        )
        NOTIFICATIONS.labels(self._work.endpoint.kind, "given_up").inc()

    async def _try(self, message: Told, *, attempt: int, again: bool) -> int | None:
        """One attempt; the status of its answer, or None. A failure in turn settles when the next one is."""
        endpoint, progress, event = self._work.endpoint, self._progress, message.event
        started, at = perf_counter(), now()
        answer: Answer | None = None
        error: str | None = None
        try:
            answer = await self._post(message, at)
        except NotAnswered as reason:
            error = reason.reason
        except AddressRefused:
            error = "address"
        is_good = answer is not None and 200 <= answer.status < 300
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
                duration_ms=round((perf_counter() - started) * 1000),
                at=at,
            )
        )
        NOTIFICATIONS.labels(endpoint.kind, "delivered" if is_good else "failed").inc()
        if is_good and not again:
            NOTIFICATION_LAG_S.observe(max(0.0, (now() - event.timestamp).total_seconds()))
        if not is_good and not again:
            progress.failures += 1
            progress.retry_in_s = pause_s(
                progress.failures,
                for_bot=endpoint.kind == "telegram",
                asked_for_s=None if answer is None else answer.retry_after_s,
            )
        return None if answer is None else answer.status

    async def _post(self, message: Told, at: datetime) -> Answer:
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
    """The operator's own URL, which may be anywhere."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return Destination(secure, parts.hostname or "", port, parts.path.rstrip("/") + "/notifications")
