"""An installation in production: app, model, preprocessing and monitoring service as processes."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from tests.service_process import ServiceProcess, running_service

PASSWORD = "a password that is long enough"
SERVICES = ("app", "model", "preprocessing", "monitoring")


@dataclass(frozen=True)
class Production:
    """The services by name, and the secrets of whoever runs them."""

    services: dict[str, ServiceProcess]
    secret_key: str
    monitoring_token: str

    def url(self, service: str) -> str:
        return self.services[service].url

    def memory_bytes(self, service: str) -> int:
        return int(psutil.Process(self.services[service].process.pid).memory_info().rss)

    def assert_well(self) -> None:
        """All of them answer, and none has had a failure of its own."""
        for name, service in self.services.items():
            assert httpx.get(f"{service.url}/health/live", timeout=30).status_code == 200, name
            assert service.lines("request_failed") == [], name


@dataclass(frozen=True)
class Account:
    """Somebody who has registered like everybody else."""

    username: str
    refresh_token: str
    client: httpx.Client


@pytest.fixture(scope="package")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    secret_key, token = secrets.token_hex(32), secrets.token_hex(16)
    environment = {
        "FORETELL_ENVIRONMENT": "production",
        "FORETELL_SECRET_KEY": secret_key,
        "FORETELL_MONITORING_TOKEN": token,
    }
    folder = tmp_path_factory.mktemp("production")

    def folder_of(name: str) -> Path:
        place = folder / name
        place.mkdir()
        return place

    with ExitStack() as stack, ThreadPoolExecutor(len(SERVICES)) as threads:
        entered = threads.map(
            lambda name: stack.enter_context(running_service(name, folder_of(name), **environment)), SERVICES
        )
        yield Production(dict(zip(SERVICES, entered, strict=True)), secret_key, token)


@contextmanager
def registered(production: Production, username: str) -> Iterator[Account]:
    with httpx.Client(base_url=production.url("app"), timeout=30) as client:
        client.post("/users", json={"username": username, "password": PASSWORD})
        tokens = client.post("/token", data={"username": username, "password": PASSWORD}).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        yield Account(username, tokens["refresh_token"], client)


@pytest.fixture(scope="package")
def ada(production: Production) -> Iterator[Account]:
    with registered(production, "ada") as account:
        yield account


@pytest.fixture(scope="package")
def mallory(production: Production) -> Iterator[Account]:
    with registered(production, "mallory") as account:
        yield account
