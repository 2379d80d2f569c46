"""What a worker does all day: take an envelope, run the model, hand the results back, acknowledge.

An envelope is acknowledged only after its results are stored by the broker. A crash in between means that its tasks
run again, which is harmless: a prediction is a function of its input, and only its first result is settled.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import msgspec
import structlog

from foretell.broker.port import Broker, Consumer, Delivery
from foretell.contracts.messages import Failure, Result, TaskEnvelope, decode_tasks
from foretell.inference.loading import State
from foretell.kit import tracing
from foretell.kit.clock import now
from foretell.kit.errors import ForetellError
from foretell.kit.in_hand import InHand
from foretell.kit.lifecycle import exit_at_once
from foretell.services.worker import traces
from foretell.services.worker.calls import Calls, Models, Runner
from foretell.services.worker.handing_over import HandingOver, Stopped
from foretell.services.worker.keeping import Interruptions, Run, Word
from foretell.services.worker.measures import BUSY
from foretell.services.worker.postponed import HOLD_S, Held, Postponed

log = structlog.get_logger()

#: How long a worker that exits at once may take to say goodbye to the broker.
_LET_GO_S = 2.0
#: The exit status of a worker that had to leave a hanging model behind.
EXIT_HANGING_MODEL = 70
#: How often a worker checks whether it lost its connection to the broker.
_LOOK_EVERY_S = 0.5
#: How many envelopes a worker remembers to have answered.
_REMEMBERED = 1000


def _exit(status: int) -> None:
    # Not `sys.exit`: the thread with the hanging model would keep the process alive.
    exit_at_once(status)


async def _let_go(consumer: Consumer) -> None:
    """Close `consumer`: only then has the broker surely heard what was acknowledged a moment ago."""
    with suppress(ForetellError, TimeoutError):
        async with asyncio.timeout(_LET_GO_S):
            await consumer.close()


class Worker:
    """Takes envelopes from one queue, one at a time."""

    def __init__(
        self,
        broker: Broker,
        engine: Runner,
        models: Models,
        *,
        worker_id: str,
        time_limit_s: Callable[[str, str], float],
        stopping: asyncio.Event,
        pulse_s: float = 5.0,
        hold_s: float = HOLD_S,
        max_output_bytes: int = 4 * 1024 * 1024,
        in_hand: InHand | None = None,
        exit_process: Callable[[int], None] = _exit,
        after_answer: Callable[[TaskEnvelope, Sequence[Result]], object] = lambda *_: None,
    ) -> None:
        """`time_limit_s(model, version)` says how long one call of a model may take.

        `pulse_s` is how often it says which tasks it keeps for long (see keeping.py).
        `hold_s` is how long, at first, an envelope is held whose model is being loaded (see postponed.py).
        `in_hand` is told which model runs, for whoever finds this process dead.
        `after_answer` is told of envelopes and their results once these are handed back; it must not wait or raise.
        """
        self._broker = broker
        self._models = models
        self._worker_id = worker_id
        self._stopping = stopping
        self._pulse_s = pulse_s
        self._word = Word(broker, worker_id)
        self._interruptions = Interruptions(self._word.say_cut_off)
        #: The last envelopes that were answered, by the identifiers of their messages.
        self._answered: dict[str, None] = {}
        self._consumer: Consumer | None = None
        self._exit_process = exit_process
        self._after_answer = after_answer
        self._calls = Calls(engine, models, time_limit_s, in_hand)
        self._handing_over = HandingOver(
            broker, worker_id, time_limit_s=time_limit_s, stopping=stopping, max_output_bytes=max_output_bytes
        )
        self.busy = False
        self._in_hand: tuple[TaskEnvelope, datetime] | None = None
        self._postponed = Postponed(
            self._handing_over.give_back,
            lambda *version: models.state(*version) is State.LOADING,
            self._word,
            pulse_s=pulse_s,
            hold_s=hold_s,
        )

    @property
    def postponed(self) -> int:
        """How many envelopes wait here for their model to be loaded."""
        return len(self._postponed)

    def models_changed(self) -> None:
        """To be told whenever a model begins to load, is loaded, or can't be."""
        self._postponed.models_changed()
        self._calls.models_changed()

    @property
    def tasks_done(self) -> int:
        """How many tasks were answered."""
        return self._handing_over.tasks_done

    @property
    def current_task(self) -> dict[str, Any] | None:
        """What is in hand, in words for `/health`: never an input."""
        if self._in_hand is None:
            return None
        envelope, since = self._in_hand
        return {
            "model": envelope.model,
            "version": envelope.version,
            "tasks": len(envelope.tasks),
            "since": since,
            "prediction_id": str(envelope.tasks[0].id),
        }

    async def work(self, consumer: Consumer) -> None:
        """Handle envelopes until told to stop; the one in hand is finished first."""
        self._consumer = consumer
        leaving = asyncio.create_task(self._leave())
        giving_back = asyncio.create_task(self._postponed.run())
        noticing = asyncio.create_task(self._notice_interruptions())
        try:
            while not self._stopping.is_set() and (deliveries := await self._consumer.receive(1)):
                for delivery in deliveries:
                    released = await self._handle(self._consumer, delivery)
                    if released and not self._stopping.is_set():
                        await self._consumer.close()
                        self._consumer = await self._broker.consume(delivery.queue, prefetch=1)
            await leaving
        finally:
            leaving.cancel()
            giving_back.cancel()
            noticing.cancel()
            await asyncio.gather(giving_back, noticing, return_exceptions=True)
            with suppress(Stopped):
                await self._postponed.give_back_all()
            if self._consumer is not consumer:
                await self._consumer.close()

    async def _leave(self) -> None:
        """Once told to stop, take no more: at once, or another envelope would follow the one in hand."""
        await self._stopping.wait()
        assert self._consumer is not None
        await self._consumer.stop()

    async def _notice_interruptions(self) -> None:
        while True:
            assert self._consumer is not None
            await self._interruptions.look(self._consumer)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _handle(self, consumer: Consumer, delivery: Delivery) -> bool:
        """Answer one delivery; whether it was released on the way, so that this consumer gets nothing more."""
        try:
            envelope = decode_tasks(delivery.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.error("task_envelope_rejected", message_id=delivery.message_id, reason=str(error)[:300])
            await consumer.reject([delivery], requeue=False)
            return False
        if delivery.message_id in self._answered:
            # Our acknowledgement did not arrive.
            log.info("redelivery_acknowledged", message_id=delivery.message_id, tasks=len(envelope.tasks))
            await consumer.acknowledge([delivery])
            return False
        attempts = delivery.attempts
        state = self._models.state(envelope.model, envelope.version)
        alone = len(envelope.tasks) == 1
        if state is State.LOADING and (alone or attempts == 1):
            ids = [task.id for task in envelope.tasks]
            held = Held(envelope.model, envelope.version, delivery.queue, delivery.body, ids, attempts - 1)
            try:
                await self._postponed.hold(held)
            except Stopped:
                # Neither held nor given back: it goes back to the queue when we are gone.
                log.warning("envelope_left_behind", model=envelope.model, tasks=len(envelope.tasks))
            else:
                await consumer.acknowledge([delivery])
            return False
        self.busy = True
        self._in_hand = envelope, now()
        BUSY.set(1)
        hung = released = False
        results: Sequence[Result] | None = None
        try:
            if attempts > 1 and not alone:
                # Somebody died with this in hand. If one of the inputs did it, let it be alone next time.
                log.warning("envelope_split", tasks=len(envelope.tasks), attempts=attempts)
                await self._handing_over.split(delivery.queue, envelope)
            else:
                started_at = now()
                runs = traces.begin(envelope, delivery.queue, self._worker_id)
                with tracing.inside(traces.alone(envelope, runs)):
                    if state is State.FAILED:
                        results = self._refused(envelope)
                    else:
                        run = await self._begin_run(consumer, delivery, envelope, attempts)
                        try:
                            results = await self._calls.run(envelope)
                        finally:
                            await run.end()
                            released = run.released
                    hung = results is None
                    if hung or released:
                        # As soon as this one is acknowledged the next would come, for nothing.
                        await consumer.stop()
                    await self._handing_over.answer(delivery.queue, envelope, results, started_at, runs)
                    if released and hung and not alone:
                        await self._word.say([task.id for task in envelope.tasks], "returned")
            self._remember(delivery)
            await consumer.acknowledge([delivery])
            if results is not None:
                self._after_answer(envelope, results)
        except Stopped:
            # Not acknowledged: the envelope goes back to the queue when we are gone.
            log.warning("envelope_left_behind", model=envelope.model, tasks=len(envelope.tasks))
        finally:
            self.busy = False
            self._in_hand = None
            BUSY.set(0)
            if hung:
                # The thread with the hanging model can't be ended, only left behind together with its process.
                with suppress(Stopped, TimeoutError):
                    async with asyncio.timeout(_LET_GO_S):
                        await self._postponed.give_back_all()
                await _let_go(consumer)
                self._exit_process(EXIT_HANGING_MODEL)
        return released

    def _remember(self, delivery: Delivery) -> None:
        if delivery.message_id:
            self._answered[delivery.message_id] = None
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]

    async def _begin_run(self, consumer: Consumer, delivery: Delivery, envelope: TaskEnvelope, attempts: int) -> Run:
        ids = [task.id for task in envelope.tasks]

        # The tasks of an envelope are published one by one if this worker dies, and count from the beginning then.
        earlier_attempts = attempts if len(ids) == 1 else 0

        async def say(state: Literal["held", "alone"]) -> bool:
            return await self._word.say(ids, state, earlier_attempts=earlier_attempts)

        async def release() -> None:
            log.info("run_released", model=envelope.model, version=envelope.version, tasks=len(ids))
            await consumer.stop()
            await consumer.acknowledge([delivery])

        if attempts > 1:
            # Whoever had it before has died: a sweep that takes it for lost would send it on to others meanwhile. And
            # dispatchers must know that the last attempt was started, should this worker die of it.
            await self._word.say(ids, "held", earlier_attempts=earlier_attempts, confirmed=True)
        return Run(say, release, pulse_s=self._pulse_s)

    def _refused(self, envelope: TaskEnvelope) -> Sequence[Result]:
        """What becomes of the tasks of a model that can't be loaded."""
        reason = self._models.reason(envelope.model, envelope.version)
        log.error("tasks_refused", model=envelope.model, version=envelope.version, tasks=len(envelope.tasks))
        message = f"The model {envelope.model} {envelope.version} could not be loaded on this worker. {reason}"
        return [Result(task.id, error=Failure("model_error", message)) for task in envelope.tasks]
