"""Two apps behind nginx are restarted one after the other, again and again, under load: nobody hears of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from tests.name_server import naming
from tests.ports import free_port
from tests.services_nginx import NewNginx, running
from tests.system import FLIGHT, Running, System

_APPS = ("127.0.0.1", "127.0.0.2")
_CLIENTS = 12
_ROUNDS = 3


class Replicas(System):
    """A system whose apps have addresses of their own and one port, as replicas of Compose have."""

    app_host = _APPS[0]

    def host_of(self, service: str) -> str:
        return self.app_host if service == "app" else "127.0.0.1"

    def spawn_at(self, host: str) -> Running:
        """Start an app at an address."""
        self.app_host = host
        return self.spawn("app")

    @asynccontextmanager
    async def replicated(self) -> AsyncIterator[None]:
        """Healthy inside, gone afterwards."""
        try:
            self.spawn_at(_APPS[1])
            self.spawn_at(_APPS[0])
            self.wanted = {"app": 2, "dispatcher": 1, "worker": 1}
            self.replace_missing()
            await self.wait_healthy()
            yield
        finally:
            await self.stop()


class People:
    """Who ask all the time, without a key, and so may be sent to one replica only; and what they hear."""

    def __init__(self, url: str, token: str) -> None:
        self.answers: Counter[str] = Counter()
        self.done = 0
        self._stopping = False
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Inside the block."""
        tasks = [asyncio.create_task(self._go_on(number)) for number in range(_CLIENTS)]
        try:
            yield
        finally:
            # Nothing is canceled: a client that is canceled in a request may leave its connection open.
            self._stopping = True
            await asyncio.gather(*tasks)

    async def _go_on(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=60) as client:
            while not self._stopping:
                order = {"model": "flight-delay", "input": FLIGHT}
                answer = await client.post("/predictions/predict", json=order)
                self.answers[f"POST {answer.status_code} {answer.text[:200] if answer.status_code > 299 else ''}"] += 1
                if number % 3 == 0:
                    answer = await client.get("/balance")
                    self.answers[f"GET {answer.status_code}"] += 1
                self.done += 1
                await asyncio.sleep(0.003)

    async def progress(self, count: int) -> None:
        """Wait until so many more were answered."""
        goal = self.done + count
        async with asyncio.timeout(60):
            while self.done < goal:
                await asyncio.sleep(0.02)


async def test_a_rolling_restart_drops_no_request(new_nginx: NewNginx, tmp_path: Path) -> None:
    system = Replicas(
        tmp_path,
        database_url=f"sqlite:///{tmp_path / 'foretell.db'}",
        broker_url=f"sqlite:///{tmp_path / 'broker.db'}",
        FORETELL_TRUSTED_PROXIES="127.0.0.1",
    )
    system.app_port = free_port()
    with naming({"app.test": list(_APPS)}) as names:
        nginx = new_nginx(APP_UPSTREAM=f"app.test:{system.app_port}", NGINX_RESOLVER=names.address, NGINX_RATE="0")
        async with system.replicated():
            _, token = await system.new_user()
            with running(nginx):
                people = People(nginx.url, token)
                async with people.asking():
                    await people.progress(100)
                    for _ in range(_ROUNDS):
                        for host in _APPS:
                            (stopping,) = [each for each in system.alive("app") if each.host == host]
                            assert await system.end([stopping]) == [0]
                            await people.progress(50)
                            system.spawn_at(host)
                            await system.wait_healthy()
                            await people.progress(100)
            assert set(people.answers) == {"POST 202 ", "GET 200"}, nginx.said()
            await system.drain()
            assert await system.audit() == []
