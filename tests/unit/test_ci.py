"""`.ci/run` around a `start.py` that runs a few tests of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PROGRAMS = ("bash", "dirname", "rm", "wc", "env")
_START = "import subprocess, sys\nsys.exit(subprocess.call([sys.executable, '-m', 'pytest', '-q', *sys.argv[2:]]))\n"
_TESTS = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(int(os.environ["FAILING"])))
def test_that_fails_at_first(number):
    with Path("runs").open("a") as runs:
        runs.write(f"{number}\\n")
    assert os.environ["AGAIN"] == "pass" and Path("runs").read_text().count(f"{number}\\n") > 1

def test_that_passes():
    with Path("runs").open("a") as runs:
        runs.write("good\\n")
"""


@pytest.mark.parametrize(
    ("failing", "again", "status", "runs"),
    [(0, "pass", 0, ["good"]), (3, "pass", 0, ["0", "1", "2", "good"]), (3, "fail", 1, []), (4, "pass", 1, [])],
)
def test_a_few_failures_run_once_more(tmp_path: Path, failing: int, again: str, status: int, runs: list[str]) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in _PROGRAMS:
        (programs / name).symlink_to(shutil.which(name) or name)
    # No apt-get among them: nothing is to be installed.
    (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python3").chmod(0o755)
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
    (checkout / "start.py").write_text(_START)
    (checkout / "pytest.ini").write_text("[pytest]\n")
    (checkout / "test_it.py").write_text(_TESTS)
    environment = {"PATH": str(programs), "HOME": str(tmp_path), "FAILING": str(failing), "AGAIN": again}
    done = subprocess.run(
        ["bash", ".ci/run"],
        cwd=checkout,
        env=environment | {name: value for name, value in os.environ.items() if name.startswith("LD_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    if status == 0:
        assert (checkout / "runs").read_text().split()[: len(runs)] == runs
        assert done.stdout.count("passed alone") == (failing > 0)
    assert ("More than three" in done.stderr) == (failing > 3)
