"""A machine's clock that a test sets, for processes that the test starts: libfaketime."""

import os
import sysconfig
from datetime import timedelta
from pathlib import Path

import pytest

from tests.services_database import missing

_LIBRARY = Path("faketime") / "libfaketimeMT.so.1"


class SetClock:
    """The time of day of all processes that are started with `environment`; the time that passes is the real one."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            # It is set while they run; to look at every call would slow them down.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # What helps programs that hang without it: where Python has threads, waits for its lock become busy loops.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            # The times of files stay what they are.
            "NO_FAKE_STAT": "1",
        }
        self.set_ahead(timedelta())

    def set_ahead(self, by: timedelta) -> None:
        """Put it ahead of the real time by so much, within a second."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{by.total_seconds():+.0f}\n")
        draft.replace(self._file)


@pytest.fixture
def set_clock(tmp_path: Path) -> SetClock:
    """A clock for processes, which is right at first."""
    folders = [
        *(Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder),
        Path("/usr/lib") / str(sysconfig.get_config_var("MULTIARCH")),
    ]
    library = next((folder / _LIBRARY for folder in folders if (folder / _LIBRARY).exists()), None)
    if library is None:
        missing("This test needs libfaketime (Debian: libfaketime).")
    return SetClock(library, tmp_path / "clock")
