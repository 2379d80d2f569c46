"""Drift with real processes: what a model service and a worker were asked reaches the report."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.service_process import ServiceProcess, running_service

from foretell.broker.connect import connect
from foretell.contracts import queues
from foretell.contracts.messages import Task, TaskEnvelope, encode
from foretell.kit.clock import now, uuid7

_PATIENCE_S = 60.0

ROW = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}


def drift_of(monitoring: ServiceProcess) -> dict[str, Any]:
    """What the report says of the model's only version; empty before the first look."""
    report = httpx.get(f"{monitoring.url}/reports/drift", params={"model": "flight-delay", "window": "3600"}).json()
    return next(iter(report["versions"]), {})


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.2)


@pytest.fixture
def told(tmp_path: Path) -> dict[str, str]:
    """Settings of all services: they share the folder of data, and with it models and the embedded broker."""
    shared = tmp_path / "shared"
    shared.mkdir()
    return {"FORETELL_DATA_DIR": str(shared), "FORETELL_MONITORING_DRIFT_EVERY_S": "0.5"}


def test_what_a_model_service_was_asked_reaches_the_report(tmp_path: Path, told: dict[str, str]) -> None:
    with running_service("monitoring", tmp_path, **told) as monitoring:
        until(lambda: bool(drift_of(monitoring)))
        assert drift_of(monitoring)["status"] == "not_enough_data"
        with running_service(
            "model", tmp_path, **told, FORETELL_MONITORING_URL=monitoring.url, FORETELL_OBSERVED_ROWS_PER_S="2000"
        ) as model:
            asked = httpx.post(f"{model.url}/models/flight-delay/predict", json={"features": [ROW] * 900}, timeout=30)
            assert asked.status_code == 200
            for _ in range(5):
                assert httpx.post(f"{model.url}/predict", json=ROW).status_code == 200
            until(lambda: drift_of(monitoring)["windows"][0]["passed"] == 905)
        found = drift_of(monitoring)
        (window,) = found["windows"]
        assert window["rows"] == 905
        assert found["status"] == "drifted"
        assert {field["name"] for field in found["findings"] if field["drifted"]} >= {"carrier", "dep_hour", "distance"}
        metrics = httpx.get(f"{monitoring.url}/metrics").text
        assert (
            'foretell_drift_status{feature="carrier",model="flight-delay",version="1.0.0",window="3600"} 2.0' in metrics
        )


async def test_what_a_worker_ran_reaches_the_report_before_it_ends(tmp_path: Path, told: dict[str, str]) -> None:
    with running_service("monitoring", tmp_path, **told) as monitoring:
        until(lambda: bool(drift_of(monitoring)))
        with running_service("worker", tmp_path, **told, FORETELL_MONITORING_URL=monitoring.url) as worker:
            broker = await connect(f"sqlite:///{tmp_path / 'shared' / 'broker.db'}", name="test", prefix="")
            results = await broker.consume(queues.RESULTS, prefetch=1)
            payload = msgspec.Raw(json.dumps(ROW).encode())
            tasks = [Task(uuid7(), "features", payload) for _ in range(200)]
            await broker.publish(
                queues.TASKS, encode(TaskEnvelope("flight-delay", "1.0.0", now(), tasks)), message_id=uuid7().hex
            )
            async with asyncio.timeout(_PATIENCE_S):
                await results.acknowledge(await results.receive(1))
            await results.close()
            await broker.close()
            assert worker.stop() == 0
        # Its goodbye has told what it saw last.
        until(lambda: drift_of(monitoring)["windows"][0]["passed"] == 200)
        assert 0 < drift_of(monitoring)["windows"][0]["rows"] <= 200
