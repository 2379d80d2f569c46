"""Watches the free space of the folders of this process's embedded databases and broker."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from foretell.kit.disk import DiskFull, free_bytes, is_full


class Folders(Collector):
    """Watches the free space of folders in which this process writes."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._folders: dict[Path, int] = {}
        registry.register(self)

    def watch(self, folder: Path) -> None:
        """Watch it, until `forget` has been called as many times."""
        self._folders[folder] = self._folders.get(folder, 0) + 1

    def forget(self, folder: Path) -> None:
        """Stop watching it."""
        left = self._folders.get(folder, 0) - 1
        if left > 0:
            self._folders[folder] = left
        else:
            self._folders.pop(folder, None)

    def full(self) -> Path | None:
        """A folder whose disk is full, or None."""
        return next((folder for folder in list(self._folders) if is_full(folder)), None)

    async def check(self) -> None:
        """Raises `DiskFull`."""
        folder = self.full()
        if folder is not None:
            raise DiskFull(folder=folder)

    def collect(self) -> Iterator[Metric]:
        """The least free space of all folders; nothing without folders."""
        family = GaugeMetricFamily(
            "foretell_disk_free_bytes", "Room on the disk of the embedded database or broker; the least of several."
        )
        found = []
        for folder in list(self._folders):
            with suppress(OSError):
                found.append(free_bytes(folder))
        if found:
            family.add_metric([], min(found))
        yield family

    def describe(self) -> Iterator[Metric]:
        """Its name."""
        return self.collect()


#: Those of this process.
FOLDERS = Folders()
