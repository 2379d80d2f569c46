"""What is wrong with the broker, in words for `/health` and as a number for alerts."""

import time
import weakref
from dataclasses import dataclass

from prometheus_client import Gauge

from foretell.broker.port import TROUBLES, Broker, BrokerUnavailable, Trouble

_TROUBLE = Gauge(
    "foretell_broker_trouble",
    "1 while this is wrong with the broker: away, alarm, no_leader, unregistered, publish_failing.",
    ["reason"],
)
#: So many publishes in a row must fail ...
_FAILURES = 3
#: ... and the last one not longer ago than this: whoever publishes nothing knows nothing new.
_FRESH_S = 30.0


async def check(broker: Broker) -> None:
    """For `/health`: raises `BrokerUnavailable` that says what is wrong."""
    trouble = broker.trouble
    if trouble is not None:
        raise BrokerUnavailable(trouble.message)


def show(broker: Broker) -> None:
    """Have the metric tell of `broker`, this process's one, as long as it is there."""
    watched = weakref.ref(broker)

    def value(reason: str) -> float:
        found = watched()
        trouble = None if found is None else found.trouble
        return float(trouble is not None and trouble.reason == reason)

    for reason in TROUBLES:
        _TROUBLE.labels(reason).set_function(lambda reason=reason: value(reason))  # type: ignore[misc]


@dataclass(slots=True)
class Publishes:
    """Whether publishing fails again and again."""

    _failures: int = 0
    _failed_at: float = 0.0
    _why: str = ""

    def succeeded(self) -> None:
        """A message was stored."""
        self._failures = 0

    def failed(self, why: str) -> None:
        """A message could not be stored, for a reason that may pass."""
        self._failures += 1
        self._failed_at, self._why = time.monotonic(), why

    @property
    def trouble(self) -> Trouble | None:
        """That the last ones all failed, if they did."""
        if self._failures < _FAILURES or time.monotonic() - self._failed_at > _FRESH_S:
            return None
        return Trouble("publish_failing", f"The last {self._failures} messages could not be published: {self._why}")
