"""Rate limiting: Telegram accepts about 30 messages a second from a bot, and one a second for each chat."""

import asyncio
from collections.abc import Awaitable, Callable

#: Slightly slower than allowed, because the network may shorten the time between two messages.
_MARGIN = 1.05
#: Above this number, chats without a recent message are forgotten.
_MOST_CHATS = 10_000


class RateLimit:
    """Delays each message to keep the limits. For one event loop."""

    def __init__(
        self,
        per_second: float,
        per_chat_second: float,
        *,
        burst: int = 3,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Answers to a waiting person may exceed a chat's rate by up to `burst` messages, which Telegram tolerates."""
        self._all_s = _MARGIN / per_second
        self._chat_s = _MARGIN / per_chat_second
        self._early_s = burst * self._chat_s
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        #: The earliest time of the next message: to any chat, and to each chat.
        self._next = 0.0
        self._next_of: dict[int, float] = {}
        self._last_limited: tuple[int, float] = (0, 0.0)

    async def turn(self, chat_id: int, *, answering: bool) -> None:
        """Wait until a message may be sent to this chat. `answering`: a person is waiting for it."""
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
        """Count the chat's interval from now, when Telegram has accepted a message, however long that took."""
        self._next_of[chat_id] = max(self._next_of.get(chat_id, 0.0), self._clock() + self._chat_s)

    def told_to_wait(self, chat_id: int, wait_s: float) -> None:
        """Telegram has limited this chat (429). If it limits two chats in a row, all chats wait."""
        until = self._clock() + wait_s
        # Plus the burst allowance, so that answers wait, too.
        self._next_of[chat_id] = until + self._early_s
        other, limited_until = self._last_limited
        if other != chat_id and limited_until > self._clock():
            self._next = max(self._next, until)
        self._last_limited = (chat_id, until)
