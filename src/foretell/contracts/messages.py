"""Messages on the broker: tasks to workers, results to dispatchers, events to subscribers.

Payloads are the caller's JSON, unparsed (`msgspec.Raw`): only the worker parses them.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from foretell.kit.tracing import TraceContext

#: The kind of a task's payload: raw fields, or features that need no preprocessing.
Stage = Literal["input", "features"]

FailureCode = Literal[
    "invalid_input", "model_error", "timeout", "expired", "undeliverable", "input_too_large", "output_too_large"
]
Outcome = Literal["succeeded", "failed"]
Status = Literal["queued", "succeeded", "failed", "canceled"]

#: A time with a zone, so that it can be compared with ours.
Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """One prediction to run."""

    id: UUID
    stage: Stage
    payload: msgspec.Raw
    #: The span of its request, if that is part of a trace. Not trusted: see `tracing.checked`.
    trace: TraceContext | None = None


class TaskEnvelope(msgspec.Struct, frozen=True):
    """Tasks of one model version, published as one message."""

    model: str
    version: str
    published_at: Aware
    tasks: Annotated[list[Task], msgspec.Meta(min_length=1)]


class Failure(msgspec.Struct, frozen=True):
    """Why a prediction failed, as a text for users."""

    code: FailureCode
    message: str


#: Failures of messages that the broker refuses because of their size, or of outputs beyond the worker's limit.
INPUT_TOO_LARGE = Failure("input_too_large", "The input is too large to be sent to a worker.")
OUTPUT_TOO_LARGE = Failure("output_too_large", "The model's answer is larger than this installation allows.")


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one task: `output` if it succeeded, `error` if it failed."""

    id: UUID
    # Unset and not None, because msgspec leaves JSON unparsed only if the type allows nothing else.
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Failure | None = None
    #: The span of its run, if that is part of a trace.
    trace: TraceContext | None = None


class ResultEnvelope(msgspec.Struct, frozen=True):
    """Results of one task envelope, by one worker."""

    model: str
    version: str
    worker_id: str
    published_at: Aware
    started_at: Aware
    finished_at: Aware
    results: Annotated[list[Result], msgspec.Meta(min_length=1)]


class Finished(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one prediction ended, as committed to the database."""

    id: UUID
    status: Status
    finished_at: Aware
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Failure | None = None
    worker_id: str | None = None
    started_at: Aware | None = None
    published_at: Aware | None = None


class FinishedEvent(msgspec.Struct, frozen=True):
    """Body of `prediction.finished`: all predictions of one settlement."""

    predictions: list[Finished]


class ToldEvent(msgspec.Struct, frozen=True):
    """Body of `events.written`: accounts that have new events. A hint: subscribers also poll the database."""

    users: list[UUID]


class TasksKept(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `tasks.kept`: leases of tasks that a worker keeps for longer than a pulse. Repeated with every pulse.

    Without tasks: the worker lost its connection to the broker (`cut_off`).
    """

    worker_id: str
    ids: list[UUID]
    #: `held`: the worker has them, and they are not acknowledged yet. `alone`: the worker has them, and they are
    #: acknowledged, so that only dispatchers notice if it dies. `returned`: they are back in the queue.
    state: Literal["held", "alone", "returned"]
    #: The number of earlier deliveries, for a copy that a dispatcher may have to publish.
    earlier_attempts: int = 0
    #: The worker lost its connection to the broker: deliveries to it at that time count as attempts.
    cut_off: bool = False


encode = msgspec.json.Encoder().encode
decode_tasks = msgspec.json.Decoder(TaskEnvelope).decode
decode_results = msgspec.json.Decoder(ResultEnvelope).decode
decode_finished = msgspec.json.Decoder(FinishedEvent).decode
decode_told = msgspec.json.Decoder(ToldEvent).decode
decode_kept = msgspec.json.Decoder(TasksKept).decode
