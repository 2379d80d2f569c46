"""The trace of a request or task (W3C Trace Context), and spans, if they are recorded.

The `traceparent` of a request applies to all its work: log lines and messages contain it. `telemetry` records spans
with OpenTelemetry; without it every span only passes on its parent. A request without a `traceparent` has no trace,
unless spans are recorded, and then costs nothing.
"""

import re
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Literal, NamedTuple, Protocol

import msgspec
from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from foretell.kit.errors import ForetellError

Kind = Literal["server", "internal", "producer", "consumer"]
Attributes = Mapping[str, str | int]

# Version, trace id, span id, flags, and fields of later versions.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
#: The flags "sampled" and "random trace id". The others have no meaning yet, and are sent as zero.
_KNOWN_FLAGS = 3

_MEMBER = re.compile(
    r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32
#: The length that the standard requires at least. A longer one is dropped, because every task would contain it.
_LONGEST_STATE = 512


class TraceContext(msgspec.Struct, frozen=True, omit_defaults=True):
    """The headers of the same names: a trace, the caller's span, and whether it is sampled."""

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return self.traceparent[36:52]

    @property
    def flags(self) -> int:
        """8 bits."""
        return int(self.traceparent[53:55], 16)

    @property
    def sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(self.flags & _SAMPLED)


def parse(traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> TraceContext | None:
    """The context in these headers (one text for each occurrence), or None.

    According to the standard, an invalid or repeated `traceparent` is ignored; of a later version the known fields
    are used; an invalid `tracestate`, or one of more than 512 characters, is dropped.
    """
    if len(traceparents) != 1:
        return None
    match = _TRACEPARENT.fullmatch(traceparents[0])
    if match is None:
        return None
    version, ids, flags, more = match.groups()
    if version == "00" and more:
        return None
    return TraceContext(f"00-{ids}-{int(flags, 16) & _KNOWN_FLAGS:02x}", _state(tracestates))


def checked(context: TraceContext | None) -> TraceContext | None:
    """The context of a message if it is valid, else None; the message is not trusted."""
    return context and parse([context.traceparent], [context.tracestate])


def _state(tracestates: Sequence[str]) -> str:
    state = ",".join(tracestates).strip(" \t")
    if not state or len(state) > _LONGEST_STATE:
        return ""
    members = [member.strip(" \t") for member in state.split(",")]
    keys = [member.partition("=")[0] for member in members if member]
    if len(keys) > _MOST_MEMBERS or len(set(keys)) < len(keys):
        return ""
    return state if all(_MEMBER.fullmatch(member) for member in members if member) else ""


# The trace of the running code, for messages, calls and log lines.
_CURRENT: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
_TRACE_ID: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}trace.id")
_SPAN_ID: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}span.id")

#: The argument of `leave`.
Entered = tuple[Token[TraceContext | None], Token[str], Token[str]]

current = _CURRENT.get


def enter(context: TraceContext) -> Entered:
    """Enter a trace: `current` returns it, and every log line contains it, until `leave`."""
    return _CURRENT.set(context), _TRACE_ID.set(context.trace_id), _SPAN_ID.set(context.span_id)


def leave(entered: Entered) -> None:
    """Return to the previous trace."""
    context, trace_id, span_id = entered
    _CURRENT.reset(context)
    _TRACE_ID.reset(trace_id)
    _SPAN_ID.reset(span_id)


@contextmanager
def inside(context: TraceContext | None) -> Iterator[None]:
    """`enter` and `leave`; does nothing for None."""
    if context is None:
        yield
        return
    entered = enter(context)
    try:
        yield
    finally:
        leave(entered)


def fields(context: TraceContext) -> dict[str, str]:
    """The fields of log lines for that trace."""
    return {"trace.id": context.trace_id, "span.id": context.span_id}


class Span(Protocol):
    """One piece of work in a trace, from its beginning to `end`."""

    @property
    def context(self) -> TraceContext:
        """The context to pass on, so that following spans are children of this one."""

    def end(self, *, name: str = "", attributes: Attributes | None = None, error: str = "") -> None:
        """End the span. `name` replaces the initial name; `error` is a word for the failure."""


class Tracer(Protocol):
    """Records spans."""

    def begin(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Span | None:
        """A span that begins now, in a new trace if there is no `parent`; None if it is not sampled."""

    def close(self, within_s: float) -> None:
        """Send the waiting spans within so many seconds. Never raises."""


class Passing(NamedTuple):
    """A span that is not recorded."""

    context: TraceContext

    def end(self, *, name: str = "", attributes: Attributes | None = None, error: str = "") -> None:
        """Do nothing."""


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Record the spans of this process with `tracer` from now on; None: do not record."""
    global _tracer
    _tracer = tracer


def recording() -> bool:
    """Whether spans are recorded."""
    return _tracer is not None


def begin(name: str, kind: Kind, parent: TraceContext, attributes: Attributes) -> Span:
    """A child span of `parent` that begins now; if it is not recorded, one that only passes on `parent`."""
    span = None if _tracer is None else _tracer.begin(name, kind, parent, attributes)
    return Passing(parent) if span is None else span


def begin_trace(name: str, kind: Kind, attributes: Attributes) -> Span | None:
    """A span without a parent, if spans are recorded and this one is sampled."""
    return None if _tracer is None else _tracer.begin(name, kind, None, attributes)


class Step:
    """A `with` block that is a span of the current trace; outside of a trace, a block like any other."""

    __slots__ = ("_attributes", "_kind", "_name", "_span")

    def __init__(self, name: str, kind: Kind, attributes: Callable[[], Attributes]) -> None:
        """`attributes` is called only in a trace: most requests have none, and should not pay for them."""
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._span: Span | None = None

    def __enter__(self) -> None:
        """Begin the span."""
        parent = current()
        if parent is not None:
            self._span = begin(self._name, self._kind, parent, self._attributes())

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """End the span, with the code of the error that ended the block."""
        if self._span is not None:
            self._span.end(error="" if error is None else _code_of(error))


def _code_of(error: BaseException) -> str:
    if isinstance(error, ForetellError):
        return error.code
    return "canceled" if isinstance(error, CancelledError) else type(error).__name__


def stop(within_s: float) -> None:
    """Send the waiting spans, within the time limit, and stop recording."""
    tracer = _tracer
    install(None)
    if tracer is not None:
        tracer.close(within_s)
