"""Say which accounts have new events: to whoever sends them in this process, and by the broker to all others.

Hints only. Whoever sends or follows events looks into the database now and then, too.
"""

import asyncio
from collections.abc import Callable, Collection
from uuid import UUID

from foretell.broker.port import Broker, BrokerUnavailable, MessageRefused
from foretell.contracts import queues
from foretell.contracts.messages import ToldEvent, encode
from foretell.services.dispatcher.measures import EVENTS_LOST

#: Users that one event names.
_MOST_USERS = 1000


class Announcer:
    """Gathers who has new events while the last word of it is under way."""

    def __init__(self, broker: Broker, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called at once."""
        self._broker = broker
        self._wake = wake
        self._users: set[UUID] = set()
        self._written = asyncio.Event()

    def told(self, users: Collection[UUID]) -> None:
        """For these, events were written and committed."""
        self._users.update(users)
        self._written.set()
        self._wake()

    async def run(self) -> None:
        """Announce, until cancelled."""
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
