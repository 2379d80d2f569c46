"""Python files of packages are run as they are now."""

import os
import sys
from pathlib import Path

import pytest

from foretell.inference.code import import_file


def test_a_file_that_changed_within_the_same_second_is_run_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "steps.py"
    found = []
    for value in (1, 2):
        file.write_text(f"VALUE = {value}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        found.append(import_file(file, "package_of_a_test").VALUE)
    assert found == [1, 2]
    # What lies there is no file of the package either.
    assert list(tmp_path.iterdir()) == [file]
