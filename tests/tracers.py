"""Who records spans in tests: a notebook in this process, or a collector that takes OTLP over HTTP."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from foretell.kit import tracing
from foretell.kit.tracing import Attributes, Kind, TraceContext

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{CALLER_ID}-01"


@dataclass
class NotedSpan:
    """What a span was begun and ended with."""

    name: str
    kind: str
    parent: TraceContext | None
    context: TraceContext
    attributes: dict[str, Any]
    ended: bool = False
    error: str = ""

    def end(self, *, name: str = "", attributes: Attributes | None = None, error: str = "") -> None:
        assert not self.ended
        self.ended, self.error = True, error
        self.name = name or self.name
        self.attributes.update(attributes or {})


@dataclass
class Notebook:
    """A tracer that keeps its spans, in the order of their beginnings."""

    spans: list[NotedSpan] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def begin(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> NotedSpan:
        trace_id = parent.trace_id if parent else f"{next(self._numbers):032x}"
        context = TraceContext(f"00-{trace_id}-{next(self._numbers):016x}-01", parent.tracestate if parent else "")
        span = NotedSpan(name, kind, parent, context, dict(attributes))
        self.spans.append(span)
        return span

    def close(self, within_s: float) -> None:
        pass

    def named(self, name: str) -> NotedSpan:
        """The only span of that name."""
        (span,) = [each for each in self.spans if each.name == name]
        return span


@contextmanager
def noted() -> Iterator[Notebook]:
    """The spans that begin inside."""
    notebook = Notebook()
    tracing.install(notebook)
    try:
        yield notebook
    finally:
        tracing.install(None)


@dataclass(frozen=True)
class SentSpan:
    """A span as a collector gets it. Ids in hexadecimal; `service` is its process's."""

    service: str
    instance: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, Any]
    tracestate: str = ""


class Collector:
    """Takes OTLP over HTTP on a port of its own, and answers every export with `status`."""

    def __init__(self) -> None:
        self.spans: list[SentSpan] = []
        self.requests: list[dict[str, str]] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collector.status
                if status == 200:
                    body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                    collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
                collector.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def of_trace(self, trace_id: str) -> list[SentSpan]:
        """The spans of one trace, in the order of their beginnings."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.started_ns)

    @contextmanager
    def running(self) -> Iterator["Collector"]:
        """Listening inside."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _spans(request: Any) -> Iterator[SentSpan]:
    for resource_spans in request.resource_spans:
        about = _plain(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield SentSpan(
                    about["service.name"],
                    about["service.instance.id"],
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    _plain(span.attributes),
                    span.trace_state,
                )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
