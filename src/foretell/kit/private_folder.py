"""Restricts an installation's folder to its owner, since it contains the database, inputs, logs and the secret."""

import os
import stat
from contextlib import suppress
from pathlib import Path

#: Files in the folder of an installation. A folder without any of them may have another purpose, so it is not changed.
_OURS = (
    "*.db",
    "*.db-wal",
    "*.db-shm",
    "secret_key",
    "bot_secret",
    "*.lock",
    "*.pid",
    "run",
    "logs",
    "bells",
    "models",
)
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


def keep_private(folder: Path) -> None:
    """Restrict `folder` (created if necessary) and its files to the owner.

    Files of other users can't be changed and are skipped.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    ours = [found for pattern in _OURS for found in folder.glob(pattern)]
    if not ours and any(folder.iterdir()):
        return
    with suppress(OSError):
        _narrow(folder, _FOLDER_MODE)
        for place in ours:
            if place.name != "models" and not place.is_symlink():
                _narrow_all(place)


def _narrow_all(place: Path) -> None:
    if not place.is_dir():
        _narrow(place, _FILE_MODE)
        return
    _narrow(place, _FOLDER_MODE)
    for inner in place.iterdir():
        if not inner.is_symlink():
            _narrow_all(inner)


def _narrow(place: Path, most: int) -> None:
    """Remove permissions that `most` does not allow; the file may disappear meanwhile."""
    with suppress(FileNotFoundError, PermissionError):
        mode = stat.S_IMODE(place.stat().st_mode)
        if mode & ~most:
            os.chmod(place, mode & most)
