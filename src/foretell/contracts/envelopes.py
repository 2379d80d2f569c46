"""Packs tasks into envelopes: one model version each, with limits of number and size."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from foretell.contracts import queues
from foretell.contracts.messages import Result, ResultEnvelope, Stage, Task, TaskEnvelope, encode
from foretell.kit.tracing import TraceContext


class Outgoing(Protocol):
    """The source of a task: an accepted submission, or a queued prediction found by a sweep."""

    @property
    def id(self) -> UUID: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def pool(self) -> str | None: ...
    @property
    def stage(self) -> Stage: ...
    @property
    def payload(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Parcel:
    """An encoded envelope, its queue, and its predictions."""

    queue: str
    body: bytes
    ids: list[UUID]


# Size of a task in an envelope besides its payload: id, stage, punctuation.
_TASK_OVERHEAD_BYTES = 90
# Size of a trace besides its state, of which JSON may escape every character.
_TRACE_OVERHEAD_BYTES = 110
_NO_TRACES: Mapping[UUID, TraceContext] = {}


def pack(
    tasks: Iterable[Outgoing], published_at: datetime, traces: Mapping[UUID, TraceContext] = _NO_TRACES
) -> Iterator[Parcel]:
    """Envelopes of `tasks`: up to `MAX_ENVELOPE_TASKS` and `MAX_ENVELOPE_BYTES` each (one larger task goes alone).

    `traces` has the trace of each task that is part of one.
    """
    groups: dict[tuple[str | None, str, str], list[Outgoing]] = {}
    for task in tasks:
        groups.setdefault((task.pool, task.model, task.version), []).append(task)
    for group in groups.values():
        chunk: list[Outgoing] = []
        size = 0
        for task in group:
            task_bytes = len(task.payload) + _TASK_OVERHEAD_BYTES
            if traces and (trace := traces.get(task.id)) is not None:
                task_bytes += _TRACE_OVERHEAD_BYTES + 2 * len(trace.tracestate)
            if chunk and (len(chunk) == queues.MAX_ENVELOPE_TASKS or size + task_bytes > queues.MAX_ENVELOPE_BYTES):
                yield _parcel(chunk, published_at, traces)
                chunk, size = [], 0
            chunk.append(task)
            size += task_bytes
        yield _parcel(chunk, published_at, traces)


def _parcel(chunk: list[Outgoing], published_at: datetime, traces: Mapping[UUID, TraceContext]) -> Parcel:
    first = chunk[0]
    envelope = TaskEnvelope(
        model=first.model,
        version=first.version,
        published_at=published_at,
        tasks=[
            Task(task.id, task.stage, msgspec.Raw(task.payload), traces.get(task.id) if traces else None)
            for task in chunk
        ],
    )
    return Parcel(queues.tasks_queue(first.pool), encode(envelope), [task.id for task in chunk])


def unpack(envelope: TaskEnvelope) -> list[TaskEnvelope]:
    """A separate envelope for every task."""
    return [msgspec.structs.replace(envelope, tasks=[task]) for task in envelope.tasks]


# Size of a result in an envelope besides its output: id, punctuation, a code, a trace.
_RESULT_OVERHEAD_BYTES = 300


def pack_results(answer: ResultEnvelope) -> Iterator[ResultEnvelope]:
    """`answer` in envelopes of up to `MAX_ENVELOPE_BYTES` each (one larger result goes alone)."""
    chunk: list[Result] = []
    size = 0
    for result in answer.results:
        payload = result.output if isinstance(result.output, msgspec.Raw) else None
        result_bytes = _RESULT_OVERHEAD_BYTES + (0 if payload is None else len(bytes(payload)))
        if chunk and size + result_bytes > queues.MAX_ENVELOPE_BYTES:
            yield msgspec.structs.replace(answer, results=chunk)
            chunk, size = [], 0
        chunk.append(result)
        size += result_bytes
    yield msgspec.structs.replace(answer, results=chunk)
