"""What a worker does all day: take an envelope, run the model, hand the results back, acknowledge.

An envelope is acknowledged only after its results are stored by the broker. A crash in between means that its tasks
run again, which is harmless: a prediction is a function of its input, and only its first result is settled.
"""

import asyncio
import faulthandler
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec
import structlog

from foretell.broker.port import Broker, Consumer, Delivery, MessageRefused
from foretell.contracts import queues
from foretell.contracts.envelopes import pack_results, unpack
from foretell.contracts.messages import (
    INPUT_TOO_LARGE,
    OUTPUT_TOO_LARGE,
    Failure,
    Result,
    ResultEnvelope,
    TaskEnvelope,
    decode_tasks,
    encode,
)
from foretell.inference.loading import State
from foretell.kit import metrics, tracing
from foretell.kit.clock import now, uuid7
from foretell.kit.errors import ForetellError
from foretell.kit.lifecycle import exit_at_once
from foretell.services.worker import traces
from foretell.services.worker.keeping import Run, Word
from foretell.services.worker.measures import BUSY, RUN_DURATION_S, TASKS
from foretell.services.worker.postponed import HOLD_S, Held, Postponed

log = structlog.get_logger()

#: A model that holds the interpreter's lock can't be timed from inside it; this much later the process is ended from
#: a thread of its own that needs no lock.
_HARD_LIMIT_EXTRA_S = 3.0
#: While a model is loaded, that may hold the lock for long, and the call that waits for it is not to blame.
_HARD_LIMIT_LOADING_S = 3600.0
#: The time limit is counted in steps of this, so that time in which nobody in this process could run counts little.
_STEP_S = 1.0
_RETRY_S = 1.0
#: How long a worker that exits at once may take to say goodbye to the broker.
_LET_GO_S = 2.0
#: The exit status of a worker that had to leave a hanging model behind.
EXIT_HANGING_MODEL = 70
#: How many splinters of a split envelope are under way to the broker at once.
_SPLIT_IN_FLIGHT = 64
#: How many envelopes a worker remembers to have answered.
_REMEMBERED = 1000


class Runner(Protocol):
    """What a worker needs of the engine."""

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        """Results in the order of the tasks. Never raises for what is in the envelope."""


class Models(Protocol):
    """Which models a worker can answer for."""

    def state(self, model: str, version: str) -> State:
        """How a version is here. One that nobody knows is ready: the engine says so."""

    def reason(self, model: str, version: str) -> str:
        """Why one that is `FAILED` can't be loaded."""

    @property
    def under_way(self) -> bool:
        """Whether anything is being loaded at this moment."""


def _exit(status: int) -> None:
    # Not `sys.exit`: the thread with the hanging model would keep the process alive.
    exit_at_once(status)


async def _let_go(consumer: Consumer) -> None:
    """Close `consumer`: only then has the broker surely heard what was acknowledged a moment ago."""
    with suppress(ForetellError, TimeoutError):
        async with asyncio.timeout(_LET_GO_S):
            await consumer.close()


def _too_large(result: Result) -> Result:
    return msgspec.structs.replace(result, output=msgspec.UNSET, error=OUTPUT_TOO_LARGE)


