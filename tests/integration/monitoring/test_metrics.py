"""Values of metrics come in, and are reported with what instances measure."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.monitoring.watched import Watching, watching

from foretell.kit.clock import now


@pytest.fixture
async def service(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[Watching]:
    async with watching(monitoring_database_url, tmp_path) as service:
        yield service


def value(number: Any = 1.5, **changes: Any) -> dict[str, Any]:
    return {"service": "shop", "metric_name": "sales", "value": number, "timestamp": now().isoformat()} | changes


async def test_values_are_recorded_and_reported_even_when_a_name_comes_again(service: Watching) -> None:
    at = now() - timedelta(minutes=1)
    answer = await service.client.post("/metrics", json=value(1, timestamp=at.isoformat()))
    assert (answer.status_code, answer.json()) == (200, {"status": "recorded"})
    more = [
        value(3),
        value(2, timestamp=(at + timedelta(seconds=1)).isoformat()),
        value(-4.25, service="bank", metric_name="x"),
    ]
    assert (await service.client.post("/metrics", json=more)).json() == {"status": "recorded"}
    report = await service.get("/reports/metrics", service="shop")
    assert list(report) == ["shop"]
    assert [(each["metric"], each["value"]) for each in report["shop"]] == [("sales", 1), ("sales", 2), ("sales", 3)]
    assert set(await service.get("/reports/metrics")) == {"shop", "bank"}
    assert [each["value"] for each in (await service.get("/reports/metrics", limit=2))["shop"]] == [2, 3]
    assert await service.get("/reports/metrics", service="nobody") == {"nobody": []}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"value": "1"}, "#/value"),
        ({"value": None}, "#/value"),
        ({"value": True}, "#/value"),
        ({"service": ""}, "#/service"),
        ({"metric_name": "a\nb"}, "#/metric_name"),
        ({"metric_name": "a\0"}, "#/metric_name"),
        ({"timestamp": "soon"}, "#/timestamp"),
        ({"timestamp": (now() + timedelta(hours=6)).isoformat()}, "#/timestamp"),
    ],
)
async def test_a_value_that_does_not_fit_is_refused_by_its_field(
    service: Watching, change: dict[str, Any], pointer: str
) -> None:
    answer = await service.client.post("/metrics", json=value(**change))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    answer = await service.client.post("/metrics", json=[value(), value(**change)])
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer.replace("#", "#/1"))
    assert await service.get("/reports/metrics") == {}


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"-1e999", b"1" + b"0" * 400])
async def test_a_value_that_is_no_finite_number_is_refused(service: Watching, number: bytes) -> None:
    body = b'{"service":"a","metric_name":"b","timestamp":"2025-01-01T00:00:00Z","value":' + number + b"}"
    answer = await service.client.post("/metrics", content=body)
    assert answer.status_code == 422


async def test_the_same_path_shows_prometheus_what_the_service_itself_measures(service: Watching) -> None:
    await service.client.post("/metrics", json=value())
    answer = await service.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "foretell_monitoring_samples_stored_total" in answer.text
    assert (await service.client.delete("/metrics")).status_code == 405


async def test_what_running_instances_measure_stands_beside_it(service: Watching) -> None:
    await service.client.post("/metrics", json=value(7, service="ml_worker"))
    beat = {
        "service": "ml_worker",
        "instance": "worker-1",
        "version": "1",
        "started_at": (now() - timedelta(minutes=1)).isoformat(),
        "at": now().isoformat(),
        "health": {"status": "healthy"},
        "pid": 1,
        "hostname": "here",
        "metrics": [
            {"name": "busy", "kind": "gauge", "series": [[{"thread": "1"}, 1.0]]},
            {"name": "run_seconds", "kind": "histogram", "bounds": [0.1], "series": [[{}, 2.5, [3, 1]]]},
        ],
    }
    assert (await service.client.post("/heartbeats", json=beat)).status_code == 200
    found = (await service.get("/reports/metrics", service="ml_worker"))["ml_worker"]
    assert [(each["metric"], each["value"]) for each in found] == [
        ("sales", 7),
        ("busy", 1),
        ("run_seconds_count", 4),
        ("run_seconds_sum", 2.5),
    ]
    assert (found[1]["instance"], found[1]["labels"]) == ("worker-1", {"thread": "1"})
    await service.client.post("/heartbeats", json=beat | {"goodbye": True})
    assert [each["metric"] for each in (await service.get("/reports/metrics"))["ml_worker"]] == ["sales"]
