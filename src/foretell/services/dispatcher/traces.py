"""A span and a log line for the settlement of each traced prediction."""

from collections.abc import Sequence
from uuid import UUID

import structlog

from foretell.contracts import spans
from foretell.contracts.messages import Finished, Result, ResultEnvelope, Task, TaskEnvelope
from foretell.kit import tracing
from foretell.kit.tracing import Span

log = structlog.get_logger()

#: Open spans, by prediction. Empty when nothing is traced, which must cost nothing.
Settlements = dict[UUID, Span]


def begin(envelope: ResultEnvelope | TaskEnvelope, queue: str, settlements: Settlements) -> None:
    """Begin a span for each traced prediction of this envelope (of results or of dead tasks)."""
    each: Result | Task
    for each in envelope.results if isinstance(envelope, ResultEnvelope) else envelope.tasks:
        if each.trace is None or each.id in settlements:
            continue
        parent = tracing.checked(each.trace)
        if parent is not None:
            about = spans.of_prediction(each.id, envelope.model, envelope.version) | spans.of_settle(queue)
            settlements[each.id] = tracing.begin(spans.SETTLE, "consumer", parent, about)


def end(finished: Sequence[Finished], settlements: Settlements) -> None:
    """End the spans of predictions that were settled in one batch."""
    if not settlements:
        return
    for prediction in finished:
        span = settlements.pop(prediction.id, None)
        if span is not None:
            code = prediction.error.code if prediction.error else ""
            span.end(attributes={**spans.of_batch(len(finished)), "foretell.prediction.status": prediction.status})
            log.info(
                "prediction_settled",
                prediction_id=prediction.id,
                status=prediction.status,
                **({"code": code} if code else {}),
                **tracing.fields(span.context),
            )


def end_rest(settlements: Settlements) -> None:
    """End the spans of results that changed nothing, mostly because the prediction had already ended."""
    for span in settlements.values():
        span.end(attributes={"foretell.prediction.status": "unchanged"})
    settlements.clear()
