"""How long all that one request asks of the database may take, however many transactions that is.

Each of them has a limit of its own; one after the other, those of a request would add up to more than its caller was
promised.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Allowance:
    """Begins when it is first asked for: who sends a body slowly, or waits for a hash, has lost none of it.

    Where something is asked before the body has arrived (who sends it, say), the wait for the body is to be `paused`.
    """

    __slots__ = ("_lifted", "_seconds", "_until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._lifted = False

    @property
    def until(self) -> float | None:
        """When it must be over, by the event loop's clock; None once it was lifted."""
        if self._lifted:
            return None
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._seconds
        return self._until

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no time of it passes: whoever asks is still sending what they ask. Not two at once."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            yield
        finally:
            if self._until is not None:
                self._until += clock() - began

    def lift(self) -> None:
        """The caller has heard: what is asked from here on, for a stream say, has no common end."""
        self._lifted = True


_PRESENT: ContextVar[Allowance | None] = ContextVar("foretell_allowance", default=None)


@contextmanager
def allowed(seconds: float) -> Iterator[Allowance]:
    """Inside, all transactions together may take `seconds`, from the beginning of the first."""
    allowance = Allowance(seconds)
    token = _PRESENT.set(allowance)
    try:
        yield allowance
    finally:
        _PRESENT.reset(token)


def until() -> float | None:
    """When it must be over, by the event loop's clock; None where nothing is said."""
    allowance = _PRESENT.get()
    return None if allowance is None else allowance.until
