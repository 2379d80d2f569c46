"""How fast we may speak: Telegram takes some 30 messages a second of a bot, and one a second for each chat."""

import asyncio
from collections.abc import Awaitable, Callable

#: A little slower than what is allowed: on its way, one message may gain on the one before.
_MARGIN = 1.05
#: So many chats are remembered; whoever is forgotten was not spoken to for a while.
_MOST_CHATS = 10_000


class Pace:
    """Gives each message its turn. For one event loop."""

    def __init__(
        self,
        per_second: float,
        per_chat_second: float,
        *,
        burst: int = 3,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """An answer to somebody who waits may be up to `burst` messages early; Telegram bears that."""
        self._all_s = _MARGIN / per_second
        self._chat_s = _MARGIN / per_chat_second
        self._early_s = burst * self._chat_s
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        #: When the next message may go: to anybody, and to each chat.
        self._next = 0.0
        self._next_of: dict[int, float] = {}
        self._told: tuple[int, float] = (0, 0.0)

    async def turn(self, chat_id: int, *, answering: bool) -> None:
        """Return when a message may go to this chat. `answering`: somebody is waiting for it."""
        now = self._clock()
        chat_at = self._next_of.get(chat_id, 0.0)
        at = max(now, chat_at - (self._early_s if answering else 0.0), self._next)
        self._next = at + self._all_s
        if len(self._next_of) >= _MOST_CHATS:
            self._next_of = {chat: moment for chat, moment in self._next_of.items() if moment > now}
        self._next_of[chat_id] = max(at, chat_at) + self._chat_s
        if at > now:
            await self._sleep(at - now)

    def said(self, chat_id: int) -> None:
        """A message has arrived there: however long it took, the next one comes no sooner after it."""
        self._next_of[chat_id] = max(self._next_of.get(chat_id, 0.0), self._clock() + self._chat_s)

    def told_to_wait(self, chat_id: int, wait_s: float) -> None:
        """Telegram took a message to this chat amiss. When it does so with one chat after another, it means all."""
        until = self._clock() + wait_s
        # What answers may come early by this much has to wait, too.
        self._next_of[chat_id] = until + self._early_s
        other, told_until = self._told
        if other != chat_id and told_until > self._clock():
            self._next = max(self._next, until)
        self._told = (chat_id, until)
