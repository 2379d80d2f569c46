"""Records what a process is running, so that the supervisor can read it after a crash: two lines in a file.

The file is mapped into memory, so writing costs no system call and survives a `kill -9`.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The longest line, in bytes: a model's name and its version.
_LENGTH = 200
_RUN, _LOAD = slice(0, _LENGTH), slice(_LENGTH, 2 * _LENGTH)


class InHand:
    """What this process runs, and what it loads at the same time. Without a file it does nothing."""

    def __init__(self, file: Path | None = None) -> None:
        self._map: mmap.mmap | None = None
        if file is not None:
            with file.open("wb+") as stream:
                stream.truncate(2 * _LENGTH)
                self._map = mmap.mmap(stream.fileno(), 2 * _LENGTH)

    def run(self, what: str) -> None:
        """Record that this runs from now on; an empty text: nothing runs."""
        self._write(_RUN, what)

    @contextmanager
    def loading(self, what: str) -> Iterator[None]:
        """Record that this is being loaded."""
        self._write(_LOAD, what)
        try:
            yield
        finally:
            self._write(_LOAD, "")

    def _write(self, where: slice, what: str) -> None:
        if self._map is not None:
            # One slice assignment, so that a reader never sees parts of two lines.
            self._map[where] = what.encode()[:_LENGTH].ljust(_LENGTH, b"\0")


def read(file: Path) -> str:
    """What an ended process was running: `churn 2.0.0`, `loading churn 2.0.0`, or both with a comma.

    Empty if it was running nothing, or recorded nothing.
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
