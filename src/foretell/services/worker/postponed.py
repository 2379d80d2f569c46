"""Holds envelopes whose model this worker is still loading.

A worker must not keep them, since another worker may have the model loaded. If it returned them at once, it would get
them again immediately. So it holds each for a short time, takes others meanwhile, and then publishes a new copy, since
a redelivery would count towards the delivery limit. A held envelope is acknowledged, so that the broker delivers the
next one; the worker's reports are its lease (see keeping.py).
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from foretell.kit.pauses import set_within
from foretell.services.worker.keeping import Word

#: The shortest and longest time an envelope is held. It grows with the time that the model has been loading.
HOLD_S = 1.0
MAX_HOLD_S = 10.0
#: Bytes that are held at most.
MAX_HELD_BYTES = 64 * 1024 * 1024
#: The pause before an envelope that can't be held is returned, which limits the rate of returns.
_FULL_PAUSE_S = 0.05
_LOOK_EVERY_S = 0.25
#: Copies that are published at the same time.
_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A held envelope."""

    model: str
    version: str
    queue: str
    body: bytes
    #: The ids of its tasks.
    ids: list[UUID]
    #: The delivery attempts before this one, which does not count.
    earlier_attempts: int


class Postponed:
    """Holds envelopes for a short time, or until their model is loaded, then returns them to their queue."""

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
        """`give_back` publishes a new copy; `is_loading(model, version)` returns whether the model is being loaded.

        Held tasks are reported every `pulse_s`, since the broker no longer has them (see keeping.py).
        """
        self._give_back = give_back
        self._is_loading = is_loading
        self._word = word
        self._pulse_s = pulse_s
        self._hold_s = hold_s
        self._max_bytes = max_bytes
        #: The time at which each is returned, in order of arrival.
        self._held: dict[Held, float] = {}
        #: How often each task is held, or about to be: its copy may come before the return of the first is reported.
        self._ids: Counter[UUID] = Counter()
        self._bytes = 0
        #: Since when envelopes have been waiting, by model and version.
        self._since: dict[tuple[str, str], float] = {}
        self._news = asyncio.Event()
        #: When the held tasks were last reported.
        self._said_at = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def models_changed(self) -> None:
        """Return the envelopes of models that are no longer being loaded."""
        self._news.set()

    async def hold(self, held: Held) -> None:
        """Hold an envelope.

        It is returned instead, after a pause, when too many bytes are held, and at once when it can't be reported.
        """
        if self._bytes + len(held.body) > self._max_bytes:
            await asyncio.sleep(_FULL_PAUSE_S)
            await self._give_back(held)
            return
        self._ids.update(held.ids)
        # Report the tasks before the caller acknowledges the envelope, so that they always have a lease.
        if not await self._say([held], "alone"):
            self._forget_ids(held)
            await self._give_back(held)
            return
        now = asyncio.get_running_loop().time()
        waited_s = now - self._since.setdefault((held.model, held.version), now)
        if not self._held:
            self._news.set()
        self._held[held] = now + max(self._hold_s, min(waited_s / 4, MAX_HOLD_S))
        self._bytes += len(held.body)

    async def run(self) -> None:
        """Return envelopes that are due, until cancelled. Raises what `give_back` raises."""
        while True:
            await self._news.wait()
            await self._give_back_due()
            await self._speak()
            self._news.clear()
            if self._held:
                await set_within(self._news, _LOOK_EVERY_S)
                self._news.set()

    async def give_back_all(self) -> None:
        """Return all held envelopes. Raises what `give_back` raises."""
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
            if state == "returned":
                ids = [each for each in ids if each not in self._ids]
            said &= await self._word.say(ids, state, earlier_attempts=earlier_attempts)
        return said

    async def _give_all(self, due: list[Held]) -> None:
        for start in range(0, len(due), _IN_FLIGHT):
            some = due[start : start + _IN_FLIGHT]
            await asyncio.gather(*(self._give_back(held) for held in some))
            # Only now: an interruption before this loses no envelope; a second copy does no harm.
            for held in some:
                del self._held[held]
                self._bytes -= len(held.body)
                self._forget_ids(held)
            await self._say(some, "returned")

    def _forget_ids(self, held: Held) -> None:
        for identifier in held.ids:
            self._ids[identifier] -= 1
            if not self._ids[identifier]:
                del self._ids[identifier]
