"""What Foretell asks of a message broker. Two adapters keep these promises: `rabbitmq` and `sqlite`.

The promises, checked for both by one contract suite:

- `publish` returns only when the message is stored durably, and raises within `timeout_s` when it can't be.
- A message that was received and not acknowledged comes back when its receiver is gone, with `attempts` grown by
  one; after `delivery_limit` attempts it goes to the queue's dead-letter queue instead. A `requeue` counts as well.
- What a consumer that was told to `stop` gives back has not been attempted: `attempts` does not grow.
- `receive` returns what already waits (at least one message) and never waits for more.
- Events reach every subscriber that listens at that moment. They are hints: one may be lost, nothing may depend on it.
- A broker that restarts, cancels a consumer or loses its data is noticed; `receive` goes on by itself afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from foretell.kit.errors import ForetellError


class BrokerUnavailable(ForetellError):
    """The broker did not take the message in time."""

    code = "broker_unavailable"
    status = 503
    retry_after_s = 2.0


class Unroutable(ForetellError):
    """No queue takes this message: {queue}."""

    code = "unroutable"
    status = 503


class MessageRefused(ForetellError):
    """The broker refuses a message of {size_bytes} bytes, now and always."""

    code = "message_refused"
    status = 413


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message in the hands of one receiver, until it is acknowledged or rejected."""

    body: bytes
    queue: str
    message_id: str
    #: How often this message has been delivered from this queue, this time included: 1 at first. Those of the messages
    #: of which it is a copy count, too (`queues.EARLIER_ATTEMPTS`). In a dead-letter queue RabbitMQ 4 may count on from
    #: the queue before.
    attempts: int
    #: What its publisher said, without what is meant for the broker.
    headers: Mapping[str, str]
    #: The adapter's own handle.
    tag: object = field(repr=False, compare=False)


Reason = Literal["away", "alarm", "no_leader", "unregistered", "publish_failing"]
TROUBLES: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a broker."""

    reason: Reason
    #: For the operator; never a password.
    message: str


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What stands in a queue: `ready` waits, `unacknowledged` is in somebody's hands (None: not known)."""

    queue: str
    ready: int
    consumers: int | None
    unacknowledged: int | None = None


class Consumer(Protocol):
    """Takes messages from one queue. Not for several tasks at once."""

    async def receive(self, max_messages: int) -> list[Delivery]:
        """Wait for messages and return those that are there: 1 to `max_messages`.

        Raises `BrokerUnavailable` once closed, and for nothing else. `max_messages` beyond the consumer's prefetch
        gets no more than the prefetch. Survives a lost connection: deliveries received before it are void
        (acknowledging them does nothing; they come again). Returns nothing, at once, after `stop`.
        """

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these are done for good. A void delivery is passed over in silence.

        Never raises for a broker that is away: then the deliveries become void, or are acknowledged when it is back.
        """

    async def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        """Give these back: to the queue with `requeue`, else to the dead-letter queue."""

    @property
    def since(self) -> float | None:
        """Since when it has been registered without interruption, by `time.monotonic`; None while it is not.

        An interruption counts as an attempt of every message that was delivered to it and not acknowledged, although
        its process is alive.
        """

    async def stop(self) -> None:
        """Take no more messages, and give back those that were not received, without counting an attempt.

        What was received stays in the caller's hands until it is settled or the consumer closed; then that goes back
        without counting an attempt too. RabbitMQ gets a fresh copy, at the end of the queue: a broker that is away or
        takes no messages at this moment counts the attempt. Never raises. Safe to repeat.
        """

    async def close(self) -> None:
        """Stop taking messages; what is unacknowledged goes back to the queue, and counts unless `stop` came first."""


class Subscription(Protocol):
    """An async iterator over the bodies of events. It ends when it or the broker is closed."""

    def __aiter__(self) -> "Subscription": ...

    async def __anext__(self) -> bytes: ...

    @property
    def since(self) -> float | None:
        """Since when it has heard everything, by `time.monotonic`; None while it can't hear.

        What was said earlier may have been missed, also by one that listened before its connection was lost.
        """

    async def aclose(self) -> None:
        """Stop listening. Leaving a loop over the subscription does not do that by itself."""


class Broker(Protocol):
    """A connection to a broker, shared by one process."""

    async def publish(
        self,
        queue: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Store `body` durably in `queue`, within `timeout_s`.

        With `queues.EARLIER_ATTEMPTS` in the headers it is a copy of a message that was delivered so often before.
        Raises `BrokerUnavailable` or `Unroutable`; and `MessageRefused` when it is too large for this broker, so that
        to try again is of no use. A refusal disturbs no other message.
        """

    async def consume(self, queue: str, *, prefetch: int) -> Consumer:
        """Begin to take messages from `queue`, holding at most `prefetch` unacknowledged ones."""

    async def publish_event(
        self, routing_key: str, body: bytes, *, confirmed: bool = False, timeout_s: float = 2.0
    ) -> None:
        """Tell every subscriber. Raises `BrokerUnavailable` within `timeout_s`; nobody listening is no error.

        With `confirmed` it returns when the event lies ready for everybody who listens, whatever becomes of us.
        One that is too large for the broker raises `MessageRefused`, or is lost in silence.
        """

    def subscribe(self, routing_key: str) -> Subscription:
        """The bodies of the events with exactly this key, across reconnects, from the moment that `connected` is true.

        Call it from the event loop. It listens at once, not at the first iteration.
        """

    async def depth(self, queue: str) -> QueueDepth:
        """How much stands in `queue`. Raises `BrokerUnavailable`, and `Unroutable` for a queue that nobody declared.

        A queue that this broker has declared or consumed, and that was deleted since, counts as empty.
        """

    async def ensure_queue(self, queue: str) -> None:
        """Declare `queue` with its dead-letter queue, bound before use. Safe to repeat. Raises `BrokerUnavailable`.

        The queue is remembered even then: it is declared by the first publish that needs it, also when the broker
        lost its data later. A consumer declares its queue by itself.
        """

    @property
    def connected(self) -> bool:
        """Whether the connection stands and every consumer is registered *and* progressing."""

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong at this moment, though `connected` may be true: an alarm, publishes that fail in a row."""

    async def close(self) -> None:
        """Let go of everything. What is published stays; what is unacknowledged goes back."""
