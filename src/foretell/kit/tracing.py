"""Which trace a request or a task belongs to (W3C Trace Context), and spans, where somebody records them.

A `traceparent` that comes with a request goes with everything that follows from it: log lines name it, messages carry
it. Spans are `telemetry`'s business, which needs OpenTelemetry; without it every span here only passes on its parent.
Where neither a trace came nor spans are recorded, there is no trace: nothing is made, and nothing is paid for.
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

# Version, trace id, span id, flags, and what later versions may add.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
#: Sampled, and: the trace id is random. The others have no meaning yet, and go out as zero.
_KNOWN_FLAGS = 3

_MEMBER = re.compile(
    r"(?:[a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32
#: What the standard wants to be passed on at least. What is longer is left out: it would stand in every task.
_LONGEST_STATE = 512


class TraceContext(msgspec.Struct, frozen=True, omit_defaults=True):
    """The headers of the same names: a trace, the span in it that we are called from, and whether it is sampled."""

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
    """The context in these headers, one text for each time that a header came; None when there is none that counts.

    As the standard has it, a `traceparent` that is wrong, or comes twice, is as good as none; one of a later version
    is read as far as we know it; and a `tracestate` that is wrong, or longer than 512 characters, is left out.
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
    """The context of a message, which anybody may have written, if it is one."""
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


# What the code that runs belongs to: for whoever hands it on, and for log lines.
_CURRENT: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
_TRACE_ID: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}trace.id")
_SPAN_ID: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}span.id")

#: What `leave` needs.
Entered = tuple[Token[TraceContext | None], Token[str], Token[str]]

current = _CURRENT.get


def enter(context: TraceContext) -> Entered:
    """Be part of a trace: `current` returns it, and every log line names it, until `leave`."""
    return _CURRENT.set(context), _TRACE_ID.set(context.trace_id), _SPAN_ID.set(context.span_id)


def leave(entered: Entered) -> None:
    """Be part of what we were part of before."""
    context, trace_id, span_id = entered
    _CURRENT.reset(context)
    _TRACE_ID.reset(trace_id)
    _SPAN_ID.reset(span_id)


@contextmanager
def inside(context: TraceContext | None) -> Iterator[None]:
    """`enter` and `leave`; nothing for None."""
    if context is None:
        yield
        return
    entered = enter(context)
    try:
        yield
    finally:
        leave(entered)


def fields(context: TraceContext) -> dict[str, str]:
    """What a log line about something of that trace says."""
    return {"trace.id": context.trace_id, "span.id": context.span_id}


class Span(Protocol):
    """One piece of work in a trace, from its beginning to `end`."""

    @property
    def context(self) -> TraceContext:
        """What the work hands on, so that what follows is this span's child."""

    def end(self, *, name: str = "", attributes: Attributes | None = None, error: str = "") -> None:
        """It is done. `name` replaces the one it began with; `error` says, in a word, that it failed."""


class Tracer(Protocol):
    """Records spans."""

    def begin(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Span | None:
        """A span that begins now, a new trace without `parent`; None when it is not sampled."""

    def close(self, within_s: float) -> None:
        """Send what waits, as far as that is done within so many seconds. Never raises."""


class Passing(NamedTuple):
    """A span that nobody records."""

    context: TraceContext

    def end(self, *, name: str = "", attributes: Attributes | None = None, error: str = "") -> None:
        """Nothing."""


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Have `tracer` record the spans of this process from now on, or nobody."""
    global _tracer
    _tracer = tracer


def recording() -> bool:
    """Whether somebody records spans."""
    return _tracer is not None


def begin(name: str, kind: Kind, parent: TraceContext, attributes: Attributes) -> Span:
    """A span below `parent` that begins now; where it is not recorded, one that passes `parent` on."""
    span = None if _tracer is None else _tracer.begin(name, kind, parent, attributes)
    return Passing(parent) if span is None else span


def begin_trace(name: str, kind: Kind, attributes: Attributes) -> Span | None:
    """A span that nothing led to, if somebody records spans and this one is sampled."""
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
    """Send the spans that wait, if that is done in time, and record no more."""
    tracer = _tracer
    install(None)
    if tracer is not None:
        tracer.close(within_s)
