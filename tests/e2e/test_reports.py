"""Real processes tell a real monitoring service of themselves; its reports are right, also after a kill."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service_process import running_service
from tests.system import FLIGHT, System

from foretell.broker.connect import connect
from foretell.contracts import queues
from foretell.kit.clock import uuid7

_PATIENCE_S = 60.0
_CREDITS, _PREDICTIONS = 1000, 40


@dataclass
class Whole:
    """A system and the service that watches it."""

    system: System
    reports: httpx.AsyncClient

    async def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """What a report says, once `holds` is true of it."""
        content: Any = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    answer = await self.reports.get(path)
                    assert answer.status_code == 200, answer.text
                    content = answer.json()
                    if holds(content):
                        return content
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"{path} still says {content}")


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    folder = tmp_path / "system"
    folder.mkdir()
    database_url, broker_url = f"sqlite:///{folder / 'foretell.db'}", f"sqlite:///{folder / 'broker.db'}"
    with running_service("monitoring", tmp_path, FORETELL_BROKER_URL=broker_url) as monitoring:
        system = System(
            folder, database_url=database_url, broker_url=broker_url, FORETELL_MONITORING_URL=monitoring.url
        )
        async with system.running(workers=2), httpx.AsyncClient(base_url=monitoring.url, timeout=30) as reports:
            yield Whole(system, reports)


async def test_from_processes_to_reports(whole: Whole) -> None:
    system = whole.system
    _, token = await system.new_user(credits=_CREDITS)
    async with httpx.AsyncClient(base_url=system.url, headers={"Authorization": f"Bearer {token}"}) as client:
        # Each waits for its result, so that all are settled.
        for _ in range(_PREDICTIONS):
            answer = await client.post(
                "/predictions/predict",
                json={"model": "flight-delay", "input": FLIGHT},
                headers={"Prefer": "wait=30"},
            )
            assert answer.status_code == 200, answer.text
        refused = await client.post("/predictions/predict", json={"model": "flight-delay", "input": {}})
        assert refused.status_code == 422

    health = await whole.until(
        "/reports/health", lambda report: sum(service["healthy"] for service in report["services"]) >= 4
    )
    assert health["status"] == "healthy"
    assert {"app", "dispatcher", "ml_worker"} <= {service["service"] for service in health["services"]}

    # Processes tell of themselves one after the other.
    await whole.until(
        "/reports/throughput?window=1h",
        lambda report: (
            [(model["accepted"], model["tasks"]) for model in report["models"]] == [(_PREDICTIONS, _PREDICTIONS)]
        ),
    )
    latency = await whole.until(
        "/reports/latency?window=1h", lambda report: report["all_predictions"]["count"] == _PREDICTIONS
    )
    assert 0 < latency["all_predictions"]["p50_s"] <= latency["all_predictions"]["p99_s"]
    errors = await whole.until("/reports/errors?window=1h", lambda report: report["requests"]["count_4xx"] == 1)
    assert errors["predictions"]["ended"] == _PREDICTIONS
    revenue = await whole.until("/reports/revenue", lambda report: report["predictions"] == _PREDICTIONS)
    # A flight costs one credit.
    assert revenue["credits"] == _PREDICTIONS

    victim = system.alive("worker")[0]
    system.kill(victim, signal.SIGKILL)
    await whole.until(
        "/reports/workers?window=1h",
        lambda report: {item["id"]: item["state"] for item in report["items"]}[victim.instance] == "missing",
    )
    # What it did is not undone.
    throughput = (await whole.reports.get("/reports/throughput?window=1h")).json()
    assert throughput["models"][0]["tasks"] == _PREDICTIONS
    # Its last word may have been on its way, and have been heard only now.
    targets = await whole.until(
        "/prometheus/targets",
        lambda targets: victim.instance not in {target["labels"]["instance"] for target in targets},
    )
    assert targets
    for target in targets:
        # Prometheus finds what we promise.
        scraped = await whole.reports.get(f"http://{target['targets'][0]}/metrics")
        assert "foretell_service_info" in scraped.text


async def test_garbage_is_found_sent_back_and_discarded(whole: Whole) -> None:
    broker = await connect(whole.system.broker_url, name="test")
    try:
        await broker.ensure_queue(queues.TASKS)
        await broker.publish(queues.TASKS, b"garbage", message_id=uuid7().hex)
        await whole.until("/queues/ml_tasks/dead", lambda dead: len(dead["items"]) == 1)
        moved = await whole.reports.post("/queues/ml_tasks/redrive", json={"limit": 10})
        assert moved.json()["moved"] == 1
        # A worker refused it again.
        await whole.until("/queues/ml_tasks/dead", lambda dead: [item["redriven"] for item in dead["items"]] == [1])
        report = await whole.until(
            "/reports/queues",
            lambda report: {item["queue"]: item["dead_letters"] for item in report["items"]}.get("ml_tasks") == 1,
        )
        assert {item["queue"]: item["ready"] for item in report["items"]} == {"ml_tasks": 0, "ml_results": 0}
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                # The dispatcher may have it in hand at this moment.
                discarded = await whole.reports.delete("/queues/ml_tasks/dead", params={"confirm": 1})
                if discarded.status_code == 200:
                    break
                assert discarded.status_code == 409
        await whole.until("/queues/ml_tasks/dead", lambda dead: dead["count"] == 0)
    finally:
        await broker.close()
