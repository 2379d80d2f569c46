"""What a process has in hand, for whoever finds it dead: two lines in a file that outlives it.

Writing costs no system call and survives a `kill -9`: the file is mapped into memory.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The longest line, in bytes: a model's name and its version.
_LENGTH = 200
_RUN, _LOAD = slice(0, _LENGTH), slice(_LENGTH, 2 * _LENGTH)


class InHand:
    """What this process runs, and what it loads beside that. Without a file nobody wants to know."""

    def __init__(self, file: Path | None = None) -> None:
        self._map: mmap.mmap | None = None
        if file is not None:
            with file.open("wb+") as stream:
                stream.truncate(2 * _LENGTH)
                self._map = mmap.mmap(stream.fileno(), 2 * _LENGTH)

    def run(self, what: str) -> None:
        """This runs from now on; an empty text: nothing."""
        self._write(_RUN, what)

    @contextmanager
    def loading(self, what: str) -> Iterator[None]:
        """This is loaded meanwhile."""
        self._write(_LOAD, what)
        try:
            yield
        finally:
            self._write(_LOAD, "")

    def _write(self, where: slice, what: str) -> None:
        if self._map is not None:
            # One slice, so that no half of two lines is ever read.
            self._map[where] = what.encode()[:_LENGTH].ljust(_LENGTH, b"\0")


def read(file: Path) -> str:
    """What a process that has ended had in hand: `churn 2.0.0`, `loading churn 2.0.0`, or both with a comma.

    Empty when it was nothing, or the process never said.
    """
    try:
        content = file.read_bytes()
    except OSError:
        return ""
    run, load = (
        "".join(each for each in content[where].rstrip(b"\0").decode(errors="replace") if each.isprintable())
        for where in (_RUN, _LOAD)
    )
    return ", ".join(part for part in (run, f"loading {load}" if load else "") if part)
