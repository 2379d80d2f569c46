"""Alerting with a real database and a clock of the test's own, and processes that it hears of."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from foretell.contracts.monitoring import Family, Heartbeat, Series
from foretell.services.monitoring.alerts import store
from foretell.services.monitoring.alerts.channels import Channel
from foretell.services.monitoring.alerts.evaluation import EVALUATE_EVERY_S, Evaluator
from foretell.services.monitoring.alerts.notification_queue import Sender
from foretell.services.monitoring.alerts.rule_files import RuleFile
from foretell.services.monitoring.alerts.store import Notification, StoredAlert
from foretell.services.monitoring.alerts.throttle import Throttle
from foretell.services.monitoring.migrations.run import migrate
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage import instances, snapshots
from foretell.services.monitoring.storage.database import MonitoringDatabase

START = datetime(2026, 5, 1, 12, tzinfo=UTC)

#: Every default rule off but those that a test names.
DEFAULTS = tuple(RuleFile(None).current.rules)


@dataclass
class Process:
    """One that sends heartbeats as long as it is not `silent`."""

    service: str
    instance: str
    started_at: datetime
    status: str = "healthy"
    silent: bool = False
    metrics: dict[str, Family] = field(default_factory=dict)

    def set(self, name: str, value: float, kind: Any = "gauge", **labels: str) -> None:
        """From now on it measures this."""
        others = [each for each in self.metrics[name].series if each.labels != labels] if name in self.metrics else []
        self.metrics[name] = Family(name, kind, [*others, Series(labels, value)])


class Alerting:
    """Evaluator and sender over one database, step by step."""

    def __init__(
        self, database: MonitoringDatabase, rules: Path, channels: Mapping[str, Channel], throttle: Throttle
    ) -> None:
        self.database = database
        self.rules = rules
        self.at = START
        self.processes: list[Process] = []
        self._channels = dict(channels)
        self._throttle = throttle
        self.start()

    def start(self, *, grace_s: float = 0.0) -> None:
        """Start it, or start it anew: what it had in memory is gone."""
        self.sender = Sender(self.database, self._channels, lambda: self.at)
        self.evaluator = Evaluator(
            self.database,
            RuleFile(self.rules),
            self._channels,
            throttle=self._throttle,
            clock=lambda: self.at,
            grace_s=grace_s,
        )

    def process(self, service: str = "dispatcher", instance: str = "d-1") -> Process:
        """A new process."""
        self.processes.append(Process(service, instance, self.at))
        return self.processes[-1]

    async def beat(self, process: Process, *, goodbye: bool = False) -> None:
        """Take a heartbeat of it."""
        heartbeat = Heartbeat(
            service=process.service,
            instance=process.instance,
            version="1",
            started_at=process.started_at,
            at=self.at,
            health={"status": process.status, "service": process.service},
            pid=1,
            hostname="h",
            metrics=list(process.metrics.values()),
            goodbye=goodbye,
        )
        async with self.database.transaction() as connection:
            number = await instances.record(connection, heartbeat, self.at)
            await snapshots.record(connection, number, self.at, heartbeat.metrics)

    async def stop(self, process: Process) -> None:
        """It says goodbye."""
        process.silent = True
        await self.beat(process, goodbye=True)

    async def step(self, seconds: float = EVALUATE_EVERY_S) -> None:
        """Let time pass, hear of everybody, and evaluate."""
        self.at += timedelta(seconds=seconds)
        for process in self.processes:
            if not process.silent:
                await self.beat(process)
        async with self.database.transaction() as connection:
            await instances.mark_missing(connection, self.at)
        await self.evaluator.evaluate()

    async def pass_time(self, seconds: float) -> None:
        """Step after step, as it really goes."""
        for _ in range(int(seconds // EVALUATE_EVERY_S)):
            await self.step()

    async def open(self) -> dict[str, StoredAlert]:
        """The open alerts by rule."""
        async with self.database.snapshot() as connection:
            return {each.alert.rule: each for each in (await store.open_alerts(connection)).values()}

    async def states(self) -> dict[str, str]:
        """The states of the open alerts by rule."""
        return {rule: each.alert.state for rule, each in (await self.open()).items()}

    async def resolved(self) -> list[StoredAlert]:
        """Those that are over, newest first."""
        async with self.database.snapshot() as connection:
            return await store.resolved_alerts(connection, 1000)

    async def waiting(self) -> list[Notification]:
        """The notices that are to be sent."""
        async with self.database.snapshot() as connection:
            return await store.waiting_notifications(connection)

    async def told(self) -> list[list[tuple[str, str, int]]]:
        """What the messages so far say, oldest first: rule, state and changes of each alert."""
        return [
            [(each["rule"], each["state"], each["changes"]) for each in payload["data"]["alerts"]]
            for payload in await self.payloads()
        ]

    async def payloads(self) -> list[dict[str, Any]]:
        """The messages so far that wait to be sent, oldest first."""
        return [msgspec.json.decode(each.body) for each in await self.waiting()]


def only(*names: str, **rules: dict[str, Any]) -> str:
    """A file of rules with no default rules but these, and these rules besides."""
    lines = [f"[{name}]\nenabled = false" for name in DEFAULTS if name not in names and name not in rules]
    for name, fields in rules.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def alerting(
    database_url: str,
    folder: Path,
    rules: str,
    channels: Mapping[str, Channel],
    throttle: Throttle = Throttle(),  # noqa: B008 - frozen
) -> AsyncIterator[Alerting]:
    """Alerting with these rules and an empty database."""
    database = MonitoringDatabase(MonitoringSettings(monitoring_database_url=database_url, data_dir=folder))
    path = folder / "rules.toml"
    path.write_text(rules, encoding="utf-8")
    try:
        await migrate(database)
        yield Alerting(database, path, channels, throttle)
    finally:
        await database.close()
