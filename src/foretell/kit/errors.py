"""The ancestor of every error that Foretell explains to somebody."""

from typing import Any, ClassVar


class ForetellError(Exception):
    """Something went wrong that we can explain.

    A subclass sets `code` (stable, for programs) and `status` (the HTTP status that fits it). Its docstring is the
    message; `{}` fields in it are filled from the keyword arguments, which also travel as machine-readable details.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retry_after_s: float | None = None
    #: What `WWW-Authenticate` says besides the scheme, where the status is 401 (RFC 6750).
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
    retry_after_s = 1.0


class Unavailable(ForetellError):
    """A part that is needed for this is away: {part}. Try again shortly."""

    code = "unavailable"
    status = 503
    retry_after_s = 2.0


class NoRoom(Unavailable):
    """The disk of the {part} is full: nothing was stored. Try again when there is room."""

    code = "disk_full"
    retry_after_s = 10.0


class Misconfigured(ForetellError):
    """The settings do not allow a start."""

    code = "misconfigured"
