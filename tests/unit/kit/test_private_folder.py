"""Nobody else on the machine reads an installation's folder, nor what stood in it before."""

import os
from pathlib import Path

from foretell.kit.private_folder import keep_private


def mode(place: Path) -> int:
    return place.stat().st_mode & 0o777


def test_a_new_folder_is_its_owners(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    keep_private(folder)
    assert mode(folder) == 0o700


def test_what_exists_becomes_so(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("logs", "run", "models/mine"):
        (folder / name).mkdir(parents=True)
        os.chmod(folder / name, 0o755)
    os.chmod(folder, 0o755)
    files = [
        folder / name
        for name in ("foretell.db", "foretell.db-wal", "secret_key", "bot_secret", "logs/app.log", "run/state")
    ]
    for file in files:
        file.write_text("somebody's")
        os.chmod(file, 0o644)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("not ours")
    os.chmod(elsewhere, 0o644)
    (folder / "logs" / "link").symlink_to(elsewhere)
    keep_private(folder)
    assert {mode(place) for place in (folder, folder / "logs", folder / "run")} == {0o700}
    assert {mode(file) for file in files} == {0o600}
    assert mode(elsewhere) == 0o644
    keep_private(folder)


def test_a_folder_that_was_only_named_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    os.chmod(tmp_path, 0o755)
    keep_private(tmp_path)
    assert mode(tmp_path) == 0o755
