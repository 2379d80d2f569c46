"""Finds the processes of an installation by a mark in their environment, whatever their current parent.

Stored process ids become invalid with every restart, and after a power failure other processes may have them. The mark
is set only for the supervisor, and its children inherit it.
"""

import os
import time
from pathlib import Path

import psutil

#: The variable with the data folder of the engine that started a process.
MARK = "FORETELL_ENGINE_DIR"
_KILL_AFTER_S = 25.0


def installation_of(process: psutil.Process) -> str | None:
    """The data folder of the engine that started this process; None if there is none or it can't be read."""
    try:
        return str(process.environ().get(MARK) or "") or None
    except (psutil.Error, OSError):
        return None


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every running process that the engine of `data_dir` started, supervisors first."""
    found = [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and installation_of(process) == str(data_dir)
    ]
    return sorted(found, key=lambda process: not _is_supervisor(process))


def _is_supervisor(process: psutil.Process) -> bool:
    try:
        return "foretell.local.supervision" in process.cmdline()
    except psutil.Error:
        return False


def end(processes: list[psutil.Process], *, kill_after_s: float = _KILL_AFTER_S) -> None:
    """End them: services first get SIGTERM; a supervisor is killed at once, so that it restarts nothing."""
    for process in processes:
        try:
            if _is_supervisor(process) or kill_after_s == 0:
                process.kill()
            else:
                process.terminate()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(processes, timeout=kill_after_s)
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(alive, timeout=5)


def wait_for_none(data_dir: Path, timeout_s: float) -> list[psutil.Process]:
    """Wait until no process of the installation is left; returns those that are after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while (alive := processes_of(data_dir)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive
