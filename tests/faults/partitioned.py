"""A system whose services are each in a network namespace of their own, and what they say of themselves meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.network import HUB_ADDRESS, Network
from tests.system import Running, System

MONITORING = "monitoring"

#: How often everybody is asked how they are.
_ASK_EVERY_S = 0.25


class PartitionedSystem(System):
    """App, dispatcher and workers on a leg each; the monitoring service, as a server, at the hub."""

    def __init__(
        self, folder: Path, network: Network, *, monitoring_port: int, database_url: str, broker_url: str
    ) -> None:
        self.monitoring_url = f"http://{HUB_ADDRESS}:{monitoring_port}"
        self._network = network
        self._monitoring_port = monitoring_port
        super().__init__(folder, database_url=database_url, broker_url=broker_url)

    def host_of(self, service: str) -> str:
        return self._network.legs[service].address if service in self._network.legs else HUB_ADDRESS

    def network_of(self, service: str) -> str | None:
        return self._network.legs[service].file if service in self._network.legs else None

    def environment(self, service: str, instance: str, port: int) -> Mapping[str, str]:
        environment = super().environment(service, instance, port)
        return environment if service == MONITORING else {**environment, "FORETELL_MONITORING_URL": self.monitoring_url}

    async def start(self, *, workers: int = 3) -> None:
        self.spawn(MONITORING, port=self._monitoring_port)
        await super().start(workers=workers)


@dataclass
class HealthWatch:
    """What every process of a system answers to `GET /health`, all the time."""

    system: System
    timeout_s: float
    #: What fails, as each instance said last.
    failing: dict[str, set[str]] = field(default_factory=dict)
    #: How often somebody did not answer within `timeout_s`.
    unanswered: int = 0
    _stopping: bool = False

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Ask inside the block."""
        self._stopping = False
        tasks = [asyncio.create_task(self._ask_on(running)) for running in self.system.alive()]
        try:
            yield
        finally:
            # Nothing is canceled: a client that is canceled in a request may leave its connection open.
            self._stopping = True
            await asyncio.gather(*tasks)

    async def all_say(self, services: Collection[str], failing: set[str], *, timeout_s: float) -> float:
        """Wait until every process of these services says that exactly this fails; return when that was, monotonic."""
        wanted = [running.instance for running in self.system.alive() if running.service in services]
        async with asyncio.timeout(timeout_s):
            while any(self.failing.get(instance) != failing for instance in wanted):
                await asyncio.sleep(_ASK_EVERY_S / 5)
        return time.monotonic()

    async def _ask_on(self, running: Running) -> None:
        async with httpx.AsyncClient(timeout=self.timeout_s) as client:
            while not self._stopping:
                try:
                    answer = await client.get(f"http://{running.host}:{running.port}/health")
                    self.failing[running.instance] = set(answer.json().get("failing", ()))
                except httpx.TransportError:
                    self.unanswered += 1
                await asyncio.sleep(_ASK_EVERY_S)
