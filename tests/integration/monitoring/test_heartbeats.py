"""Heartbeats: who is there, how, since when, and what each one measures and sees."""

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.integration.monitoring.watched import Watching, watching

from foretell.contracts.monitoring import Family, Observation, Observed, Series
from foretell.kit.clock import now
from foretell.services.monitoring.storage import instances, observations, snapshots, tables
from foretell.services.monitoring.storage.instances import Instance


@pytest.fixture
async def service(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[Watching]:
    async with watching(monitoring_database_url, tmp_path) as service:
        yield service


STARTED_AT = now() - timedelta(hours=1)


def beat(**changes: Any) -> dict[str, Any]:
    return {
        "service": "app",
        "instance": "app-1",
        "version": "1.0",
        "started_at": STARTED_AT.isoformat(),
        "at": now().isoformat(),
        "health": {"status": "healthy", "service": "app"},
        "pid": 17,
        "hostname": "here",
    } | changes


async def send(service: Watching, /, **changes: Any) -> None:
    answer = await service.client.post("/heartbeats", json=beat(**changes))
    assert (answer.status_code, answer.json()) == (200, {"status": "recorded"}), answer.text


async def listed(service: Watching, /, **filters: Any) -> list[Instance]:
    async with service.database.snapshot() as connection:
        return await instances.list_instances(connection, **filters)


async def test_an_instance_is_as_it_says_and_since_when_it_changed(service: Watching) -> None:
    await send(service, memory_bytes=1000, cpu_s=1.5, logs_dropped=3, address="127.0.0.1:8000")
    [first] = await listed(service)
    assert (first.state, first.pid, first.memory_bytes, first.cpu_s, first.logs_dropped) == (
        "healthy",
        17,
        1000,
        1.5,
        3,
    )
    assert first.live
    await send(service, memory_bytes=2000)
    [second] = await listed(service)
    assert (second.id, second.memory_bytes, second.state_since) == (first.id, 2000, first.state_since)
    assert second.last_seen_at > first.last_seen_at
    await send(service, health={"status": "unhealthy", "failing": {"database": "away"}})
    [third] = await listed(service)
    assert (third.state, third.health["failing"]) == ("unhealthy", {"database": "away"})
    assert third.state_since > second.state_since


@pytest.mark.parametrize(("hours", "words"), [(6, "ahead of"), (-6, "behind")])
async def test_one_whose_clock_is_wrong_is_there_and_is_told_so(service: Watching, hours: int, words: str) -> None:
    wrong = now() + timedelta(hours=hours)
    seen = {"model": "m", "version": "1", "reference_sha256": "0" * 64, "rows": 1, "passed": 1}
    seen |= {"since": (wrong - timedelta(minutes=1)).isoformat(), "until": wrong.isoformat()}
    seen |= {"features": {}, "outputs": {}}
    metrics = [{"name": "m", "kind": "gauge", "series": [[{}, 1.0]]}]
    started_at = (wrong - timedelta(minutes=5)).isoformat()
    for _ in range(2):
        await send(service, at=wrong.isoformat(), started_at=started_at, metrics=metrics, observations=[seen])
    [instance] = await listed(service)
    assert (instance.state, instance.live) == ("unhealthy", True)
    said = re.match(r"(\d+) s (ahead of|behind)", instance.health["failing"]["clock"])
    assert said is not None
    # Also on a machine on which the test itself takes a while.
    assert int(said[1]) == pytest.approx(6 * 3600, abs=60)
    assert said[2] == words
    near = (now() - timedelta(minutes=2), now() + timedelta(minutes=2))
    async with service.database.snapshot() as connection:
        for column in (tables.snapshots.c.at, tables.observations.c.at):
            for at in (await connection.execute(select(column))).scalars():
                assert near[0] < at < near[1]
    # Set right, it is healthy again.
    await send(service, started_at=started_at)
    assert [each.state for each in await listed(service)] == ["healthy"]


async def test_where_an_instance_is_nobody_else_can_say(service: Watching) -> None:
    # Prometheus is sent to these addresses.
    await send(service, address="10.9.9.9:8000")
    await send(service, instance="app-2", address="nowhere")
    assert [instance.address for instance in await listed(service)] == ["127.0.0.1:8000", ""]


async def test_one_that_says_goodbye_has_stopped_and_a_late_heartbeat_does_not_bring_it_back(service: Watching) -> None:
    await send(service)
    await send(service, goodbye=True)
    await send(service)
    [instance] = await listed(service)
    assert (instance.state, instance.live) == ("stopped", False)
    assert await listed(service, live_only=True) == []


async def test_one_that_starts_again_is_another(service: Watching) -> None:
    await send(service)
    await send(service, started_at=now().isoformat())
    await send(service, service="model_service", instance="model-1")
    assert [each.service for each in await listed(service)] == ["app", "app", "model_service"]
    assert len(await listed(service, service="app")) == 2
    assert await listed(service, seen_since=now() + timedelta(minutes=1)) == []


async def test_one_that_is_silent_is_missing_until_it_is_heard_again(service: Watching) -> None:
    await send(service)
    async with service.database.transaction() as connection:
        assert not await instances.any_silent(connection, now() + timedelta(seconds=14))
        assert await instances.mark_missing(connection, now() + timedelta(seconds=14)) == 0
        assert await instances.any_silent(connection, now() + timedelta(seconds=16))
        assert await instances.mark_missing(connection, now() + timedelta(seconds=16)) == 1
        assert await instances.mark_missing(connection, now() + timedelta(seconds=17)) == 0
    [missing] = await listed(service)
    assert missing.state == "missing"
    await send(service)
    assert [each.state for each in await listed(service)] == ["healthy"]


def counter(value: float) -> list[dict[str, Any]]:
    return [{"name": "requests_total", "kind": "counter", "series": [[{"route": "/a"}, value]]}]


async def test_each_moment_has_one_snapshot_and_the_newest_is_found(service: Watching) -> None:
    begin = now() - timedelta(minutes=30)

    def at(minutes: float) -> datetime:
        return begin + timedelta(minutes=minutes)

    for minutes in (0, 10, 20):
        await send(service, at=at(minutes).isoformat(), metrics=counter(minutes))
    # Again, as after an answer that was lost.
    await send(service, at=at(20).isoformat(), metrics=counter(20))
    async with service.database.snapshot() as connection:
        [newest] = await snapshots.latest(connection)
        assert newest.families == [Family("requests_total", "counter", [Series({"route": "/a"}, 20.0)])]
        kept = await connection.scalars(select(tables.snapshots.c.at).order_by(tables.snapshots.c.at))
        assert list(kept) == [at(0), at(10), at(20)]
    await send(service, goodbye=True)
    async with service.database.snapshot() as connection:
        assert await snapshots.latest(connection) == []
        assert len(await snapshots.latest(connection, live_only=False)) == 1


async def test_observations_come_back_as_they_were(service: Watching) -> None:
    moment = now()
    seen = Observation(
        "m",
        "1",
        "ab",
        moment - timedelta(seconds=5),
        moment,
        3,
        30,
        {"x": Observed([1, 2], missing=1)},
        {"y": Observed([3])},
    )
    await send(service, observations=[_json(seen)])
    async with service.database.snapshot() as connection:
        assert await observations.versions(connection, moment - timedelta(minutes=1)) == [("m", "1")]
        assert await observations.versions(connection, moment + timedelta(minutes=1)) == []
        assert await observations.observed(connection, "m", "1", moment - timedelta(minutes=1), moment) == [seen]
        assert await observations.observed(connection, "m", "1", moment, moment + timedelta(minutes=1)) == []


def _json(value: Any) -> Any:
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(value))


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"service": ""}, "#/service"),
        ({"instance": "a\0b"}, "#/instance"),
        ({"hostname": "a\nb"}, "#/hostname"),
        ({"address": "\x1b"}, "#/address"),
        ({"pid": 2**31}, "#/pid"),
        ({"pid": "1"}, "#/pid"),
        ({"memory_bytes": 2**70}, "#/memory_bytes"),
        ({"memory_bytes": -1}, "#/memory_bytes"),
        ({"at": "soon"}, "#/at"),
        ({"at": "2025-01-01T00:00:00"}, "#/at"),
        ({"at": "3000-01-01T00:00:00Z"}, "#/at"),
        ({"started_at": "0001-01-01T00:00:00Z"}, "#/started_at"),
        ({"health": 1}, "#/health"),
        ({"metrics": [{"name": "x", "kind": "summary", "series": []}]}, "#/metrics/0/kind"),
        (
            {
                "observations": [
                    {
                        "model": "a\0",
                        "version": "1",
                        "reference_sha256": "",
                        "since": "2025-01-01T00:00:00Z",
                        "until": "2025-01-01T00:00:00Z",
                        "rows": 1,
                        "passed": 1,
                        "features": {},
                        "outputs": {},
                    }
                ]
            },
            "#/observations/0/model",
        ),
    ],
)
async def test_a_heartbeat_that_does_not_fit_is_refused_by_its_field(
    service: Watching, change: dict[str, Any], pointer: str
) -> None:
    answer = await service.client.post("/heartbeats", json=beat(**change))
    assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, [pointer])
    assert await listed(service) == []


async def test_a_heartbeat_that_is_none_is_refused(service: Watching) -> None:
    for body in (b"", b"{", b'{"health":' * 100_000, b"\xff"):
        answer = await service.client.post("/heartbeats", content=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "malformed_body")
