"""A real Prometheus with the configuration that ships, beside a whole system: every query of ours finds something.

A query that is wrong (a label that is not there, a metric that was renamed) fails nowhere by itself: it shows nothing.
"""

import asyncio
import math
import random
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.deployed import DASHBOARDS, PROMETHEUS, alert_rules, dashboard, queries
from tests.faults.faulty_model import CRASHES, NAME, flight, write_faulty_model
from tests.ports import free_port
from tests.services_prometheus import PrivatePrometheus
from tests.system import System

from foretell.inference.registry import shipped_folder

_PATIENCE_S = 90.0
_WINDOW = "30s"
_SERVICES = {"app", "dispatcher", "ml_worker", "model_service", "preprocessing_service", "monitoring_service"}

Start = Callable[[Path, int], PrivatePrometheus]


def _write_models(folder: Path) -> None:
    """A model that kills, and a version of a good one that runs as its shadow."""
    write_faulty_model(folder)
    shadow = folder / "flight-delay-shadow"
    shutil.copytree(shipped_folder() / "flight_delay", shadow, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = shadow / "model.toml"
    manifest.write_text(manifest.read_text().replace('version = "1.0.0"', 'version = "1.0.1"'))
    (folder / "traffic.toml").write_text('[flight-delay]\ndefault = "1.0.0"\nshadow = ["1.0.1"]\n')


@asynccontextmanager
async def _whole_system(folder: Path, token: str) -> AsyncIterator[tuple[System, Mapping[str, int]]]:
    """Every service that there is, and the ports of those that answer questions."""
    ports = {service: free_port() for service in ("model", "preprocessing", "monitoring")}
    _write_models(folder / "models")
    system = System(
        folder,
        database_url=f"sqlite:///{folder / 'foretell.db'}",
        broker_url=f"sqlite:///{folder / 'broker.db'}",
        FORETELL_MODELS_DIR=str(folder / "models"),
        FORETELL_MONITORING_URL=f"http://127.0.0.1:{ports['monitoring']}",
        FORETELL_MONITORING_TOKEN=token,
        FORETELL_SWEEP_INTERVAL_S="0.25",
        FORETELL_FIGURES_INTERVAL_S="0.5",
        FORETELL_AUDIT_INTERVAL_S="2",
        FORETELL_MONITORING_DRIFT_EVERY_S="1",
    )
    for service, port in ports.items():
        system.spawn(service, port=port)
    async with system.running(workers=2):
        yield system, ports


def _configure(folder: Path, *, monitoring_port: int, own_port: int, token: str) -> Path:
    """The configuration that ships, at our addresses and with a scrape a second."""
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    (folder / "monitoring-token").write_text(token)
    text = (PROMETHEUS / "prometheus.yml").read_text()
    for ours, theirs in {
        "http://127.0.0.1:8003": f"http://127.0.0.1:{monitoring_port}",
        "127.0.0.1:9090": f"127.0.0.1:{own_port}",
        "interval: 10s": "interval: 1s",
    }.items():
        assert ours in text
        text = text.replace(ours, theirs)
    configuration = folder / "prometheus.yml"
    configuration.write_text(text)
    return configuration


class Load:
    """People who go on asking for predictions, in every way that there is."""

    def __init__(self, system: System, ports: Mapping[str, int], token: str) -> None:
        self._system = system
        self._ports = ports
        self._token = token
        self.stopping = False

    async def go_on(self) -> None:
        """Until `stopping` is set."""
        chance = random.Random(1)
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self._token}"}, timeout=30) as client:
            while not self.stopping:
                await asyncio.gather(*(self._ask(client, chance) for _ in range(20)))
                await asyncio.sleep(0.2)

    async def _ask(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        row = {
            "carrier": chance.choice(["AA", "UA", "DL"]),
            "departure_time": f"{chance.randrange(24):02d}:15",
            "distance_miles": chance.randrange(100, 2500),
            "weather_code": chance.randrange(1, 5),
        }
        orders = f"{self._system.url}/predictions/predict"
        # Workers die meanwhile; a client that gets no answer goes on.
        with suppress(httpx.TransportError):
            await client.post(orders, json={"model": "flight-delay", "input": row})
            answer = await client.post(f"http://127.0.0.1:{self._ports['preprocessing']}/preprocess", json=row)
            await client.post(f"http://127.0.0.1:{self._ports['model']}/predict", json=answer.json())

    async def kill_a_worker(self) -> None:
        """Ask for something that no worker survives, until it is given up."""
        headers = {"Authorization": f"Bearer {self._token}", "Prefer": "wait=60"}
        order = {"model": NAME, "input": flight(CRASHES)}
        async with httpx.AsyncClient(headers=headers, timeout=90) as client:
            answer = await client.post(f"{self._system.url}/predictions/predict", json=order)
        assert answer.json()["error"]["code"] == "undeliverable", answer.text


class Asked:
    """Questions to Prometheus."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def value(self, expression: str) -> list[float]:
        """The values of an expression at this moment; raises when it can't be read."""
        answer = await self._client.get("/api/v1/query", params={"query": expression})
        body: dict[str, Any] = answer.json()
        assert body["status"] == "success", f"{expression}: {body.get('error')}"
        return [float(series["value"][1]) for series in body["data"]["result"]]

    async def has_data(self, expression: str) -> bool:
        """Whether there is at least one number."""
        return any(math.isfinite(value) for value in await self.value(expression))

    async def instances(self) -> dict[str, str]:
        """The instances that are scraped, and how that went."""
        answer = await self._client.get("/api/v1/targets", params={"state": "active"})
        targets = [each for each in answer.json()["data"]["activeTargets"] if each["labels"]["job"] == "foretell"]
        return {each["labels"]["instance"]: each["health"] for each in targets}

    async def label_values(self, definition: str) -> list[str]:
        """What a variable of a dashboard offers: `label_values(SERIES, LABEL)`."""
        read = re.fullmatch(r"label_values\((.+), (\w+)\)", definition)
        assert read is not None, definition
        answer = await self._client.get(f"/api/v1/label/{read[2]}/values", params={"match[]": read[1]})
        values: list[str] = answer.json()["data"]
        return values


async def _until_each_has_data(asked: Asked, expressions: Mapping[str, str]) -> dict[str, str]:
    """Those that have none yet when patience is over."""
    empty = dict(expressions)
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while empty:
                empty = {where: each for where, each in empty.items() if not await asked.has_data(each)}
                await asyncio.sleep(1)
    return empty


# Many processes, and a machine may be busy.
@pytest.mark.timeout(600)
async def test_every_query_of_ours_finds_something(tmp_path: Path, start_prometheus: Start) -> None:
    token, own_port = secrets.token_hex(16), free_port()
    async with _whole_system(tmp_path, token) as (system, ports):
        place = tmp_path / "prometheus"
        place.mkdir()
        configuration = _configure(place, monitoring_port=ports["monitoring"], own_port=own_port, token=token)
        server = await asyncio.to_thread(start_prometheus, configuration, own_port)
        _, user_token = await system.new_user()
        load = Load(system, ports, user_token)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            asked = Asked(client)
            asking = asyncio.create_task(load.go_on())
            try:
                async with system.supervised():
                    await load.kill_a_worker()
                empty = await _until_each_has_data(asked, {each.where: each.expression for each in queries(_WINDOW)})
                assert not asking.done(), asking.exception()
                assert empty == {}
                for rule in alert_rules():
                    await asked.value(rule["expr"])
                for variable in (one for place in DASHBOARDS for one in dashboard(place)["templating"]["list"]):
                    if variable["type"] == "query":
                        assert len(await asked.label_values(variable["definition"])) > 1, variable["name"]
            finally:
                # Nothing is canceled: a client that is canceled in a request may leave its connection open.
                load.stopping = True
                await asking
            await _scrapes_who_is_there(asked, system)
            await system.drain()
            await _agrees_with_the_database(asked, system)


async def _scrapes_who_is_there(asked: Asked, system: System) -> None:
    """Everybody who runs, and nobody who died."""
    running = {each.instance: "up" for each in system.alive()}
    found: dict[str, str] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while (found := await asked.instances()) != running:
                await asyncio.sleep(0.5)
    assert found == running
    # Series of the dead go with their processes, at the next scrape.
    async with asyncio.timeout(_PATIENCE_S):
        for service in _SERVICES:
            while await asked.value(f'min(up{{job="foretell", service="{service}"}})') != [1.0]:
                await asyncio.sleep(0.5)
        while await asked.value("count(foretell_worker_busy)") != [len(system.alive("worker"))]:
            await asyncio.sleep(0.5)


async def _agrees_with_the_database(asked: Asked, system: System) -> None:
    """What Prometheus says in the end is what stands in the books."""
    succeeded = await system.count("succeeded")
    assert succeeded > 0
    expected = {
        "sum(foretell_predictions_accepted_total)": await system.count(),
        'sum(foretell_predictions_settled_total{status="succeeded"})': succeeded,
        'sum(foretell_predictions_settled_total{status="failed", code="undeliverable"})': await system.count("failed"),
        "sum(max by (model, day) (foretell_revenue_predictions))": succeeded,
        # A credit each.
        "sum(max by (model, day) (foretell_revenue_credits))": succeeded,
        "max(foretell_queued_predictions)": 0,
        "max(foretell_held_credits)": 0,
        "sum(foretell_prediction_duration_seconds_count)": succeeded,
        "max(foretell_ledger_findings)": 0,
    }
    differing: dict[str, object] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while differing := {
                each: found for each, want in expected.items() if (found := await asked.value(each)) != [want]
            }:
                await asyncio.sleep(0.5)
    assert differing == {}, expected
