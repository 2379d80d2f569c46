"""Of an envelope's tasks, those that are part of a trace: a span and a log line for the run of each."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
import structlog

from foretell.contracts import spans
from foretell.contracts.messages import Result, TaskEnvelope
from foretell.kit import tracing
from foretell.kit.tracing import Span, TraceContext

log = structlog.get_logger()

#: By prediction. Empty when none is traced, which must cost nothing.
Runs = Mapping[UUID, Span]


def begin(envelope: TaskEnvelope, queue: str, worker_id: str) -> Runs:
    """The runs of the traced tasks, which begin now."""
    runs: dict[UUID, Span] = {}
    for task in envelope.tasks:
        if task.trace is not None and (parent := tracing.checked(task.trace)) is not None:
            about = spans.of_prediction(task.id, envelope.model, envelope.version)
            about |= spans.of_run(queue, worker_id, len(envelope.tasks))
            runs[task.id] = tracing.begin(spans.RUN, "consumer", parent, about)
    return runs


def alone(envelope: TaskEnvelope, runs: Runs) -> TraceContext | None:
    """What everything that is done for this envelope belongs to, if it has one task."""
    return runs[envelope.tasks[0].id].context if runs and len(envelope.tasks) == 1 else None


def handed_on(results: Sequence[Result], runs: Runs) -> list[Result]:
    """The results, each with the trace of its run."""
    if not runs:
        return list(results)
    return [
        msgspec.structs.replace(result, trace=runs[result.id].context) if result.id in runs else result
        for result in results
    ]


def end(envelope: TaskEnvelope, results: Sequence[Result], runs: Runs) -> None:
    """The runs are over, with these results."""
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
    """The runs came to nothing; their tasks are run again, in envelopes of their own."""
    for run in runs.values():
        run.end(error="split")
