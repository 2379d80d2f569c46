"""Everything of ours behind nginx, two of each where there may be two: any one process dies under load."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faults.callers import REQUEST_TIMEOUT_S, Callers, new_callers
from tests.faults.connection import Connection
from tests.faults.promises import assert_promises_kept
from tests.name_server import naming
from tests.ports import free_port
from tests.services_nginx import NewNginx, running
from tests.services_system import Backends
from tests.system import FLIGHT, Running, System

pytestmark = pytest.mark.faults

_HOSTS = ("127.0.0.1", "127.0.0.2")
#: Services that nginx knows by one port and by the addresses of their replicas, as in Compose.
_BEHIND_NGINX = ("app", "model", "preprocessing")
_CLIENTS = 4
#: So long after a death, everything answers again, however busy the machine is.
_SERVING_AGAIN_S = 60.0
_ROW = {"carrier": "EV", "dep_hour": 19, "distance": 229.0, "weather_delay": 30.0}


class Replicas(System):
    """A system in which a process that is started takes the address that another one of its kind left."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.ports = {service: free_port() for service in (*_BEHIND_NGINX, "monitoring")}
        self.door = ""
        self._hosts: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where nginx answers."""
        return self.door

    def host_of(self, service: str) -> str:
        return self._hosts.get(service, _HOSTS[0])

    def environment(self, service: str, instance: str, port: int) -> Mapping[str, str]:
        monitoring = {"FORETELL_MONITORING_URL": f"http://{_HOSTS[0]}:{self.ports['monitoring']}"}
        return {**super().environment(service, instance, port), **monitoring}

    def spawn(self, service: str, *, port: int | None = None) -> Running:
        if service in _BEHIND_NGINX:
            taken = {running.host for running in self.alive(service)}
            self._hosts[service] = next(host for host in _HOSTS if host not in taken)
        return super().spawn(service, port=port or self.ports.get(service))


class Askers:
    """Clients of a service that only computes; one that gets no answer asks again."""

    def __init__(self, url: str, path: str, body: dict[str, Any]) -> None:
        self.answers: Counter[int | str] = Counter()
        self._url, self._path, self._body = url, path, body
        self._stopping = False

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask inside the block."""
        tasks = [asyncio.create_task(self._go_on()) for _ in range(_CLIENTS)]
        try:
            yield
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def _go_on(self) -> None:
        connection = Connection(self._url, {}, timeout_s=REQUEST_TIMEOUT_S)
        try:
            while not self._stopping:
                try:
                    answer = await connection.post(self._path, self._body, {})
                    self.answers[answer.status_code] += 1
                except httpx.TransportError as error:
                    self.answers[type(error).__name__] += 1
                await asyncio.sleep(0.05)
        finally:
            await connection.close()

    async def progress(self, count: int) -> None:
        """Wait until so many more were answered."""
        goal = self.answers[200] + count
        deadline = time.monotonic() + _SERVING_AGAIN_S
        while self.answers[200] < goal:
            assert time.monotonic() < deadline, f"{self._path} is not answered: {self.answers}"
            await asyncio.sleep(0.02)


async def _all_serve(system: System, callers: Callers, askers: list[Askers]) -> None:
    """Wait until what is asked for from now on is answered, and what is accepted succeeds."""
    await callers.progress(10, timeout_s=_SERVING_AGAIN_S)
    last = list(callers.accepted.values())[-1]
    async with asyncio.timeout(_SERVING_AGAIN_S):
        while (await system.statuses([last])).get(last, ("queued", None))[0] != "succeeded":
            await asyncio.sleep(0.05)
    await asyncio.gather(*(each.progress(10) for each in askers))


@pytest.mark.parametrize("backends", ["servers"], indirect=True)
async def test_any_one_process_dies_behind_nginx(backends: Backends, new_nginx: NewNginx, tmp_path: Path) -> None:
    system = backends.system(tmp_path, Replicas, FORETELL_TRUSTED_PROXIES="127.0.0.1")
    assert isinstance(system, Replicas)
    system.wanted = {"app": 2, "dispatcher": 2, "worker": 2, "model": 2, "preprocessing": 2, "monitoring": 1}
    with naming({f"{service}.test": list(_HOSTS) for service in _BEHIND_NGINX}) as names:
        upstreams = {f"{each.upper()}_UPSTREAM": f"{each}.test:{system.ports[each]}" for each in _BEHIND_NGINX}
        nginx = new_nginx(NGINX_RESOLVER=names.address, NGINX_RATE="0", **upstreams)
        system.door = nginx.url
        try:
            await system.heal()
            with running(nginx):
                callers = await new_callers(system)
                models = Askers(nginx.url, "/model/predict", _ROW)
                features = Askers(nginx.url, "/preprocessing/preprocess", FLIGHT)
                everybody = (system, callers, [models, features])
                async with system.supervised(), callers.calling(_CLIENTS), models.asking(), features.asking():
                    await _all_serve(*everybody)
                    for service in system.wanted:
                        system.kill(system.alive(service)[0])
                        await _all_serve(*everybody)
                        # The next one dies while all others are there.
                        await system.heal()
                    # nginx sent what a dead app had in hand to the other one, by its key. What only computes has no
                    # key: whoever waited for the dead process was told, and nobody else.
                    assert set(callers.answers) <= {200, 202}
                    for each in (models, features):
                        assert set(each.answers) <= {200, 503}
                        assert each.answers[503] <= _CLIENTS
                    nginx.kill_worker()
                    await _all_serve(*everybody)
                ended = await assert_promises_kept(system, callers)
            assert set(ended) == {("succeeded", None)}
            assert callers.slowest_s < REQUEST_TIMEOUT_S
        finally:
            await system.stop()
