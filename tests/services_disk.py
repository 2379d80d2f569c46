"""A small disk for tests that fill it."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services_database import missing


class SmallDisk:
    """A file system of its own in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("ab", buffering=0) as stream:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while stream.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def make_room(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 64 MiB. To mount it takes root, with the capability for that in a container."""
    folder = tmp_path / f"disk-{secrets.token_hex(4)}"
    folder.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounting.returncode:
        missing(f"This test mounts a small disk, which takes root: {mounting.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: whatever still has a file open there is about to end.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
