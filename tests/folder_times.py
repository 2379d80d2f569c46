"""What each folder of tests took, at the end of a run that asks for durations (`--durations`)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest


@dataclass
class _Folder:
    tests: int = 0
    seconds: float = 0.0


def table(reports: Iterable[pytest.TestReport]) -> list[str]:
    """A line for each folder, the slowest first, no deeper than `tests/unit/kit`; set-up and teardown count, too."""
    folders: defaultdict[str, _Folder] = defaultdict(_Folder)
    for report in reports:
        parts = PurePosixPath(report.nodeid.partition("::")[0]).parent.parts[:3]
        folder = folders["/".join(parts)]
        folder.tests += report.when == "setup"
        folder.seconds += report.duration
    slowest_first = sorted(folders.items(), key=lambda each: each[1].seconds, reverse=True)
    return [f"{folder.seconds:8.1f} s {folder.tests:6} tests  {name}" for name, folder in slowest_first]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("durations") is None:
        return
    terminalreporter.section("what each folder took, added up over the workers")
    reports = [each for some in terminalreporter.stats.values() for each in some if isinstance(each, pytest.TestReport)]
    for line in table(reports):
        terminalreporter.write_line(line)
