"""How much room is left on a disk. Standard library only: start.py needs it before there are packages."""

import os
from contextlib import suppress
from pathlib import Path

from foretell.kit.errors import ForetellError

#: Less than this is nothing: a database that has to grow finds no room.
FULL_BELOW_BYTES = 1024 * 1024


class DiskFull(ForetellError):
    """The disk of {folder} is full. Make room there: everything goes on by itself."""

    code = "disk_full"
    status = 503


def free_bytes(folder: Path) -> int:
    """Room on the disk of `folder` for those who are not root. Raises `OSError`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def is_full(folder: Path) -> bool:
    """Whether nothing can be written to the disk of `folder`; False where that can't be told."""
    with suppress(OSError):
        return free_bytes(folder) < FULL_BELOW_BYTES
    return False
