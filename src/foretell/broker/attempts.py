"""How often a message has been delivered, over all its copies.

A copy is a new message to the broker, which counts its deliveries from the beginning. So whoever replaces a message by
a copy writes into its headers how many deliveries are behind it; here they are read.
"""

from collections.abc import Mapping
from typing import Any

from foretell.contracts.queues import EARLIER_ATTEMPTS

#: What consumers at RabbitMQ wrote before there was one header for both; a message in a queue may have either or both.
_FORMERLY = "x-foretell-attempts"
_MOST_DIGITS = 4


def earlier_attempts(headers: Mapping[str, Any]) -> int:
    """How many deliveries count that were before the message with these headers was published."""
    return _number(headers.get(EARLIER_ATTEMPTS)) + _number(headers.get(_FORMERLY))


def own_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """What the publisher said in these headers: texts, and neither the broker's (which begin with `x-`) nor ours."""
    return {
        name: value
        for name, value in headers.items()
        if isinstance(value, str) and name != EARLIER_ATTEMPTS and not name.startswith("x-")
    }


def _number(value: object) -> int:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS else 0