class _Stopped(Exception):
    """We were told to stop while the broker was away."""


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
        exit_process: Callable[[int], None] = _exit,
        after_answer: Callable[[TaskEnvelope, Sequence[Result]], object] = lambda *_: None,
    ) -> None:
        """`time_limit_s(model, version)` says how long one call of a model may take.

        `pulse_s` is how often it says which tasks it keeps for long (see keeping.py).
        `hold_s` is how long, at first, an envelope is held whose model is being loaded (see postponed.py).
        `after_answer` is told of envelopes and their results once these are handed back; it must not wait or raise.
        """
        self._broker = broker
        self._engine = engine
        self._models = models
        self._worker_id = worker_id
        self._time_limit_s = time_limit_s
        self._stopping = stopping
        self._max_output_bytes = max_output_bytes
        self._pulse_s = pulse_s
        self._word = Word(broker, worker_id)
        #: The last envelopes that were answered, by the identifiers of their messages.
        self._answered: dict[str, None] = {}
        self._consumer: Consumer | None = None
        self._exit_process = exit_process
        self._after_answer = after_answer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self.tasks_done = 0
        self.busy = False
        self._calling = False
        self._in_hand: tuple[TaskEnvelope, datetime] | None = None
        self._postponed = Postponed(
            self._give_back,
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
        if self._calling and self._models.under_way:
            faulthandler.dump_traceback_later(_HARD_LIMIT_LOADING_S, exit=True)

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
            await asyncio.gather(giving_back, return_exceptions=True)
            with suppress(_Stopped):
                await self._postponed.give_back_all()
            if self._consumer is not consumer:
                await self._consumer.close()

    async def _leave(self) -> None:
        """Once told to stop, take no more: at once, or another envelope would follow the one in hand."""
        await self._stopping.wait()
        assert self._consumer is not None
        await self._consumer.stop()

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
            await self._postponed.hold(held)
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
                await self._split(delivery.queue, envelope)
            else:
                started_at = now()
                runs = traces.begin(envelope, delivery.queue, self._worker_id)
                with tracing.inside(traces.alone(envelope, runs)):
                    if state is State.FAILED:
                        results = self._refused(envelope)
                    else:
                        run = await self._begin_run(consumer, delivery, envelope, attempts)
                        try:
                            results = await self._run(envelope)
                        finally:
                            await run.end()
                            released = run.released
                    hung = results is None
                    if hung or released:
                        # As soon as this one is acknowledged the next would come, for nothing.
                        await consumer.stop()
                    await self._answer(delivery.queue, envelope, results, started_at, runs)
                    if released and hung and not alone:
                        await self._word.say([task.id for task in envelope.tasks], "returned")
            self._remember(delivery)
            await consumer.acknowledge([delivery])
            if results is not None:
                self._after_answer(envelope, results)
        except _Stopped:
            # Not acknowledged: the envelope goes back to the queue when we are gone.
            log.warning("envelope_left_behind", model=envelope.model, tasks=len(envelope.tasks))
        finally:
            self.busy = False
            self._in_hand = None
            BUSY.set(0)
            if hung:
                # The thread with the hanging model can't be ended, only left behind together with its process.
                with suppress(_Stopped, TimeoutError):
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

        async def say(state: Literal["held", "alone"]) -> bool:
            # The tasks of an envelope are published one by one if this worker dies, and count from the beginning then.
            return await self._word.say(ids, state, earlier_attempts=attempts if len(ids) == 1 else 0)

        async def release() -> None:
            log.info("run_released", model=envelope.model, version=envelope.version, tasks=len(ids))
            await consumer.stop()
            await consumer.acknowledge([delivery])

        if attempts > 1:
            # Whoever had it before has died: a sweep that takes it for lost would send it on to others meanwhile.
            await say("held")
        return Run(say, release, pulse_s=self._pulse_s)

    def _refused(self, envelope: TaskEnvelope) -> Sequence[Result]:
        """What becomes of the tasks of a model that can't be loaded."""
        reason = self._models.reason(envelope.model, envelope.version)
        log.error("tasks_refused", model=envelope.model, version=envelope.version, tasks=len(envelope.tasks))
        message = f"The model {envelope.model} {envelope.version} could not be loaded on this worker. {reason}"
        return [Result(task.id, error=Failure("model_error", message)) for task in envelope.tasks]

    async def _run(self, envelope: TaskEnvelope) -> Sequence[Result] | None:
        """The results of the tasks; None when the model did not answer within its time limit."""
        limit_s = self._time_limit_s(envelope.model, envelope.version)
        metrics.BATCH_ITEMS.labels("worker").observe(len(envelope.tasks))
        hard_limit_s = _HARD_LIMIT_LOADING_S if self._models.under_way else limit_s + _HARD_LIMIT_EXTRA_S
        faulthandler.dump_traceback_later(hard_limit_s, exit=True)
        running = asyncio.get_running_loop().run_in_executor(
            self._thread, copy_context().run, self._engine.run, envelope
        )
        self._calling = True
        left_s, done = limit_s, False
        try:
            with RUN_DURATION_S.labels(envelope.model, envelope.version).time():
                while not done and left_s > 0:
                    await asyncio.wait({running}, timeout=min(left_s, _STEP_S))
                    done = running.done()
                    left_s -= _STEP_S
        finally:
            self._calling = False
            faulthandler.cancel_dump_traceback_later()
        if done:
            return running.result()
        log.error("model_hung", model=envelope.model, version=envelope.version, limit_s=limit_s)
        return None

    async def _answer(
        self,
        queue: str,
        envelope: TaskEnvelope,
        results: Sequence[Result] | None,
        started_at: datetime,
        runs: traces.Runs,
    ) -> None:
        """Hand the results back; without results, say that time was up, or single out who used it up."""
        if results is None:
            if len(envelope.tasks) > 1:
                await self._split(queue, envelope)
                traces.give_up(runs)
                return
            limit_s = self._time_limit_s(envelope.model, envelope.version)
            failure = Failure("timeout", f"The model did not answer within {limit_s:g} seconds.")
            results = [Result(envelope.tasks[0].id, error=failure)]
        results = [self._bounded(result) for result in results]
        answer = ResultEnvelope(
            model=envelope.model,
            version=envelope.version,
            worker_id=self._worker_id,
            published_at=envelope.published_at,
            started_at=started_at,
            finished_at=now(),
            results=traces.handed_on(results, runs),
        )
        for part in pack_results(answer):
            await self._hand_over(part)
        failed = sum(result.error is not None for result in results)
        TASKS.labels(envelope.model, envelope.version, "succeeded").inc(len(results) - failed)
        TASKS.labels(envelope.model, envelope.version, "failed").inc(failed)
        self.tasks_done += len(results)
        log.info(
            "envelope_run",
            model=envelope.model,
            version=envelope.version,
            tasks=len(results),
            failed=failed,
            run_ms=round((answer.finished_at - started_at).total_seconds() * 1000, 2),
        )
        traces.end(envelope, results, runs)

    def _bounded(self, result: Result) -> Result:
        if isinstance(result.output, msgspec.Raw) and len(bytes(result.output)) > self._max_output_bytes:
            return _too_large(result)
        return result

    async def _hand_over(self, answer: ResultEnvelope) -> None:
        """Publish results. What the broker refuses goes in halves; who is refused alone, has failed."""
        try:
            await self._publish(queues.RESULTS, encode(answer))
        except MessageRefused as error:
            log.warning("results_refused", results=len(answer.results), reason=error.message)
            if len(answer.results) > 1:
                middle = len(answer.results) // 2
                for half in (answer.results[:middle], answer.results[middle:]):
                    await self._hand_over(msgspec.structs.replace(answer, results=half))
            elif answer.results[0].error is None:
                await self._hand_over(msgspec.structs.replace(answer, results=[_too_large(answer.results[0])]))
            else:
                # A broker that takes not even this gets nothing done. The prediction expires.
                log.error("result_dropped", prediction_id=answer.results[0].id, reason=error.message)

    async def _split(self, queue: str, envelope: TaskEnvelope) -> None:
        """Publish every task of `envelope` in an envelope of its own."""
        singles = unpack(envelope)
        for start in range(0, len(singles), _SPLIT_IN_FLIGHT):
            await asyncio.gather(*(self._send_on(queue, one) for one in singles[start : start + _SPLIT_IN_FLIGHT]))

    async def _send_on(self, queue: str, single: TaskEnvelope) -> None:
        """Publish one task; one that the broker refuses has failed."""
        try:
            await self._publish(queue, encode(single))
        except MessageRefused as error:
            log.warning("task_refused", prediction_id=single.tasks[0].id, reason=error.message)
            at = now()
            result = Result(single.tasks[0].id, error=INPUT_TOO_LARGE)
            await self._hand_over(
                ResultEnvelope(single.model, single.version, self._worker_id, single.published_at, at, at, [result])
            )

    async def _give_back(self, held: Held) -> None:
        """Publish a copy of what this worker can't answer yet."""
        try:
            await self._publish(held.queue, held.body, {queues.EARLIER_ATTEMPTS: str(held.earlier_attempts)})
        except MessageRefused:
            # The broker took it once; now its bound is another.
            await self._split(held.queue, decode_tasks(held.body))

    async def _publish(self, queue: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish, however long it takes until the broker can take it.

        Raises `_Stopped` when told to stop before, and `MessageRefused`.
        """
        while True:
            try:
                await self._broker.publish(queue, body, message_id=uuid7().hex, headers=headers)
            except MessageRefused:
                raise
            except ForetellError as error:
                log.warning("publish_failed", queue=queue, reason=error.message)
                if self._stopping.is_set():
                    raise _Stopped from None
                await asyncio.sleep(_RETRY_S)
            else:
                return
