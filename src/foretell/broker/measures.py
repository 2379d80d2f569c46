"""What is measured of publishing and receiving, alike at both brokers."""

from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

import structlog
from prometheus_client import Counter, Histogram

from foretell.broker.health import Publishes
from foretell.broker.port import BrokerUnavailable
from foretell.kit.metrics import LATENCY_BUCKETS_S

log = structlog.get_logger()

Answer = TypeVar("Answer")

_PUBLISHES = Counter("foretell_broker_publishes", "Messages given to the broker to keep, by outcome.", ["outcome"])
_CONFIRMED, _FAILED = _PUBLISHES.labels("confirmed"), _PUBLISHES.labels("failed")
_PUBLISH_DURATION_S = Histogram(
    "foretell_broker_publish_duration_seconds",
    "From a publish to the broker's word that the message is stored.",
    buckets=LATENCY_BUCKETS_S,
)
#: By queue, without the installation's prefix.
_REDELIVERIES = Counter(
    "foretell_broker_redeliveries",
    "Messages received that had been delivered before: their receiver died, or gave them back.",
    ["queue"],
)


class Redeliveries:
    """Counts and logs the messages of one queue that were delivered before; the count is there from the first."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._counter = _REDELIVERIES.labels(queue)

    def note(self, message_id: str, attempts: int) -> None:
        """Another one."""
        self._counter.inc()
        log.info("message_redelivered", queue=self._queue, message_id=message_id, attempts=attempts)


async def measured_publish(publish: Awaitable[Answer], publishes: Publishes) -> Answer:
    """Await `publish`, which returns when the message is stored and raises when it is not; count and time it."""
    started = perf_counter()
    try:
        answer = await publish
    except BrokerUnavailable as error:
        _FAILED.inc()
        publishes.failed(error.message)
        raise
    except Exception:
        _FAILED.inc()
        raise
    _CONFIRMED.inc()
    publishes.succeeded()
    _PUBLISH_DURATION_S.observe(perf_counter() - started)
    return answer
