"""Free space on a disk. Standard library only: start.py needs it before packages are installed."""

import os
from contextlib import suppress
from pathlib import Path

from foretell.kit.errors import ForetellError

#: With less free space a disk counts as full: a database could not grow.
FULL_BELOW_BYTES = 1024 * 1024


class DiskFull(ForetellError):
    """The disk of {folder} is full. Make room there: everything goes on by itself."""

    code = "disk_full"
    status = 503


def free_bytes(folder: Path) -> int:
    """Free space on the disk of `folder` for users other than root. Raises `OSError`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def is_full(folder: Path) -> bool:
    """Whether the disk of `folder` is full; False if unknown."""
    with suppress(OSError):
        return free_bytes(folder) < FULL_BELOW_BYTES
    return False
