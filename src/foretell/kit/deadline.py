"""One deadline for all transactions of a request.

Each transaction has its own limit, but the limits of several transactions would add up to more than the limit
of the request.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Allowance:
    """Time for the database. It begins at the first use, so a slow body or a password hash does not use it up.

    If the database is used before the body has arrived (for authentication, for example), wrap the wait for the body
    in `paused`.
    """

    __slots__ = ("_lifted", "_seconds", "_until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._lifted = False

    @property
    def until(self) -> float | None:
        """The deadline, by the event loop's clock; None after `lift`."""
        if self._lifted:
            return None
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._seconds
        return self._until

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the time inside, while the client still sends its request. Can't be nested."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            yield
        finally:
            if self._until is not None:
                self._until += clock() - began

    def lift(self) -> None:
        """The answer has begun: from here on, in a stream for example, there is no common deadline."""
        self._lifted = True


_PRESENT: ContextVar[Allowance | None] = ContextVar("foretell_allowance", default=None)


@contextmanager
def allowed(seconds: float) -> Iterator[Allowance]:
    """Inside, all transactions together may take `seconds`, from the start of the first."""
    allowance = Allowance(seconds)
    token = _PRESENT.set(allowance)
    try:
        yield allowance
    finally:
        _PRESENT.reset(token)


def until() -> float | None:
    """The current deadline, by the event loop's clock; None without one."""
    allowance = _PRESENT.get()
    return None if allowance is None else allowance.until
