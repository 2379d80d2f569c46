"""What a process had in hand is read after its death, whatever killed it."""

import os
import signal
from pathlib import Path

import pytest

from foretell.kit.in_hand import InHand, read


def test_what_runs_and_what_is_loaded_is_read_beside_one_another(tmp_path: Path) -> None:
    file = tmp_path / "worker-1.in-hand"
    assert read(file) == ""
    in_hand = InHand(file)
    assert read(file) == ""
    in_hand.run("churn 2.0.0")
    assert read(file) == "churn 2.0.0"
    with in_hand.loading("sentiment 1.0.0"):
        assert read(file) == "churn 2.0.0, loading sentiment 1.0.0"
        in_hand.run("")
        assert read(file) == "loading sentiment 1.0.0"
    assert read(file) == ""


def test_what_is_too_long_is_cut_and_what_is_unprintable_is_left_out(tmp_path: Path) -> None:
    in_hand = InHand(tmp_path / "file")
    in_hand.run("м" * 300)
    assert set(read(tmp_path / "file")) <= {"м", "\ufffd"}
    in_hand.run("a\nb\x1b[31m")
    assert read(tmp_path / "file") == "ab[31m"


def test_without_a_file_nothing_is_written() -> None:
    in_hand = InHand()
    in_hand.run("churn 2.0.0")
    with pytest.raises(ZeroDivisionError), in_hand.loading("x"):
        _ = 1 / 0


def test_it_outlives_a_kill(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        InHand(tmp_path / "file").run("churn 2.0.0")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert read(tmp_path / "file") == "churn 2.0.0"
