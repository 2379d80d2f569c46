"""What is measured of publishing and receiving, alike at both brokers."""

from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

import structlog
from prometheus_client import Counter, Histogram

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


def note_redelivery(queue: str, message_id: str, attempts: int) -> None:
    """Count and log a message that was delivered before."""
    _REDELIVERIES.labels(queue).inc()
    log.info("message_redelivered", queue=queue, message_id=message_id, attempts=attempts)


async def measured_publish(publish: Awaitable[Answer]) -> Answer:
    """Await `publish`, which returns when the message is stored and raises when it is not; count and time it."""
    started = perf_counter()
    try:
        answer = await publish
    except Exception:
        _FAILED.inc()
        raise
    _CONFIRMED.inc()
    _PUBLISH_DURATION_S.observe(perf_counter() - started)
    return answer
