"""Where the temporary files of a run are."""

import os
import tempfile
from pathlib import Path

import pytest
from tests import scratch


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the one in memory, and a process that was told nothing yet."""
    monkeypatch.setattr(scratch, "_MEMORY", tmp_path)
    monkeypatch.setattr(scratch, "_ROOM_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", None)
    # Put back what the test changes itself.
    monkeypatch.setenv("TMPDIR", "")
    del os.environ["TMPDIR"]
    return tmp_path


def test_files_are_in_memory(memory: Path) -> None:
    folder = scratch.use_memory()
    assert folder is not None
    assert folder.parent == memory
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == folder
    assert folder.stat().st_mode & 0o7777 == 0o1777


def test_whoever_names_a_folder_gets_that(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(memory / "elsewhere"))
    assert scratch.use_memory() is None
    assert list(memory.iterdir()) == []


def test_without_room_they_are_where_they_always_are(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_ROOM_BYTES", 1 << 60)
    assert scratch.use_memory() is None
    assert "TMPDIR" not in os.environ


def test_without_such_a_folder_too(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_MEMORY", memory / "missing")
    assert scratch.use_memory() is None


def test_what_a_killed_run_left_is_removed_and_a_running_one_s_is_not(memory: Path) -> None:
    # As great as Linux has none.
    (memory / f"foretell-tests-{1 << 22}1" / "of_a_test").mkdir(parents=True)
    (memory / f"foretell-tests-{os.getpid()}" / "of_who_was_called_so_before").mkdir(parents=True)
    (memory / "foretell-tests-1").mkdir()
    (memory / "foretell-tests-of-somebody").mkdir()
    (memory / "of_somebody_else").mkdir()
    folder = scratch.use_memory()
    assert {each.name for each in memory.iterdir()} == {
        "foretell-tests-1",
        "foretell-tests-of-somebody",
        "of_somebody_else",
        f"foretell-tests-{os.getpid()}",
    }
    assert folder is not None
    assert list(folder.iterdir()) == []
