"""Temporary files of a run are in memory where there is room: nothing waits for a disk.

On ext4 a new file took 70 to 180 us of processor time, in memory 7, and a run makes some hundred thousand; a commit of
SQLite took 0.19 ms, and 0.01. No test cuts the power, so none can notice. Set `TMPDIR` to have the files elsewhere
and to keep them.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

_MEMORY = Path("/dev/shm")
#: As much must be free, of the folder and of the machine's memory. A run of everything takes up to 3 GB for files, and
#: 7 for processes.
_ROOM_BYTES = 12 * 1024**3
_PREFIX = "foretell-tests-"


def _has_room(folder: Path) -> bool:
    try:
        system = os.statvfs(folder)
    except OSError:
        return False
    free = min(system.f_bavail * system.f_frsize, psutil.virtual_memory().available)
    # Tests also start what they write; containers often forbid it there.
    return os.access(folder, os.W_OK) and not system.f_flag & os.ST_NOEXEC and free > _ROOM_BYTES


def _remove_forgotten() -> None:
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX)
        # One that has our own identifier is of a process that had it before us.
        if pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def use_memory() -> Path | None:
    """Have temporary files of this process, and of those that it starts, made in memory; returns the folder."""
    if "TMPDIR" in os.environ or not _has_room(_MEMORY):
        return None
    _remove_forgotten()
    folder = _MEMORY / f"{_PREFIX}{os.getpid()}"
    folder.mkdir()
    # As /tmp is: servers of tests run as another user.
    folder.chmod(0o1777)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


# Before any other module asks where temporary files belong. The processes of xdist find it in their environment.
_FOLDER = use_memory()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove all of it; what a process that still ends leaves behind, the next run removes."""
    if _FOLDER is not None:
        shutil.rmtree(_FOLDER, ignore_errors=True)
        del os.environ["TMPDIR"]
        tempfile.tempdir = None
