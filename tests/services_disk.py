"""A small disk for tests that fill it."""

import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
    with _mounted(folder, "size=64m") as disk:
        yield disk


@pytest.fixture
def server_disk() -> Iterator[SmallDisk]:
    """A disk of 256 MiB where servers get to that run as somebody else: not below pytest's folder."""
    with tempfile.TemporaryDirectory(prefix="foretell-disk-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with _mounted(Path(folder), "size=256m,mode=755") as disk:
            yield disk


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[SmallDisk]:
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounting.returncode:
        missing(f"This test mounts a small disk, which takes root: {mounting.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: whatever still has a file open there is about to end.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
