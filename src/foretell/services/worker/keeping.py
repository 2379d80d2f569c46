"""Says which tasks this worker keeps for longer than a moment, so that nobody starts them a second time.

A broker is patient with what is not acknowledged only for so long (RabbitMQ's `consumer_timeout`), and then hands it to
somebody else while it still runs. So a long run is acknowledged while it lasts; from then on the worker's word is its
lease: it is repeated with every pulse, and a dispatcher that hears it no more publishes the task again. See
docs/decisions/0014.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Literal
from uuid import UUID

from foretell.broker.port import Broker, Consumer
from foretell.contracts import queues
from foretell.contracts.messages import TasksKept, encode
from foretell.kit.errors import ForetellError

#: More are said in several events.
_IDS_IN_EVENT = 1000


class Word:
    """What a worker says of the tasks that it keeps."""

    def __init__(self, broker: Broker, worker_id: str) -> None:
        self._broker = broker
        self._worker_id = worker_id

    async def say(
        self,
        ids: Sequence[UUID],
        state: Literal["held", "alone", "returned"],
        *,
        earlier_attempts: int = 0,
        confirmed: bool = False,
    ) -> bool:
        """Tell every dispatcher; whether the broker has it. Never raises: most of it is a hint, and said again.

        Not so that something is kept alone, or what is `confirmed`: once that was said, it lies ready for every
        dispatcher that listens.
        """
        said = True
        for start in range(0, len(ids), _IDS_IN_EVENT):
            some = list(ids[start : start + _IDS_IN_EVENT])
            event = encode(TasksKept(self._worker_id, some, state, earlier_attempts))
            said &= await self._publish(event, confirmed=confirmed or state == "alone")
        return said

    async def say_cut_off(self) -> bool:
        """Tell every dispatcher that we lost the connection to the broker; whether the broker has it. Never raises."""
        event = encode(TasksKept(self._worker_id, [], "held", cut_off=True))
        return await self._publish(event, confirmed=True)

    async def _publish(self, event: bytes, *, confirmed: bool) -> bool:
        try:
            await self._broker.publish_event(queues.TASKS_KEPT, event, confirmed=confirmed)
        except ForetellError:
            return False
        return True


class Interruptions:
    """Notices that a consumer lost its connection to the broker, and says so.

    The broker counts that as an attempt of what was delivered to the consumer: see docs/decisions/0024.
    """

    def __init__(self, say_cut_off: Callable[[], Awaitable[bool]]) -> None:
        """`say_cut_off` is `Word.say_cut_off`."""
        self._say_cut_off = say_cut_off
        self._consumer: Consumer | None = None
        self._since: float | None = None
        self._was_registered = False
        self._untold = False

    async def look(self, consumer: Consumer) -> None:
        """To be called often. If `consumer` was interrupted since the last call, say so, until that has worked."""
        since = consumer.since
        if consumer is not self._consumer:
            # The worker replaced its consumer.
            self._consumer, self._since, self._was_registered = consumer, since, False
        if since != self._since:
            # At the start and at the end of an interruption: deliveries in between count, too. The first registration
            # is not an interruption.
            self._untold |= self._was_registered
            self._since = since
        self._was_registered |= since is not None
        if self._untold:
            self._untold = not await self._say_cut_off()


class Run:
    """One run of a model. A short one costs a timer; a long one is spoken of, and released when it is very long."""

    def __init__(
        self,
        say: Callable[[Literal["held", "alone"]], Awaitable[bool]],
        release: Callable[[], Awaitable[None]],
        *,
        pulse_s: float,
    ) -> None:
        """`release` has the broker send nothing more to us and acknowledges what is run; `say` is `Word.say`."""
        self._say = say
        self._release = release
        self._pulse_s = pulse_s
        self._released = False
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(pulse_s, self._begin)

    @property
    def released(self) -> bool:
        """Whether the broker was told, or is being told, that the tasks are done."""
        return self._released

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        for pulse in count(1):
            if self._released or pulse < queues.PULSES_UNTIL_RELEASED:
                await self._say("alone" if self._released else "held")
            elif await self._say("alone"):
                # First the word, then the release: there is no moment without a lease.
                self._released = True
                await self._release()
            await asyncio.sleep(self._pulse_s)

    async def end(self) -> None:
        """The run is over: nothing more is said of it."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
