"""Hands results back to the broker, and on what this worker can't answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from foretell.broker.port import Broker, MessageRefused
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
from foretell.kit.clock import now, uuid7
from foretell.kit.errors import ForetellError
from foretell.services.worker import traces
from foretell.services.worker.measures import TASKS
from foretell.services.worker.postponed import Held

log = structlog.get_logger()

_RETRY_S = 1.0
#: How many splinters of a split envelope are under way to the broker at once.
_SPLIT_IN_FLIGHT = 64


class Stopped(Exception):
    """We were told to stop while the broker was away."""


def _too_large(result: Result) -> Result:
    return msgspec.structs.replace(result, output=msgspec.UNSET, error=OUTPUT_TOO_LARGE)


class HandingOver:
    """What goes from a worker to the broker. Each call waits until the broker can take it; then it is stored."""

    def __init__(
        self,
        broker: Broker,
        worker_id: str,
        *,
        time_limit_s: Callable[[str, str], float],
        stopping: asyncio.Event,
        max_output_bytes: int,
    ) -> None:
        """Told to stop by `stopping` while the broker is away, every call raises `Stopped`."""
        self._broker = broker
        self._worker_id = worker_id
        self._time_limit_s = time_limit_s
        self._stopping = stopping
        self._max_output_bytes = max_output_bytes
        self.tasks_done = 0

    async def answer(
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
                await self.split(queue, envelope)
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

    async def split(self, queue: str, envelope: TaskEnvelope) -> None:
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

    async def give_back(self, held: Held) -> None:
        """Publish a copy of what this worker can't answer yet."""
        try:
            await self._publish(held.queue, held.body, {queues.EARLIER_ATTEMPTS: str(held.earlier_attempts)})
        except MessageRefused:
            # The broker took it once; now its bound is another.
            await self.split(held.queue, decode_tasks(held.body))

    async def _publish(self, queue: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish, however long it takes until the broker can take it.

        Raises `Stopped` when told to stop before, and `MessageRefused`.
        """
        while True:
            try:
                await self._broker.publish(queue, body, message_id=uuid7().hex, headers=headers)
            except MessageRefused:
                raise
            except ForetellError as error:
                log.warning("publish_failed", queue=queue, reason=error.message)
                if self._stopping.is_set():
                    raise Stopped from None
                await asyncio.sleep(_RETRY_S)
            else:
                return
