"""Drift from end to end: real rows, what an observer counted of them, heartbeats, the look, the report and gauges."""

import json
import shutil
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from foretell.contracts.monitoring import Heartbeat, Observation
from foretell.inference.distribution import describe
from foretell.inference.engine import Engine
from foretell.inference.live import LiveRegistry, touch_stamp
from foretell.inference.observing import Observer
from foretell.inference.reference import write_reference
from foretell.inference.registry import Registry, shipped_folder
from foretell.kit.clock import now
from foretell.services.monitoring.app import build
from foretell.services.monitoring.drift import findings, watching
from foretell.services.monitoring.drift.watching import DriftWatch
from foretell.services.monitoring.migrations.run import migrate
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.routes import drift, heartbeats
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase

HOUR, DAY = 3600.0, 86_400.0

Row = dict[str, Any]


class World:
    """A folder of models, a process that runs them and is observed, and the monitoring service that it tells."""

    def __init__(self, folder: Path, database: MonitoringDatabase, client: httpx.AsyncClient) -> None:
        self.folder = folder
        self.database = database
        self.client = client
        self.observer = Observer(10**6)
        self.watch = self.new_watch()
        self._beats = 0

    def new_watch(self) -> DriftWatch:
        """As after a restart of the monitoring service."""
        registry = LiveRegistry(self.folder, shipped=self.folder / "none", must_exist=True)
        return DriftWatch(self.database, registry, [HOUR, DAY])

    def ask(self, rows: list[Row]) -> None:
        """Ask the model, as a worker with this folder would."""
        engine = Engine(Registry.discover(self.folder), watch=self.observer.watch)
        engine.predict(engine.registry.get("flight-delay"), rows, "features")
        self.seen: list[Observation] = self.observer.take()

    async def tell(self, at: datetime | None = None, **changed: Any) -> None:
        """Send what was seen with a heartbeat, as seen at `at`."""
        moment = at or now()
        self._beats += 1
        seen = [
            msgspec.structs.replace(each, since=moment - timedelta(seconds=5), until=moment, **changed)
            for each in self.seen
        ]
        heartbeat = Heartbeat(
            service="ml_worker", instance="w-1", version="1", started_at=now(), at=now(), health={"status": "healthy"},
            pid=1, hostname="here", observations=seen,
        )  # fmt: skip
        answer = await self.client.post("/heartbeats", content=msgspec.json.encode(heartbeat))
        assert answer.status_code == 200, answer.text

    async def report(self, **parameters: Any) -> dict[str, Any]:
        answer = await self.client.get("/reports/drift", params=parameters)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def version(self) -> dict[str, Any]:
        """The only version, by the report."""
        (version,) = (await self.report())["versions"]
        assert isinstance(version, dict)
        return version


