"""The base class of all errors with a message for users, and common errors."""

from typing import Any, ClassVar, Literal

#: Whether a failed request took effect: it did not, or it may have.
Outcome = Literal["not_done", "unknown"]


class ForetellError(Exception):
    """Something went wrong that we can explain.

    A subclass sets `code` (stable, for programs) and `status` (the HTTP status that fits it). Its docstring is the
    message; `{}` fields in it are filled from the keyword arguments, which also travel as machine-readable details.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    #: For an error with status 5xx: whether the request may have taken effect.
    outcome: Outcome = "unknown"
    retry_after_s: float | None = None
    #: Parameters of `WWW-Authenticate` for status 401 (RFC 6750).
    challenge: ClassVar[str] = ""

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None, **details: Any) -> None:
        template = message or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
        self.message = template.format(**details) if message is None else template
        self.details = details
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        super().__init__(self.message)


class Overloaded(ForetellError):
    """More work is waiting than can be taken; try again shortly."""

    code = "overloaded"
    status = 503
    outcome: Outcome = "not_done"
    retry_after_s = 1.0


class Unavailable(ForetellError):
    """A part that is needed for this is away: {part}. Nothing was done; try again shortly."""

    code = "unavailable"
    status = 503
    outcome: Outcome = "not_done"
    retry_after_s = 2.0


class NoRoom(Unavailable):
    """The disk of the {part} is full: nothing was stored. Try again when there is room."""

    code = "disk_full"
    retry_after_s = 10.0


class MayBeDone(Unavailable):
    """The {part} did not say whether it was done. Look before you ask again, or use the same Idempotency-Key."""

    outcome = "unknown"


class Misconfigured(ForetellError):
    """The settings do not allow a start."""

    code = "misconfigured"
