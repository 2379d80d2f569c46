"""Spans by OpenTelemetry, sent to a collector as OTLP over HTTP, in a separate thread.

This is the only module that imports OpenTelemetry; `trace_export.start` imports it only if needed. The library reads
the standard settings (`OTEL_EXPORTER_OTLP_…`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_…`). The queue of spans is bounded: if
the collector is unreachable, only spans beyond the limit are lost.
"""

import logging
import os
import threading
from collections.abc import Sequence

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

import foretell
from foretell.kit import tracing
from foretell.kit.tracing import Attributes, Kind, TraceContext

log = structlog.get_logger()

_KINDS: dict[Kind, SpanKind] = {
    "server": SpanKind.SERVER,
    "internal": SpanKind.INTERNAL,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_ROOT = Context()
_PROTOCOL_SETTINGS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def open_tracer(service: str, instance: str, messaging_system: str) -> tracing.Tracer:
    """A tracer that sends to the endpoint in the environment. Raises the library's errors about its settings."""
    complaints = _Complaints()
    for logger, ours in ((trace_exporter.__name__, complaints), ("opentelemetry.util.re", _about_headers)):
        logging.getLogger(logger).filters = [ours]
    # Its log lines contain the address, which may have a secret in it.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    wanted = next(filter(None, map(os.environ.get, _PROTOCOL_SETTINGS)), _PROTOCOL)
    if wanted != _PROTOCOL:
        log.warning("traces_sent_by_http", wanted=wanted, reason=f"Of OTLP's protocols, {_PROTOCOL} is spoken here.")
    about = {"service.instance.id": instance, "service.version": foretell.__version__, "service.namespace": "foretell"}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        about["service.name"] = service
    exporter = _Outspoken(OTLPSpanExporter(), complaints)
    return _Tracer(exporter, Resource.create(about), messaging_system)


def _about_headers(record: logging.LogRecord) -> bool:
    """Replaces the library's log line about an invalid header, which would contain a key."""
    log.warning("traces_header_left_out", reason="A header in OTEL_EXPORTER_OTLP_HEADERS is not NAME=VALUE.")
    return False


class _Tracer:
    """`tracing.Tracer` by OpenTelemetry's SDK."""

    def __init__(self, exporter: SpanExporter, resource: Resource, messaging_system: str) -> None:
        self._messaging_system = messaging_system
        # `close` shuts it down, with a time limit.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("foretell", foretell.__version__)

    def begin(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> tracing.Span | None:
        if kind in ("producer", "consumer"):
            attributes = {"messaging.system": self._messaging_system, **attributes}
        around = _ROOT if parent is None else _remote(parent)
        span = self._tracer.start_span(name, around, _KINDS[kind], attributes)
        return _Recorded(span) if span.is_recording() else None

    def close(self, within_s: float) -> None:
        # The library waits for half a minute and more if the collector does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(within_s)
        if closing.is_alive():
            log.warning("traces_left_behind", within_s=within_s)


def _remote(parent: TraceContext) -> Context:
    context = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(parent.flags),
        trace_state=TraceState.from_header([parent.tracestate]) if parent.tracestate else None,
    )
    return set_span_in_context(NonRecordingSpan(context), _ROOT)


class _Recorded:
    """`tracing.Span` by OpenTelemetry's."""

    __slots__ = ("_span", "context")

    def __init__(self, span: Span) -> None:
        self._span = span
        ours = span.get_span_context()
        self.context = TraceContext(
            f"00-{ours.trace_id:032x}-{ours.span_id:016x}-{ours.trace_flags:02x}", ours.trace_state.to_header()
        )

    def end(self, *, name: str = "", attributes: Attributes | None = None, error: str = "") -> None:
        if name:
            self._span.update_name(name)
        if attributes:
            self._span.set_attributes(attributes)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class _Outspoken(SpanExporter):
    """An exporter that logs once when it can't reach its collector, and once when it can again."""

    def __init__(self, exporter: SpanExporter, complaints: "_Complaints") -> None:
        self._exporter = exporter
        self._complaints = complaints
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
        elif self._complaints.heard:
            self._complaints.heard = False
            log.info("traces_exported_again", spans_lost=self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Complaints(logging.Filter):
    """Replaces the library's first log line about its collector by our own, and drops the others."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = False

    def filter(self, record: logging.LogRecord) -> bool:
        if not self.heard:
            self.heard = True
            if isinstance(record.args, tuple):
                # Only the type of errors is logged: their texts contain the address, which may have a secret in it.
                named = (type(each).__name__ if isinstance(each, BaseException) else each for each in record.args)
                record.args = tuple(named)
            log.warning("traces_not_exported", reason=record.getMessage())
        return False
