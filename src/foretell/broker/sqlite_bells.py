"""Bells: how one process wakes another through the file system, and how it can see that the other is dead.

A bell is a named pipe that only its owner has open for reading. A byte written into it wakes the owner's event loop at
once, without polling. When the owner dies, however it dies, the kernel closes the pipe, and the next who tries to ring
is told that nobody is there.
"""

import asyncio
import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Bell:
    """The bell of this process, in `folder`, called `name`."""

    def __init__(self, folder: Path, on_ring: Callable[[], None]) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._path = folder / self.name
        self._on_ring = on_ring
        # Opened before it gets its name: a bell that can be seen and has no owner is a dead one, at any moment.
        hidden = folder / f".{self.name}"
        os.mkfifo(hidden)
        try:
            # Read and write, so that the pipe never reports its end when a ringer leaves.
            self._descriptor = os.open(hidden, os.O_RDWR | os.O_NONBLOCK)
            os.rename(hidden, self._path)
        except OSError:
            with suppress(OSError):
                os.unlink(hidden)
            raise
        asyncio.get_running_loop().add_reader(self._descriptor, self._heard)

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._descriptor, 4096)
        self._on_ring()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        with suppress(OSError):
            os.unlink(self._path)


def ring(folder: Path, name: str) -> bool:
    """Wake the owner of the bell `name`; False when it is dead."""
    descriptor = _open(folder, name)
    if descriptor is None:
        return False
    try:
        # A full pipe is a bell that rings already.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, b"\0")
    finally:
        os.close(descriptor)
    return True


def alive(folder: Path, name: str) -> bool:
    """Whether the owner of the bell `name` lives."""
    descriptor = _open(folder, name)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def remove(folder: Path, name: str) -> None:
    """Take away the bell of a dead owner."""
    with suppress(OSError):
        os.unlink(folder / name)


def _open(folder: Path, name: str) -> int | None:
    try:
        return os.open(folder / name, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        # ENXIO: a pipe without a reader.
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return None
        raise
