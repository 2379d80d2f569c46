"""Reports which tasks this worker keeps for a long time, so that no other worker starts them a second time.

A broker redelivers a message that is not acknowledged in time (RabbitMQ's `consumer_timeout`), even if its task still
runs. So a long run is acknowledged before it ends. From then on the worker's reports are the lease of the task: it
renews the lease with every pulse, and when the reports end, a dispatcher publishes the task again. See
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

#: More ids are divided among several events.
_IDS_IN_EVENT = 1000


class Word:
    """Publishes a worker's reports on the tasks that it keeps."""

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
        """Report to every dispatcher; returns whether the broker has the report. Never raises.

        Most reports may be lost, since they are repeated. The state "alone", and a report that is `confirmed`, must
        not be lost: here the broker confirms that it has a copy for each subscribed dispatcher. "returned" goes the
        same way, so that it does not arrive after a later "alone" about the same task.
        """
        said = True
        for start in range(0, len(ids), _IDS_IN_EVENT):
            some = list(ids[start : start + _IDS_IN_EVENT])
            event = encode(TasksKept(self._worker_id, some, state, earlier_attempts))
            said &= await self._publish(event, confirmed=confirmed or state != "held")
        return said

    async def say_cut_off(self) -> bool:
        """Report a lost connection to every dispatcher; returns whether the broker has the report. Never raises."""
        event = encode(TasksKept(self._worker_id, [], "held", cut_off=True))
        return await self._publish(event, confirmed=True)

    async def _publish(self, event: bytes, *, confirmed: bool) -> bool:
        try:
            await self._broker.publish_event(queues.TASKS_KEPT, event, confirmed=confirmed)
        except ForetellError:
            return False
        return True


class Interruptions:
    """Notices and reports that a consumer lost its connection to the broker.

    The broker counts this as an attempt of each task that was delivered to the consumer: see docs/decisions/0024.
    """

    def __init__(self, say_cut_off: Callable[[], Awaitable[bool]]) -> None:
        """`say_cut_off` is `Word.say_cut_off`."""
        self._say_cut_off = say_cut_off
        self._consumer: Consumer | None = None
        self._since: float | None = None
        self._was_registered = False
        self._untold = False

    async def look(self, consumer: Consumer) -> None:
        """Call this often. Reports an interruption of `consumer` since the last call, until the report succeeds."""
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
    """One run of a model. A short run only costs a timer. A long run is reported, and a very long one released."""

    def __init__(
        self,
        say: Callable[[Literal["held", "alone"]], Awaitable[bool]],
        release: Callable[[], Awaitable[None]],
        *,
        pulse_s: float,
    ) -> None:
        """`release` stops further deliveries and acknowledges the tasks of this run; `say` is `Word.say`."""
        self._say = say
        self._release = release
        self._pulse_s = pulse_s
        self._released = False
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(pulse_s, self._begin)

    @property
    def released(self) -> bool:
        """Whether the tasks were acknowledged before the end of the run, or are being acknowledged."""
        return self._released

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        for pulse in count(1):
            if self._released or pulse < queues.PULSES_UNTIL_RELEASED:
                await self._say("alone" if self._released else "held")
            elif await self._say("alone"):
                # First the report, then the acknowledgement, so that the task always has a lease.
                self._released = True
                await self._release()
            await asyncio.sleep(self._pulse_s)

    async def end(self) -> None:
        """The run is over: stop reporting it."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
