"""Publishes results, and the tasks that this worker can't answer."""

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
#: Parts of a split envelope that are published at the same time.
_SPLIT_IN_FLIGHT = 64


class Stopped(Exception):
    """The worker is to stop while the broker is unavailable."""


def _too_large(result: Result) -> Result:
    return msgspec.structs.replace(result, output=msgspec.UNSET, error=OUTPUT_TOO_LARGE)


class HandingOver:
    """Publishes to the broker. Each call waits until the broker has stored the message."""

    def __init__(
        self,
        broker: Broker,
        worker_id: str,
        *,
        time_limit_s: Callable[[str, str], float],
        stopping: asyncio.Event,
        max_output_bytes: int,
    ) -> None:
        """Every call raises `Stopped` when `stopping` is set while the broker is unavailable."""
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
        """Publish the results. Without results (a time-out), fail a single task; split an envelope of several."""
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
        """Publish results. An envelope that the broker refuses is split in halves; a single refused result fails."""
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
                # The broker refuses even the error. Nothing more can be done: the prediction expires.
                log.error("result_dropped", prediction_id=answer.results[0].id, reason=error.message)

    async def split(self, queue: str, envelope: TaskEnvelope) -> None:
        """Publish each task of `envelope` in its own envelope."""
        singles = unpack(envelope)
        for start in range(0, len(singles), _SPLIT_IN_FLIGHT):
            await asyncio.gather(*(self._send_on(queue, one) for one in singles[start : start + _SPLIT_IN_FLIGHT]))

    async def _send_on(self, queue: str, single: TaskEnvelope) -> None:
        """Publish one task. It fails if the broker refuses it."""
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
        """Publish a copy of an envelope that this worker can't answer yet."""
        try:
            await self._publish(held.queue, held.body, {queues.EARLIER_ATTEMPTS: str(held.earlier_attempts)})
        except MessageRefused:
            # The broker's limit was lowered since the envelope was published.
            await self.split(held.queue, decode_tasks(held.body))

    async def _publish(self, queue: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish; retry until the broker has stored the message. Raises `Stopped` and `MessageRefused`."""
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
