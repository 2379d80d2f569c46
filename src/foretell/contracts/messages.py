"""What crosses the broker: tasks to workers, results back, events to whoever listens.

Payloads travel as the JSON that the caller sent (`msgspec.Raw`): only the worker parses them.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from foretell.kit.tracing import TraceContext

#: What the payload of a task is: raw fields, or features that need no preprocessing.
Stage = Literal["input", "features"]

FailureCode = Literal[
    "invalid_input", "model_error", "timeout", "expired", "undeliverable", "input_too_large", "output_too_large"
]
Outcome = Literal["succeeded", "failed"]
Status = Literal["queued", "succeeded", "failed", "canceled"]

#: A time says its zone: one without can't be compared with ours.
Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """One prediction to make."""

    id: UUID
    stage: Stage
    payload: msgspec.Raw
    #: What asked for it, if that is part of a trace. Anybody may have written it: see `tracing.checked`.
    trace: TraceContext | None = None


class TaskEnvelope(msgspec.Struct, frozen=True):
    """Tasks of one model version, published as one message."""

    model: str
    version: str
    published_at: Aware
    tasks: Annotated[list[Task], msgspec.Meta(min_length=1)]


class Failure(msgspec.Struct, frozen=True):
    """Why a prediction failed, in words that may be shown to the user."""

    code: FailureCode
    message: str


#: Of a prediction that the broker takes no message of, or whose answer the worker may not send or the broker not take.
INPUT_TOO_LARGE = Failure("input_too_large", "The input is too large to be sent to a worker.")
OUTPUT_TOO_LARGE = Failure("output_too_large", "The model's answer is larger than this installation allows.")


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one task ended: `output` when it succeeded, `error` when it failed."""

    id: UUID
    # Unset and not None: msgspec leaves JSON unparsed only where nothing but JSON may stand.
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Failure | None = None
    #: The run of its task, if that is part of a trace.
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
    """Body of `prediction.finished`: everything one settlement settled."""

    predictions: list[Finished]


class ToldEvent(msgspec.Struct, frozen=True):
    """Body of `events.written`: accounts that have new events. A hint: everybody looks into the database, too."""

    users: list[UUID]


class TasksKept(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of `tasks.kept`: tasks that a worker has in hand for longer than a moment. Said again with every pulse."""

    worker_id: str
    ids: list[UUID]
    #: `held`: it has them, and the broker knows. `alone`: it has them, and to the broker they are done, so that nobody
    #: but whoever hears this notices when it dies. `returned`: it has them no more, the broker has.
    state: Literal["held", "alone", "returned"]
    #: How many deliveries counted before, if somebody has to publish a copy.
    earlier_attempts: int = 0


encode = msgspec.json.Encoder().encode
decode_tasks = msgspec.json.Decoder(TaskEnvelope).decode
decode_results = msgspec.json.Decoder(ResultEnvelope).decode
decode_finished = msgspec.json.Decoder(FinishedEvent).decode
decode_told = msgspec.json.Decoder(ToldEvent).decode
decode_kept = msgspec.json.Decoder(TasksKept).decode