@pytest.fixture
async def world(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path / "models"
    (folder / "none").mkdir(parents=True)
    shutil.copytree(
        shipped_folder() / "flight_delay", folder / "flights", ignore=shutil.ignore_patterns("__pycache__", "report*")
    )
    settings = MonitoringSettings(monitoring_database_url=monitoring_database_url, data_dir=tmp_path, models_dir=folder)
    database = MonitoringDatabase(settings)
    try:
        await migrate(database)
        surroundings = Surroundings(settings, database, "monitoring-1")
        parts: list[Part] = [heartbeats.part(surroundings), drift.part(surroundings)]
        transport = httpx.ASGITransport(build(parts, surroundings))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8003") as client:
            yield World(folder, database, client)
    finally:
        await database.close()


def as_trained(count: int, **changed: Any) -> list[Row]:
    """Rows in the proportions of the reference, feature by feature."""
    fields = json.loads((shipped_folder() / "flight_delay" / "reference.json").read_text())["features"]
    columns: dict[str, list[Any]] = {}
    for step, (name, field) in enumerate(fields.items()):
        counts = field["counts"]
        if field["kind"] == "categorical":
            values, weights = list(counts), list(counts.values())
        else:
            values, weights = field["edges"][:-1], counts
        total, spread = sum(weights), []
        for value, weight in zip(values, weights, strict=True):
            spread += [value] * round(weight / total * count)
        spread = (spread + [spread[-1]] * count)[:count]
        # Each feature in an order of its own, so that they have nothing to do with one another.
        stride = (7, 11, 13, 17)[step]
        columns[name] = [spread[place * stride % count] for place in range(count)]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [{**row, "dep_hour": int(row["dep_hour"]), "distance": row["distance"] or 100.0, **changed} for row in rows]


def gauges(name: str) -> dict[tuple[str, str], float]:
    """The series of a gauge, by feature and window."""
    return {
        (sample.labels["feature"], sample.labels["window"]): sample.value
        for metric in REGISTRY.collect()
        if metric.name == name
        for sample in metric.samples
    }


async def test_what_was_asked_as_in_training_is_stable_and_something_else_is_not(world: World) -> None:
    world.ask(as_trained(2000))
    await world.tell()
    await world.watch.look(now())
    version = await world.version()
    features = {field["name"] for field in version["findings"] if field["part"] == "feature"}
    assert features == {"carrier", "dep_hour", "distance", "weather_delay"}
    assert {
        field["name"]: field["status"] for field in version["findings"] if field["part"] == "feature"
    } == dict.fromkeys(features, "stable")
    assert version["reference"]["rows"] == 259_918
    assert [window["window_s"] for window in version["windows"]] == [HOUR, DAY]
    assert [window["rows"] for window in version["windows"]] == [2000, 2000]

    world.ask(as_trained(4000, carrier="HA"))
    await world.tell()
    with capture_logs() as lines:
        await world.watch.look(now())
    version = await world.version()
    assert version["status"] == "drifted"
    (carrier,) = [field for field in version["findings"] if field["name"] == "carrier"]
    assert carrier["drifted"] is True
    assert carrier["psi"] > 1
    told = [line for line in lines if line["event"] == "drift_status_changed"]
    assert [(line["status"], line["log_level"]) for line in told] == [("drifted", "warning")]
    assert "carrier" in told[0]["fields"]
    assert gauges("foretell_drift_status")["carrier", "3600"] == 2
    assert gauges("foretell_drift_psi")["carrier", "86400"] == pytest.approx(carrier["psi"])
    assert ("output.probability", "3600") in gauges("foretell_drift_psi")

    metrics = await world.client.get("/metrics")
    assert (
        'foretell_drift_status{feature="carrier",model="flight-delay",version="1.0.0",window="3600"} 2.0'
        in metrics.text
    )


async def test_nothing_and_little_were_asked(world: World) -> None:
    assert (await world.report())["versions"] == [], "nothing was looked at yet"
    await world.watch.look(now())
    assert (await world.version())["status"] == "not_enough_data"
    world.ask(as_trained(300))
    await world.tell()
    await world.watch.look(now())
    version = await world.version()
    assert version["status"] == "not_enough_data"
    assert version["windows"][0]["fields"][0]["rows"] == 300
    assert version["windows"][0]["fields"][0]["rows_needed"] == 500
    assert gauges("foretell_drift_psi") == {}


async def test_windows_slide_and_the_longest_that_has_enough_rows_counts(world: World) -> None:
    began = now()
    world.ask(as_trained(3000))
    await world.tell(began - timedelta(hours=3))
    world.ask(as_trained(600, dep_hour=12))
    await world.tell(began)
    await world.watch.look(began)
    version = await world.version()
    hour, day = version["windows"]
    assert (hour["rows"], day["rows"]) == (600, 3600)
    of_hour = {field["name"]: field["status"] for field in hour["fields"]}
    assert of_hour["dep_hour"] == "drifted"
    summary = {field["name"]: (field["status"], field["window_s"]) for field in version["findings"]}
    of_day = {field["name"]: field["status"] for field in day["fields"]}
    assert summary == {name: (status, DAY) for name, status in of_day.items()}
    assert summary["dep_hour"] != ("drifted", DAY)

    only = await world.report(window="3600")
    assert [window["window_s"] for window in only["versions"][0]["windows"]] == [HOUR]
    await world.watch.look(began + timedelta(hours=2))
    hour, day = (await world.version())["windows"]
    assert (hour["rows"], day["rows"]) == (0, 3600)
    await world.watch.look(began + timedelta(days=2))
    assert (await world.version())["status"] == "not_enough_data"


async def test_after_a_restart_the_windows_are_as_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_READ_AT_ONCE", 7)
    world.ask(as_trained(1000))
    for minutes in range(20):
        await world.tell(now() - timedelta(minutes=minutes))
    await world.tell(now() - timedelta(days=3))
    moment = now()
    before = await world.watch.look(moment)
    again = await world.new_watch().look(moment)
    assert before == again
    assert before[0].windows[1].rows == 20_000


async def test_what_another_reference_counted_is_not_mixed_in(world: World) -> None:
    world.ask(as_trained(1000))
    await world.tell()
    await world.tell(reference_sha256="0" * 64)
    await world.tell(version="9.9.9")
    await world.tell(model="unknown")
    await world.watch.look(now())
    assert (await world.version())["windows"][0]["rows"] == 1000

    file = world.folder / "flights" / "reference.json"
    reference = json.loads(file.read_text())
    reference["features"]["carrier"]["counts"]["AA"] += 1
    file.write_text(json.dumps(reference))
    touch_stamp(world.folder)
    await world.watch.look(now())
    assert (await world.version())["windows"][0]["rows"] == 0
    world.ask(as_trained(700))
    await world.tell()
    await world.watch.look(now())
    assert (await world.version())["windows"][0]["rows"] == 700


async def test_without_a_reference_or_with_a_broken_one_it_says_why(world: World) -> None:
    file = world.folder / "flights" / "reference.json"
    world.ask(as_trained(1000))
    await world.tell()
    await world.watch.look(now())
    assert gauges("foretell_drift_psi") != {}
    file.write_text('{"rows": "many"}')
    touch_stamp(world.folder)
    await world.watch.look(now())
    version = await world.version()
    assert (version["status"], version["reason_code"]) == ("no_reference", "broken")
    assert "reference.json" in version["reason"]
    assert version["findings"] == []
    assert gauges("foretell_drift_psi") == gauges("foretell_drift_status") == {}
    file.unlink()
    touch_stamp(world.folder)
    await world.watch.look(now())
    version = await world.version()
    assert (version["status"], version["reason_code"]) == ("no_reference", "missing")
    assert "foretell models reference" in version["reason"]


async def test_a_constant_that_changes_drifts_and_what_the_reference_lacks_is_named(world: World) -> None:
    # One that its makers made of the rows of a calm summer: no weather at all, and one distance.
    calm = as_trained(1000, weather_delay=0.0, distance=550.0)
    made, _ = describe([{name: value for name, value in row.items() if name != "carrier"} for row in calm], [])
    write_reference(world.folder / "flights", made)
    world.ask(calm)
    await world.tell()
    (found,) = await world.watch.look(now())
    assert found.status == "stable"
    assert {each.name for each in found.not_compared if each.part == "feature"} == {"carrier"}
    assert (await world.version())["not_compared"][0] == {
        "name": "carrier", "part": "feature", "reason": "The reference lacks it."
    }  # fmt: skip
    world.ask(as_trained(1000, weather_delay=0.25, distance=550.5))
    await world.tell()
    (found,) = await world.watch.look(now())
    assert {each.name for each in found.findings if each.drifted} == {"weather_delay", "distance"}


async def test_a_version_that_is_gone_leaves_nothing_behind(world: World) -> None:
    world.ask(as_trained(1000))
    await world.tell()
    await world.watch.look(now())
    shutil.rmtree(world.folder / "flights")
    touch_stamp(world.folder)
    await world.watch.look(now())
    assert (await world.report())["versions"] == []
    assert gauges("foretell_drift_psi") == {}


async def test_a_report_of_some_versions(world: World) -> None:
    await world.watch.look(now())
    assert len((await world.report(model="flight-delay"))["versions"]) == 1
    assert len((await world.report(model="flight-delay", version="1.0.0"))["versions"]) == 1
    assert (await world.report(model="flight-delay", version="2.0.0"))["versions"] == []
    assert (await world.report(model="other"))["versions"] == []
    for parameters in ({"window": "60"}, {"window": "nan"}, {"model": "a\0b"}, {"colour": "red"}):
        answer = await world.client.get("/reports/drift", params=parameters)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["parameter"] == next(iter(parameters))
    page = (await world.client.get("/openapi.json")).json()
    assert page["paths"]["/reports/drift"]["get"]["responses"]["200"]
    assert "FieldFinding" in page["components"]["schemas"]


async def test_old_findings_of_a_table_that_was_emptied_are_forgotten(world: World) -> None:
    world.ask(as_trained(1000))
    for _ in range(3):
        await world.tell()
    await world.watch.look(now())
    async with world.database.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM observations")
        if connection.dialect.name == "postgresql":
            await connection.exec_driver_sql("ALTER SEQUENCE observations_id_seq RESTART")
    await world.tell()
    await world.watch.look(now())
    async with world.database.snapshot() as connection:
        (found,) = await findings.latest(connection)
    # What was counted stays counted, and what came since was not missed.
    assert found.windows[0].rows == 4000
