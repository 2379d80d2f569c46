"""What is said when pip fails, from what pip really says."""

import re
import stat
import sys
from pathlib import Path

import pytest

from foretell.local.installing import InstallFailed, install_locked, renew_pip

DEAD_NETWORK = """\
WARNING: Retrying (Retry(total=1, connect=None)) after connection broken by 'NewConnectionError': /simple/httpx/
ERROR: Could not find a version that satisfies the requirement httpx==0.28.1 (from versions: none)
ERROR: No matching distribution found for httpx==0.28.1
"""


def python_that_says(folder: Path, text: str, status: int) -> Path:
    """Something that can be run in place of Python and says what pip would."""
    (folder / "said").write_text(text)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\ncat "{folder}/said"\nexit {status}\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (DEAD_NETWORK, "index can't be reached"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "disk is full"),
        (DEAD_NETWORK + "No space left on device\n", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n", "hash differs"),
        ("ERROR: No matching distribution found for onnxruntime==9\n", "has no package onnxruntime==9"),
        ("SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))\n", "certificate"),
        ("ERROR: Something new\nmore\n", "pip failed: Something new"),
        ("", "it said nothing"),
    ],
)
def test_the_reason_is_one_sentence_and_names_the_log(tmp_path: Path, output: str, sentence: str) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("httpx==0.28.1 \\\n    --hash=sha256:00\n")
    log = tmp_path / "setup.log"
    with pytest.raises(InstallFailed) as caught:
        install_locked(python_that_says(tmp_path, output, 1), lock, log, lambda _: None)
    assert sentence in caught.value.message
    assert str(log) in caught.value.message
    assert log.read_text() == output


def test_progress_counts_what_comes_from_an_index_and_from_files(tmp_path: Path) -> None:
    lines = [f"Collecting package-{number}==1.0" for number in range(10)]
    lines += [f"Processing /mirror/other_{number}-1.0-py3-none-any.whl" for number in range(10)]
    lines += ["Installing collected packages: many"]
    lock = tmp_path / "requirements.lock"
    lock.write_text("".join(f"package{number}==1.0\n" for number in range(20)))
    said: list[str] = []
    python = python_that_says(tmp_path, "\n".join(lines) + "\n", 0)
    install_locked(python, lock, tmp_path / "setup.log", said.append)
    assert said[0] == "Installing 20 packages from requirements.lock …"
    assert said[1:-1] == ["  [10/20] package-9", "  [20/20] other_9", "  unpacking …"]
    assert re.fullmatch(r"  installed, after \d+ s", said[-1])


def test_what_is_installed_is_compiled_and_what_cannot_be_is_left(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "good.py").write_text("answer = 42\n")
    (packages / "of_python_2.py").write_text("print 42\n")
    (packages / "own" / "tests").mkdir(parents=True)
    (packages / "own" / "deep.py").write_text("answer = 42\n")
    (packages / "own" / "tests" / "test_deep.py").write_text("answer = 42\n")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$2" = pip ] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    lock = tmp_path / "requirements.lock"
    lock.write_text("good==1.0\n")
    install_locked(python, lock, tmp_path / "setup.log", lambda _: None)
    assert sorted(file.name.partition(".")[0] for file in packages.rglob("*.pyc")) == ["deep", "good"]


def test_without_a_newer_pip_the_one_that_is_there_goes_on(tmp_path: Path) -> None:
    lock = tmp_path / "requirements-pip.lock"
    lock.write_text("pip==26.3\n")
    log = tmp_path / "setup.log"
    renew_pip(python_that_says(tmp_path, DEAD_NETWORK, 1), lock, log)
    assert log.read_text() == DEAD_NETWORK
