"""The table of times at the end of a run."""

from typing import Literal

import pytest
from tests.folder_times import table


def _report(test: str, when: Literal["setup", "call", "teardown"], duration: float) -> pytest.TestReport:
    return pytest.TestReport(test, (test, None, test), {}, "passed", None, when, duration=duration)


def test_times_are_added_up_for_each_folder_and_the_slowest_comes_first() -> None:
    reports = [
        _report("tests/unit/kit/test_logs.py::test_a", "setup", 0.1),
        _report("tests/unit/kit/test_logs.py::test_a", "call", 0.2),
        _report("tests/unit/kit/deep/test_b.py::test_b[tests/e2e]", "setup", 0.3),
        _report("tests/e2e/test_path.py::test_c", "setup", 7.0),
        _report("tests/e2e/test_path.py::test_c", "call", 50.0),
        _report("tests/e2e/test_path.py::test_c", "teardown", 3.0),
    ]
    assert table(reports) == ["    60.0 s      1 tests  tests/e2e", "     0.6 s      2 tests  tests/unit/kit"]
