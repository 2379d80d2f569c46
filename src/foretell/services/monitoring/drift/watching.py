"""Computes drift periodically: reads new observations, compares them with the references, stores the findings."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import structlog

from foretell.contracts.reports.drift import VersionFinding
from foretell.inference.live import LiveRegistry
from foretell.inference.package import ModelPackage
from foretell.inference.reference import Reference, ReferenceBroken, not_compared, read_reference
from foretell.kit.clock import now
from foretell.kit.pauses import set_within
from foretell.services.monitoring.drift import gauges
from foretell.services.monitoring.drift.findings import find, keep, without_reference
from foretell.services.monitoring.drift.tallies import Tally
from foretell.services.monitoring.storage import observations
from foretell.services.monitoring.storage.database import MonitoringDatabase

log = structlog.get_logger()

#: Observations that are read at once.
_READ_AT_ONCE = 1000

_NONE = "The package has no reference.json: foretell models reference makes one."

Key = tuple[str, str]


class DriftWatch:
    """Computes the drift of all model versions in this service's registry."""

    def __init__(
        self,
        database: MonitoringDatabase,
        registry: LiveRegistry,
        windows_s: Sequence[float],
        *,
        every_s: float = 60.0,
    ) -> None:
        self._every_s = every_s
        self._database = database
        self._registry = registry
        self.windows_s = sorted(set(windows_s))
        #: By the `id()` of the package, which is kept in the value so that the id stays unique.
        self._references: dict[int, tuple[ModelPackage, Reference | None, str]] = {}
        self._tallies: dict[Key, Tally] = {}
        self._statuses: dict[Key, str] = {}
        self._read_until: int | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Compute drift every `every_s` until `stopping` is set."""
        while not stopping.is_set():
            await self.look(now())
            await set_within(stopping, self._every_s)

    async def look(self, moment: datetime) -> list[VersionFinding]:
        """Compute drift once, as of `moment`."""
        # First, since new observations may belong to references that have just been installed.
        await asyncio.to_thread(self._follow_packages)
        await self._read(moment)
        found = await asyncio.to_thread(self._find, moment)
        async with self._database.transaction() as connection:
            await keep(connection, found)
        gauges.show(found)
        self._log_changes(found)
        return found

    def _follow_packages(self) -> None:
        self._registry.refresh_if_told()
        packages = list(self._registry)
        known = self._references
        self._references = {id(each): known.get(id(each)) or _read(each) for each in packages}
        tallies = {}
        for package, reference, _ in self._references.values():
            if reference is not None:
                key = (package.name, package.version)
                tally = self._tallies.get(key)
                # Counts of another reference are in other bins.
                fits = tally is not None and tally.sha256 == reference.sha256
                tallies[key] = tally if tally is not None and fits else Tally(reference, self.windows_s)
        self._tallies = tallies

    async def _read(self, moment: datetime) -> None:
        """Count the observations since the last run; the first time, all of the longest window."""
        async with self._database.snapshot() as connection:
            first, last = await observations.ends(connection, moment - timedelta(seconds=self.windows_s[-1]))
        if self._read_until is None or self._read_until > last:
            # At the start, or after the table was emptied and its ids restarted.
            self._read_until = first - 1
        while self._read_until < last:
            async with self._database.snapshot() as connection:
                bodies = await observations.bodies_after(connection, self._read_until, _READ_AT_ONCE)
            if not bodies:
                return
            await asyncio.to_thread(self._count, [body for _, body in bodies], moment)
            self._read_until = bodies[-1][0]

    def _count(self, bodies: Sequence[bytes], moment: datetime) -> None:
        for body in bodies:
            observation = observations.decode(body)
            tally = self._tallies.get((observation.model, observation.version))
            if tally is not None:
                tally.add(observation, moment)

    def _find(self, moment: datetime) -> list[VersionFinding]:
        found = []
        for package, reference, reason in self._references.values():
            name, version = package.name, package.version
            if reference is None:
                code: Literal["missing", "broken"] = "missing" if reason == _NONE else "broken"
                found.append(without_reference(name, version, code, reason, moment))
            else:
                tally = self._tallies[name, version]
                passed_over = not_compared(reference, package.features_schema, package.output_schema)
                found.append(find(name, version, reference, tally, self.windows_s, moment, passed_over))
        return found

    def _log_changes(self, found: Sequence[VersionFinding]) -> None:
        """Log each version whose status has changed."""
        statuses = {(each.model, each.version): each.status for each in found}
        for each in found:
            before = self._statuses.get((each.model, each.version), "not_enough_data")
            if each.status != before and {before, each.status} & {"shifting", "drifted"}:
                fields = [field.name for field in each.findings if field.status in ("shifting", "drifted")]
                write = log.warning if each.status == "drifted" else log.info
                write("drift_status_changed", model=each.model, version=each.version, status=each.status,
                     before=before, fields=fields)  # fmt: skip
        self._statuses = dict(statuses)


def _read(package: ModelPackage) -> tuple[ModelPackage, Reference | None, str]:
    try:
        return package, read_reference(package.path), _NONE
    except ReferenceBroken as error:
        return package, None, error.message
