"""Announces which accounts have new events: to the sender in this process, and through the broker to all others.

An announcement may be lost: the senders and the event streams also poll the database.
"""

import asyncio
from collections.abc import Callable, Collection
from uuid import UUID

from foretell.broker.port import Broker, BrokerUnavailable, MessageRefused
from foretell.contracts import queues
from foretell.contracts.messages import ToldEvent, encode
from foretell.services.dispatcher.measures import EVENTS_LOST

#: Users named in one broker event, at most.
_MOST_USERS = 1000
#: The least time between two broker events. Under load, one event names the accounts of several settlements.
_APART_S = 0.02


class Announcer:
    """Collects the accounts that have new events until the next announcement may be published."""

    def __init__(self, broker: Broker, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called at once by every `announce`."""
        self._broker = broker
        self._wake = wake
        self._users: set[UUID] = set()
        self._written = asyncio.Event()

    def announce(self, users: Collection[UUID]) -> None:
        """Announce these users: their events are committed."""
        self._users.update(users)
        self._written.set()
        self._wake()

    async def run(self) -> None:
        """Publish announcements until cancelled."""
        while True:
            await self._written.wait()
            self._written.clear()
            users, self._users = list(self._users), set()
            for start in range(0, len(users), _MOST_USERS):
                event = ToldEvent(users[start : start + _MOST_USERS])
                try:
                    await self._broker.publish_event(queues.EVENTS_WRITTEN, encode(event))
                except (BrokerUnavailable, MessageRefused):
                    EVENTS_LOST.inc()
            await asyncio.sleep(_APART_S)
