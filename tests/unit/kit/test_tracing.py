"""The headers of W3C Trace Context, and being part of a trace."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.tracers import CALLER_ID, TRACE_ID, TRACEPARENT, noted

from foretell.kit import trace_export, tracing
from foretell.kit.errors import Unavailable
from foretell.kit.tracing import Passing, TraceContext, checked, parse

_IDS = f"{TRACE_ID}-{CALLER_ID}"


@pytest.fixture(autouse=True)
def _nobody_records() -> Iterator[None]:
    yield
    assert not tracing.recording()
    assert tracing.current() is None


def test_what_a_header_says() -> None:
    context = parse([TRACEPARENT])
    assert context is not None
    assert (context.trace_id, context.span_id, context.sampled) == (TRACE_ID, CALLER_ID, True)
    assert context == TraceContext(TRACEPARENT)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (f"00-{_IDS}-00", f"00-{_IDS}-00"),
        (f"00-{_IDS}-03", f"00-{_IDS}-03"),
        # Flags that have no meaning yet are not passed on ...
        (f"00-{_IDS}-ff", f"00-{_IDS}-03"),
        # ... and a later version is read as far as it is like ours.
        (f"cc-{_IDS}-01", f"00-{_IDS}-01"),
        (f"cc-{_IDS}-01-what-the-future-brings", f"00-{_IDS}-01"),
    ],
)
def test_what_counts(given: str, taken: str) -> None:
    assert parse([given]) == TraceContext(taken)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        f"00-{_IDS}",
        f"00-{_IDS}-1",
        f"00-{_IDS}-001",
        f"00-{_IDS}-01-",
        f"00-{_IDS}-01-more",
        f"00-{_IDS}-01\n",
        f"ff-{_IDS}-01",
        f"cc-{_IDS}-01.more",
        f"0-{_IDS}-01",
        f"00-{_IDS.upper()}-01",
        f"00-{_IDS}-0A",
        f"00-{'0' * 32}-{CALLER_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{CALLER_ID}-01",
        f"00-{TRACE_ID}-{CALLER_ID[:-1]}g-01",
        f"00-{TRACE_ID}_{CALLER_ID}-01",
        f"00-{'٣' * 32}-{CALLER_ID}-01",
    ],
)
def test_what_is_as_good_as_nothing(given: str) -> None:
    assert parse([given], ["a=1"]) is None


def test_none_or_two_are_none() -> None:
    assert parse([]) is None
    assert parse([TRACEPARENT, TRACEPARENT]) is None


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ([], ""),
        ([""], ""),
        (["foo=1"], "foo=1"),
        (["foo=1,bar=2"], "foo=1,bar=2"),
        # Several headers are one list, in their order; members may be empty and have space around them.
        (["foo=1", "bar=2"], "foo=1,bar=2"),
        (["foo=1 , ,bar=2,"], "foo=1 , ,bar=2,"),
        (["fw529a3039@dt=FfAxkZQ=".rstrip("="), "z-*/_=!~"], "fw529a3039@dt=FfAxkZQ,z-*/_=!~"),
        (["k" * 256 + "=1"], "k" * 256 + "=1"),
        # Wrong, twice, too many or too long: left out as a whole.
        (["foo"], ""),
        (["foo=1=2"], ""),
        (["Foo=1"], ""),
        (["k" * 257 + "=1"], ""),
        (["foo=1\x00"], ""),
        (["foo=\xe4"], ""),
        (["foo=1,foo=2"], ""),
        ([",".join(f"k{n}=1" for n in range(33))], ""),
        (["foo=" + "1" * 600], ""),
    ],
)
def test_the_state_goes_along_if_it_is_one(given: list[str], taken: str) -> None:
    assert parse([TRACEPARENT], given) == TraceContext(TRACEPARENT, taken)


@given(st.text(max_size=80) | st.from_regex(tracing._TRACEPARENT, fullmatch=True), st.lists(st.text(max_size=600)))
@example(TRACEPARENT, ["a=1"])
def test_whatever_comes_what_is_taken_is_in_order(traceparent: str, tracestates: list[str]) -> None:
    context = parse([traceparent], tracestates)
    if context is not None:
        assert len(context.traceparent) == 55
        assert len(context.tracestate) <= 512
        assert checked(context) == context


def test_a_context_of_a_message_is_looked_at() -> None:
    assert checked(None) is None
    assert checked(TraceContext("nonsense")) is None
    assert checked(TraceContext(TRACEPARENT, "No state")) == TraceContext(TRACEPARENT)


def test_inside_a_trace_everybody_knows_it_and_afterwards_nobody() -> None:
    outer = TraceContext(TRACEPARENT)
    inner = TraceContext(TRACEPARENT.replace(CALLER_ID, "1" * 16))
    with tracing.inside(outer):
        with tracing.inside(inner):
            assert tracing.current() is inner
            assert _bound() == {"trace.id": TRACE_ID, "span.id": "1" * 16}
        assert tracing.current() is outer
        assert _bound() == {"trace.id": TRACE_ID, "span.id": CALLER_ID} == tracing.fields(outer)
    assert _bound() == {}
    with tracing.inside(None):
        assert tracing.current() is None


def _bound() -> dict[str, Any]:
    return structlog.contextvars.get_contextvars()


def test_where_nobody_records_a_span_passes_its_parent_on() -> None:
    parent = TraceContext(TRACEPARENT)
    span = tracing.begin("work", "internal", parent, {})
    assert span == Passing(parent)
    span.end(name="other", attributes={"a": 1}, error="failed")
    assert tracing.begin_trace("work", "server", {}) is None


def test_where_somebody_records_it_is_theirs() -> None:
    parent = TraceContext(TRACEPARENT)
    with noted() as notebook:
        span = tracing.begin("work", "internal", parent, {"a": 1})
        assert span.context.trace_id == TRACE_ID
        assert span.context.span_id != CALLER_ID
        assert tracing.begin_trace("work", "server", {}) is not None
    assert [each.parent for each in notebook.spans] == [parent, None]


_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SERVICE_NAME": "app"},
        {**_ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**_ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_a_place_to_send_spans_to_nobody_records(environment: dict[str, str]) -> None:
    with capture_logs() as lines:
        trace_export.start("app", "app-1", "sqlite", environment)
    assert not tracing.recording()
    assert lines == []


def test_without_the_extra_the_service_runs_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "foretell.kit.telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with capture_logs() as lines:
        trace_export.start("app", "app-1", "sqlite", _ENDPOINT)
    assert not tracing.recording()
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("traces_not_recorded", "warning")
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in line["reason"]
    assert "extra otel" in line["reason"]


def test_settings_that_the_library_refuses_do_not_stop_the_service(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")
    with capture_logs() as lines:
        trace_export.start("app", "app-1", "sqlite", _ENDPOINT)
    assert not tracing.recording()
    assert [line["event"] for line in lines] == ["traces_header_left_out", "traces_not_recorded"]
    assert lines[1]["error_type"] == "ValueError"
    assert "s3cret" not in str(lines) + caplog.text


def test_nothing_of_the_library_is_imported_unless_it_is_wanted() -> None:
    # FastAPI imports its interface, `opentelemetry.trace`, on its own; without a provider that does nothing.
    program = (
        "import sys\n"
        "import foretell.services.app.app, foretell.services.dispatcher.app, foretell.services.worker.app\n"
        "from foretell.kit import trace_export\n"
        "trace_export.start('app', 'app-1', 'sqlite', {})\n"
        "wanted = ('opentelemetry.sdk', 'opentelemetry.exporter', 'google.protobuf', 'foretell.kit.telemetry')\n"
        "print([name for name in sys.modules if name.startswith(wanted)])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_step_outside_of_a_trace_records_nothing_and_asks_for_no_attributes() -> None:
    with noted() as notebook, tracing.Step("step", "internal", lambda: pytest.fail("asked")):
        pass
    assert notebook.spans == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, ""),
        (Unavailable(part="database"), "unavailable"),
        (asyncio.CancelledError(), "canceled"),
        (KeyError("x"), "KeyError"),
    ],
)
def test_a_step_in_a_trace_is_a_span_with_the_code_of_its_error(error: BaseException | None, code: str) -> None:
    parent = TraceContext(TRACEPARENT)
    expected = nullcontext() if error is None else pytest.raises(type(error))
    with noted() as notebook, tracing.inside(parent), expected, tracing.Step("step", "internal", lambda: {"a": 1}):
        if error is not None:
            raise error
    span = notebook.named("step")
    assert (span.parent, span.attributes, span.ended, span.error) == (parent, {"a": 1}, True, code)
