"""A span and a log line for the run of each traced task."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
import structlog

from foretell.contracts import spans
from foretell.contracts.messages import Result, TaskEnvelope
from foretell.kit import tracing
from foretell.kit.tracing import Span, TraceContext

log = structlog.get_logger()

#: Open spans, by prediction. Empty when no task is traced, which must cost nothing.
Runs = Mapping[UUID, Span]


def begin(envelope: TaskEnvelope, queue: str, worker_id: str) -> Runs:
    """Begin a span for each traced task."""
    runs: dict[UUID, Span] = {}
    for task in envelope.tasks:
        if task.trace is not None and (parent := tracing.checked(task.trace)) is not None:
            about = spans.of_prediction(task.id, envelope.model, envelope.version)
            about |= spans.of_run(queue, worker_id, len(envelope.tasks))
            runs[task.id] = tracing.begin(spans.RUN, "consumer", parent, about)
    return runs


def alone(envelope: TaskEnvelope, runs: Runs) -> TraceContext | None:
    """The trace context of the only task; None if the envelope has several or the task is not traced."""
    return runs[envelope.tasks[0].id].context if runs and len(envelope.tasks) == 1 else None


def handed_on(results: Sequence[Result], runs: Runs) -> list[Result]:
    """The results, each with the trace context of its run."""
    if not runs:
        return list(results)
    return [
        msgspec.structs.replace(result, trace=runs[result.id].context) if result.id in runs else result
        for result in results
    ]


def end(envelope: TaskEnvelope, results: Sequence[Result], runs: Runs) -> None:
    """End the spans, and log the results of the traced tasks."""
    if not runs:
        return
    for result in results:
        run = runs.get(result.id)
        if run is not None:
            outcome = result.error.code if result.error else "succeeded"
            run.end(error=result.error.code if result.error else "")
            log.info(
                "task_run",
                prediction_id=result.id,
                model=envelope.model,
                version=envelope.version,
                outcome=outcome,
                **tracing.fields(run.context),
            )


def give_up(runs: Runs) -> None:
    """End the spans of runs without results, whose tasks are published again in envelopes of one task."""
    for run in runs.values():
        run.end(error="split")
