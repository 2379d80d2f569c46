"""What crosses the broker comes out as it went in, and garbage is refused in a way that every reader expects."""

from collections.abc import Callable
from datetime import UTC, timedelta, timezone
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from foretell.contracts.messages import (
    Failure,
    FailureCode,
    Finished,
    FinishedEvent,
    Result,
    ResultEnvelope,
    Stage,
    Status,
    Task,
    TaskEnvelope,
    decode_finished,
    decode_results,
    decode_tasks,
    encode,
)
from foretell.kit.tracing import TraceContext

#: What whoever reads from a queue catches.
REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DECODERS: list[Callable[[bytes], Any]] = [decode_tasks, decode_results, decode_finished]

_zones = st.just(UTC) | st.just(timezone(timedelta(hours=5, minutes=30)))
_moments = st.datetimes(timezones=_zones)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).map(lambda value: msgspec.Raw(msgspec.json.encode(value)))
_failures = st.builds(Failure, code=st.sampled_from(get_args(FailureCode)), message=st.text())
_traces = st.none() | st.builds(TraceContext, traceparent=st.text(), tracestate=st.text())
_tasks = st.builds(Task, id=st.uuids(), stage=st.sampled_from(["input", "features"]), payload=_json, trace=_traces)
_task_envelopes = st.builds(
    TaskEnvelope,
    model=st.text(),
    version=st.text(),
    published_at=_moments,
    tasks=st.lists(_tasks, min_size=1, max_size=4),
)
_results = st.builds(Result, id=st.uuids(), output=_json, trace=_traces) | st.builds(
    Result, id=st.uuids(), error=_failures, trace=_traces
)
_result_envelopes = st.builds(
    ResultEnvelope,
    model=st.text(),
    version=st.text(),
    worker_id=st.text(),
    published_at=_moments,
    started_at=_moments,
    finished_at=_moments,
    results=st.lists(_results, min_size=1, max_size=4),
)
_finished = st.builds(
    Finished,
    id=st.uuids(),
    status=st.sampled_from(get_args(Status)),
    finished_at=_moments,
    output=st.just(msgspec.UNSET) | _json,
    error=st.none() | _failures,
    worker_id=st.none() | st.text(),
    started_at=st.none() | _moments,
    published_at=st.none() | _moments,
)


def _plain(value: Any) -> Any:
    """`value` for comparison: unparsed JSON as its letters."""
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@given(_task_envelopes)
def test_tasks_come_out_as_they_went_in(envelope: TaskEnvelope) -> None:
    assert _plain(decode_tasks(encode(envelope))) == _plain(envelope)


@given(_result_envelopes)
def test_results_come_out_as_they_went_in(envelope: ResultEnvelope) -> None:
    assert _plain(decode_results(encode(envelope))) == _plain(envelope)


@given(st.builds(FinishedEvent, predictions=st.lists(_finished, max_size=4)))
def test_events_come_out_as_they_went_in(event: FinishedEvent) -> None:
    assert _plain(decode_finished(encode(event))) == _plain(event)


def test_an_output_of_null_is_an_output() -> None:
    body = (
        b'{"model":"m","version":"1","worker_id":"w","published_at":"2025-01-01T00:00:00Z",'
        b'"started_at":"2025-01-01T00:00:00Z","finished_at":"2025-01-01T00:00:00Z",'
        b'"results":[{"id":"00000000-0000-7000-8000-000000000000","output":null}]}'
    )
    (result,) = decode_results(body).results
    assert isinstance(result.output, msgspec.Raw)
    assert bytes(result.output) == b"null"


@given(st.binary() | st.text().map(str.encode) | _json.map(bytes))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"tasks":' * 100_000)
@example(b'{"model":"\xff"}')
@example(b"\xff\xfe")
@example(b"null")
@example(b"\x00")
@example(b'{"model":"m","version":"1","published_at":"2025-01-01T00:00:00Z","tasks":' + b"[" * 100_000)
def test_garbage_is_refused_in_a_way_that_every_reader_expects(body: bytes) -> None:
    for decode in _DECODERS:
        with pytest.raises(REFUSALS):
            decode(body)


@given(envelope=_task_envelopes.map(encode) | _result_envelopes.map(encode), data=st.data())
def test_a_message_that_was_damaged_is_whole_or_refused(envelope: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(envelope) - 1))
    damaged = envelope[:place] + data.draw(st.binary(max_size=3)) + envelope[place + 1 :]
    for decode in (decode_tasks, decode_results):
        try:
            message = decode(damaged)
        except REFUSALS:
            continue
        assert message.published_at.tzinfo is not None


_TASKS = '{"model":"m","version":"1","published_at":"%s","tasks":%s}'
_TASK = '[{"id":"00000000-0000-7000-8000-000000000000","stage":"input","payload":1}]'


@pytest.mark.parametrize(
    ("published_at", "tasks"),
    [
        # A time without its zone can't be compared with ours.
        ("2025-01-01T00:00:00", _TASK),
        # Nobody could say when an envelope with nothing in it is done.
        ("2025-01-01T00:00:00Z", "[]"),
        ("2025-01-01T00:00:00Z", _TASK.replace('"input"', '"output"')),
        ("2025-01-01T00:00:00Z", _TASK.replace("0000-7000", "zzzz-7000")),
        ("yesterday", _TASK),
    ],
)
def test_an_envelope_that_makes_no_sense_is_refused(published_at: str, tasks: str) -> None:
    assert decode_tasks((_TASKS % ("2025-01-01T00:00:00Z", _TASK)).encode())
    with pytest.raises(msgspec.ValidationError):
        decode_tasks((_TASKS % (published_at, tasks)).encode())


def test_fields_of_a_later_release_are_passed_over() -> None:
    body = (_TASKS % ("2025-01-01T00:00:00Z", _TASK)).replace('"model"', '"trace":{"a":1},"model"')
    assert decode_tasks(body.encode()).model == "m"


# Releases that know traces, and those that do not, beside one another.


class OldTask(msgspec.Struct, frozen=True):
    """A task as the first release knows it."""

    id: UUID
    stage: Stage
    payload: msgspec.Raw


class OldResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A result as the first release knows it."""

    id: UUID
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Failure | None = None


@given(_tasks)
def test_a_task_is_read_by_workers_that_know_no_traces(task: Task) -> None:
    old = msgspec.json.decode(encode(task), type=OldTask)
    assert (old.id, old.stage, bytes(old.payload)) == (task.id, task.stage, bytes(task.payload))


@given(_results)
def test_a_result_is_read_by_dispatchers_that_know_no_traces(result: Result) -> None:
    old = msgspec.json.decode(encode(result), type=OldResult)
    assert (old.id, _plain(old.output), old.error) == (result.id, _plain(result.output), result.error)


@given(st.uuids(), _json)
def test_without_a_trace_messages_are_what_they_always_were(identifier: UUID, payload: msgspec.Raw) -> None:
    task, result = encode(OldTask(identifier, "input", payload)), encode(OldResult(identifier, output=payload))
    assert encode(Task(identifier, "input", payload)) == task
    assert encode(Result(identifier, output=payload)) == result
    assert msgspec.json.decode(task, type=Task).trace is None
    assert msgspec.json.decode(result, type=Result).trace is None
