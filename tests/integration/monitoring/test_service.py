"""The service as a whole: who may come in, its page, its way up and down, and what it promises when things go wrong."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from structlog.testing import capture_logs
from tests.integration.monitoring.watched import Watching, watching
from tests.service_process import ServiceProcess, running_service
from tests.services_database import PrivatePostgresql

from foretell.kit.clock import now
from foretell.services.monitoring.app import build, parts_of
from foretell.services.monitoring.migrations.run import migrate
from foretell.services.monitoring.parts import Surroundings
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase

TOKEN = "a-token-of-some-length"


@pytest.fixture
async def service(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[Watching]:
    async with watching(monitoring_database_url, tmp_path) as service:
        yield service


def record(message: str = "it happened") -> dict[str, Any]:
    return {"service": "shop", "level": "INFO", "message": message, "timestamp": now().isoformat()}


async def test_health_names_the_service_and_asks_its_database(service: Watching) -> None:
    answer = (await service.client.get("/health")).json()
    assert (answer["status"], answer["service"]) == ("healthy", "monitoring_service")
    for path in ("/health/live", "/health/ready", "/metrics", "/docs"):
        assert (await service.client.get(path)).status_code == 200
    assert (await service.client.get("/nowhere")).status_code == 404


async def test_every_example_of_the_page_is_taken_and_every_answer_fits_it(service: Watching) -> None:
    page: dict[str, Any] = (await service.client.get("/openapi.json")).json()
    assert set(page["paths"]) >= {"/logs", "/metrics", "/heartbeats", "/reports/logs", "/reports/metrics"}
    components = {"components": page["components"]}
    for path in ("/logs", "/metrics", "/heartbeats"):
        operation = page["paths"][path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert content["examples"]
        for example in content["examples"].values():
            jsonschema_rs.Draft202012Validator(content["schema"] | components).validate(example["value"])
            answer = await service.client.post(path, json=example["value"])
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema_rs.Draft202012Validator(schema | components).validate(answer.json())
    for path in ("/reports/logs", "/reports/metrics"):
        schema = page["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        found = (await service.client.get(path)).json()
        assert found
        jsonschema_rs.Draft202012Validator(schema | components).validate(found)


async def test_every_route_stands_on_the_page(service: Watching, tmp_path: Path) -> None:
    surroundings = Surroundings(MonitoringSettings(data_dir=tmp_path), service.database, "monitoring-1")
    routes = {(route.path, route.method.lower()) for part in parts_of(surroundings) for route in part.routes}
    page = (await service.client.get("/openapi.json")).json()
    told = {(path, method) for path, operations in page["paths"].items() for method in operations}
    assert routes - told == set()


async def test_with_a_token_only_health_and_the_page_are_open(tmp_path: Path) -> None:
    settings = MonitoringSettings(data_dir=tmp_path, monitoring_token=TOKEN)
    database = MonitoringDatabase(settings)
    try:
        await migrate(database)
        surroundings = Surroundings(settings, database, "monitoring-1")
        transport = httpx.ASGITransport(build(parts_of(surroundings), surroundings))
        async with httpx.AsyncClient(transport=transport, base_url="http://monitoring") as client:
            for path in ("/health", "/health/live", "/health/ready", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
                assert (await client.get(path)).status_code == 200, path
            wrong = ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer ü".encode())
            for path in ("/metrics", "/reports/logs", "/reports/logs.jsonl", "/nowhere", "/healthy", "/docsx"):
                for header in wrong:
                    answer = await client.get(path, headers={"Authorization": header})
                    assert (answer.status_code, answer.json()["code"]) == (401, "monitoring_token_needed"), path
                    assert answer.headers["www-authenticate"].startswith("Bearer")
            with capture_logs() as lines:
                assert (await client.post("/logs", json=record())).status_code == 401
                await client.get("/docs/start.js")
            # Of a sender with a wrong token, the log says what it sent.
            assert [line["route"] for line in lines] == ["/logs", "/docs/{file}"]
            client.headers["Authorization"] = f"bearer {TOKEN}"
            assert (await client.post("/logs", json=record())).status_code == 200
            assert len((await client.get("/reports/logs")).json()) == 1
            assert (await client.get("/openapi.json")).json()["security"] == [{"token": []}]
    finally:
        await database.close()


async def test_when_too_much_waits_senders_are_told_to_come_back(tmp_path: Path, fresh_postgresql: str) -> None:
    settings = MonitoringSettings(
        data_dir=tmp_path,
        monitoring_max_body_bytes=100_000,
        monitoring_max_waiting_bytes=100_000,
        monitoring_database_url=fresh_postgresql,
    )
    database = MonitoringDatabase(settings)
    try:
        await migrate(database)
        surroundings = Surroundings(settings, database, "monitoring-1")
        transport = httpx.ASGITransport(build(parts_of(surroundings), surroundings))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8003") as client:
            hold = asyncio.Event()
            reading = asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                yield b"["
                reading.set()
                await hold.wait()
                yield b"]"

            body = json.dumps([record("x" * 60_000)]).encode()
            held = asyncio.create_task(client.post("/logs", content=slow(), headers={"Content-Length": "90000"}))
            await reading.wait()
            refused = await client.post("/logs", content=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            hold.set()
            assert (await held).status_code == 200
            assert (await client.post("/logs", content=body)).status_code == 200
    finally:
        await database.close()


async def test_a_full_disk_is_a_503_and_over_when_there_is_room_again(tmp_path: Path) -> None:
    async with watching(f"sqlite:///{tmp_path / 'full.db'}", tmp_path) as service:
        assert (await service.client.post("/logs", json=record())).status_code == 200
        await service.database.driver.run(lambda connection: connection.execute("PRAGMA max_page_count=1"))  # type: ignore[union-attr, arg-type, return-value, attr-defined]
        large = [record("x" * 10_000) for _ in range(100)]
        answer = await service.client.post("/logs", json=large)
        assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
        assert "retry-after" in answer.headers
        assert len(await service.get("/reports/logs")) == 1
        await service.database.driver.run(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))  # type: ignore[union-attr, arg-type, return-value, attr-defined]
        assert (await service.client.post("/logs", json=large)).status_code == 200
        assert len(await service.get("/reports/logs", limit=1_000)) == 101


def started(folder: Path, url: str) -> Any:
    return running_service("monitoring", folder, FORETELL_MONITORING_DATABASE_URL=url)


def stored(service: ServiceProcess) -> list[str]:
    answer = httpx.get(f"{service.url}/reports/logs", params={"limit": 10_000})
    return [each["message"] for each in answer.json()]


def test_it_comes_up_goes_down_and_remembers(empty_database_url: str, tmp_path: Path) -> None:
    with started(tmp_path, empty_database_url) as service:
        assert httpx.post(f"{service.url}/logs", json=record("one")).status_code == 200
        assert service.stop() == 0
    with started(tmp_path, empty_database_url) as service:
        assert stored(service) == ["one"]
        # What a start does not need is not loaded.
        maps = Path(f"/proc/{service.process.pid}/maps")
        assert not maps.exists() or "/scipy/" not in maps.read_text()
        assert service.stop() == 0
        assert [each for each in service.lines("request_finished") if each.get("route") == "/logs"] == []


def test_what_was_answered_is_there_after_a_kill(empty_database_url: str, tmp_path: Path) -> None:
    answered: list[str] = []
    with started(tmp_path, empty_database_url) as service:

        def send(sender: int) -> None:
            with httpx.Client(base_url=service.url) as client:
                for number in range(100_000):
                    names = [f"{sender}-{number}-{each}" for each in range(20)]
                    try:
                        answer = client.post("/logs", json=[record(name) for name in names])
                    except httpx.TransportError:
                        return
                    if answer.status_code == 200:
                        answered.extend(names)

        senders = [threading.Thread(target=send, args=(sender,)) for sender in range(3)]
        for each in senders:
            each.start()
        end = time.monotonic() + 60
        while len(answered) < 1_000 and time.monotonic() < end:
            time.sleep(0.01)
        service.process.kill()
        for each in senders:
            each.join()
    assert len(answered) >= 1_000
    with started(tmp_path, empty_database_url) as service:
        found: set[str] = set()
        url = "/reports/logs?limit=10000"
        while url:
            answer = httpx.get(service.url + url)
            found.update(each["message"] for each in answer.json())
            url = answer.links.get("next", {}).get("url", "")
    assert set(answered) - found == set()


def test_a_database_that_is_away_is_a_503_and_then_all_is_well_again(
    private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    with started(tmp_path, private_postgresql.url) as service:
        assert httpx.post(f"{service.url}/logs", json=record("one")).status_code == 200
        # In order: a server that is killed may lose the commits of its last moments here, as after a power cut.
        private_postgresql.stop()
        answers = [httpx.post(f"{service.url}/logs", json=record("lost"), timeout=30) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert httpx.get(f"{service.url}/reports/logs", timeout=30).status_code == 503
        assert httpx.get(f"{service.url}/health", timeout=30).status_code == 503
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        private_postgresql.start()
        end = time.monotonic() + 30
        while httpx.post(f"{service.url}/logs", json=record("two"), timeout=30).status_code != 200:
            assert time.monotonic() < end
        assert stored(service) == ["one", "two"]
        assert service.stop() == 0


def test_it_starts_without_its_database_and_takes_records_once_that_is_there(
    private_postgresql: PrivatePostgresql, tmp_path: Path
) -> None:
    private_postgresql.stop()
    log = tmp_path / "later"
    log.mkdir()

    def bring_back() -> None:
        while not (log / "monitoring.log").exists() or "service_listening" not in (log / "monitoring.log").read_text():
            time.sleep(0.05)
        private_postgresql.start()

    bringing = threading.Thread(target=bring_back)
    bringing.start()
    with started(log, private_postgresql.url) as service:
        bringing.join()
        assert httpx.post(f"{service.url}/logs", json=record("one")).status_code == 200
        assert service.stop() == 0
