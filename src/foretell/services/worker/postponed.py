"""Envelopes whose model is still being loaded here.

A worker must not sit on them, since another one may have the model loaded; nor give them back at once, or it would get
them again the next moment, over and over. So it holds each for a short time, while it takes others, and then gives a
fresh copy back: a return would count towards the delivery limit. What is held is acknowledged, so that the broker
hands out the next one, and kept by the worker's word (see keeping.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from foretell.services.worker.keeping import Word

#: How long an envelope is held at first, and at most: the longer a model has been loading, the longer it may take.
HOLD_S = 1.0
MAX_HOLD_S = 10.0
#: More bytes than this are not held.
MAX_HELD_BYTES = 64 * 1024 * 1024
#: What can't be held goes back at once, but not faster than this.
_FULL_PAUSE_S = 0.05
_LOOK_EVERY_S = 0.25
#: How many copies are under way to the broker at once.
_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One envelope in our hands."""

    model: str
    version: str
    queue: str
    body: bytes
    #: Of its tasks.
    ids: list[UUID]
    #: How many deliveries counted before this one, which does not.
    earlier_attempts: int


class Postponed:
    """Holds envelopes until their model is loaded, but not for long, and gives them back."""

    def __init__(
        self,
        give_back: Callable[[Held], Awaitable[None]],
        is_loading: Callable[[str, str], bool],
        word: Word,
        *,
        pulse_s: float,
        hold_s: float = HOLD_S,
        max_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        """`give_back` publishes a fresh copy; `is_loading(model, version)` says whether it makes sense to wait.

        What is held is spoken of with every pulse, since the broker no longer knows of it (see keeping.py).
        """
        self._give_back = give_back
        self._is_loading = is_loading
        self._word = word
        self._pulse_s = pulse_s
        self._hold_s = hold_s
        self._max_bytes = max_bytes
        #: When each goes back, in the order of their arrival.
        self._held: dict[Held, float] = {}
        self._bytes = 0
        #: Since when envelopes have waited here, by model and version.
        self._since: dict[tuple[str, str], float] = {}
        self._news = asyncio.Event()
        #: When all of it was spoken of.
        self._said_at = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def models_changed(self) -> None:
        """A model was loaded, or can't be: what waits for it need not wait longer."""
        self._news.set()

    async def hold(self, held: Held) -> None:
        """Take an envelope into our hands. Waits a moment when they are full, and gives it back.

        So does one of which nothing can be said.
        """
        if self._bytes + len(held.body) > self._max_bytes:
            await asyncio.sleep(_FULL_PAUSE_S)
            await self._give_back(held)
            return
        # Before it is in our hands, and before whoever calls us acknowledges it: there is no moment without a lease.
        if not await self._say([held], "alone"):
            await self._give_back(held)
            return
        now = asyncio.get_running_loop().time()
        waited_s = now - self._since.setdefault((held.model, held.version), now)
        if not self._held:
            self._news.set()
        self._held[held] = now + max(self._hold_s, min(waited_s / 4, MAX_HOLD_S))
        self._bytes += len(held.body)

    async def run(self) -> None:
        """Give back what is due, until cancelled. Raises what `give_back` raises."""
        while True:
            await self._news.wait()
            await self._give_back_due()
            await self._speak()
            self._news.clear()
            if self._held:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), _LOOK_EVERY_S)
                self._news.set()

    async def give_back_all(self) -> None:
        """Give back everything. Raises what `give_back` raises."""
        await self._give_all(list(self._held))

    async def _give_back_due(self) -> None:
        now = asyncio.get_running_loop().time()
        loading = {key for key in self._since if self._is_loading(*key)}
        self._since = {key: since for key, since in self._since.items() if key in loading}
        due = [held for held, at in self._held.items() if at <= now or (held.model, held.version) not in loading]
        await self._give_all(due)

    async def _speak(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said_at > self._pulse_s:
            self._said_at = now
            await self._say(list(self._held), "alone")

    async def _say(self, some: list[Held], state: Literal["alone", "returned"]) -> bool:
        said = True
        for earlier_attempts in {held.earlier_attempts for held in some}:
            ids = [each for held in some if held.earlier_attempts == earlier_attempts for each in held.ids]
            said &= await self._word.say(ids, state, earlier_attempts=earlier_attempts)
        return said

    async def _give_all(self, due: list[Held]) -> None:
        for start in range(0, len(due), _IN_FLIGHT):
            some = due[start : start + _IN_FLIGHT]
            await asyncio.gather(*(self._give_back(held) for held in some))
            # Not before: whatever interrupts us here, nothing is forgotten, and twice is harmless.
            for held in some:
                del self._held[held]
                self._bytes -= len(held.body)
            await self._say(some, "returned")
