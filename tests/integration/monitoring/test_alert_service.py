"""Alerts in the running service: its routes, and a whole story from a silent instance to a webhook."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
from sqlalchemy.exc import OperationalError
from tests.integration.monitoring.alerting import only
from tests.integration.monitoring.receiving import Receiver, Reply, receiving
from tests.service_process import running_service

from foretell.contracts.monitoring import Heartbeat
from foretell.kit.clock import now, uuid7
from foretell.services.monitoring.alerts import store
from foretell.services.monitoring.alerts.alert import Alert, subject_key
from foretell.services.monitoring.alerts.rules import read_rule
from foretell.services.monitoring.alerts.store import StoredAlert
from foretell.services.monitoring.app import build
from foretell.services.monitoring.migrations.run import migrate
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.routes import alerts
from foretell.services.monitoring.settings import MonitoringSettings
from foretell.services.monitoring.storage.database import MonitoringDatabase

_PATIENCE_S = 90.0
TOKEN = "123456:AAF-token-of-a-bot"


class Service:
    """The service with nothing but its alerts, in this process."""

    def __init__(self, client: httpx.AsyncClient, database: MonitoringDatabase) -> None:
        self.client = client
        self.database = database

    async def keep(self, state: Any = "firing", *, rule: str = "queue_age", ago_s: float = 60.0) -> str:
        """An alert that is there, and its id."""
        at = now() - timedelta(seconds=ago_s)
        over = state == "resolved"
        subject = subject_key({"queue": f"q{ago_s:g}"})
        alert = Alert(
            str(uuid7()), rule, subject, "warning", state, 75.0, at,
            fired_at=at, resolved_at=at if over else None, reason="cleared" if over else None,
        )  # fmt: skip
        values = {"rule": rule, "value": "75 s"}
        texts = store.texts_of(read_rule("r", {"metric": "m", "above": 1}), {"en": values, "ru": values})
        async with self.database.transaction() as connection:
            await store.save(connection, StoredAlert(alert, texts))
        return alert.id


@asynccontextmanager
async def service_of(url: str, folder: Path, **settings: Any) -> AsyncIterator[Service]:
    """The service, without anything at work beside its routes."""
    known = MonitoringSettings(monitoring_database_url=url, data_dir=folder, **settings)
    database = MonitoringDatabase(known)
    try:
        await migrate(database)
        surroundings = Surroundings(known, database, "monitoring-1")
        app = build([alerts.part(surroundings)], surroundings)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8003") as client:
            yield Service(client, database)
    finally:
        await database.close()


@pytest.fixture
async def service(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with service_of(monitoring_database_url, tmp_path) as service:
        yield service


async def test_what_is_open_and_what_was_is_shown(service: Service) -> None:
    assert (await service.client.get("/alerts")).json() == {"evaluated_at": None, "open": [], "resolved": []}
    later, earlier = await service.keep(ago_s=10), await service.keep("no_data", ago_s=100)
    over = [await service.keep("resolved", ago_s=seconds) for seconds in (20, 30, 40)]
    shown = (await service.client.get("/alerts")).json()
    assert [each["id"] for each in shown["open"]] == [earlier, later]
    assert [each["id"] for each in shown["resolved"]] == over
    assert shown["open"][0]["subject"] == {"queue": "q100"}
    assert shown["open"][0]["summary"] == {"en": "queue_age: 75 s", "ru": "queue_age: 75 s"}
    assert (shown["open"][0]["value"], shown["open"][0]["state"]) == (75.0, "no_data")
    limited = (await service.client.get("/alerts", params={"limit": 1})).json()
    assert [each["id"] for each in limited["resolved"]] == over[:1]
    assert (await service.client.get("/alerts", params={"limit": 0})).json()["resolved"] == []


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "limit=1001", "limit=1e3", "state=firing", "limit=%00"])
async def test_nonsense_is_refused_and_named(service: Service, query: str) -> None:
    answer = await service.client.get(f"/alerts?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


async def test_an_alert_can_be_silenced_and_heard_again(service: Service) -> None:
    alert = await service.keep()
    answer = await service.client.post(f"/alerts/{alert}/silence", json={"minutes": 30})
    assert answer.status_code == 200
    silenced = answer.json()
    assert (silenced["rule"], silenced["subject"]) == ("queue_age", {"queue": "q60"})
    until = datetime.fromisoformat(silenced["until"])
    assert timedelta(minutes=29) < until - now() <= timedelta(minutes=30)
    (shown,) = (await service.client.get("/alerts")).json()["open"]
    assert shown["silenced_until"] == silenced["until"]
    await service.client.post(f"/alerts/{alert}/silence", json={"minutes": 0})
    (shown,) = (await service.client.get("/alerts")).json()["open"]
    assert shown["silenced_until"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"minutes": -1}', 422), (b'{"minutes": 1e9}', 422), (b'{"minutes": "5"}', 422), (b"{}", 422),
        (b'{"minutes": 5, "x": 1}', 422), (b"[]", 422), (b"", 422), (b"\xff", 422), (b'{"minutes": NaN}', 422),
    ],
)  # fmt: skip
async def test_a_silence_has_a_length(service: Service, body: bytes, status: int) -> None:
    alert = await service.keep()
    answer = await service.client.post(f"/alerts/{alert}/silence", content=body)
    assert answer.status_code == status
    if body == b'{"minutes": 5, "x": 1}':
        assert answer.json()["errors"] == [{"detail": "is not a known field", "pointer": "#/x"}]
    assert (await service.client.get("/alerts")).json()["open"][0]["silenced_until"] is None


@pytest.mark.parametrize("alert", ["nothing", "%00", "x" * 5000, "019ab3c4-0000-7000-8000-000000000000"])
async def test_what_is_not_there_cannot_be_silenced(service: Service, alert: str) -> None:
    answer = await service.client.post(f"/alerts/{alert}/silence", json={"minutes": 5})
    assert (answer.status_code, answer.json()["code"]) == (404, "alert_not_found")


async def test_the_rules_and_what_is_wrong_with_them_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[queue_age]\nabove = 'soon'\n\n[drift]\nenabled = false\n\n[new]\nmetric = 'm'\nabove = 3\n")
    async with service_of(f"sqlite:///{tmp_path / 'm.db'}", tmp_path, alert_rules=path) as service:
        shown = (await service.client.get("/alerts/rules")).json()
        health = (await service.client.get("/health")).json()
    assert shown["file"] == str(path)
    assert [(each["rule"], each["field"]) for each in shown["mistakes"]] == [("queue_age", "above")]
    rules = {each["name"]: each for each in shown["rules"]}
    assert (rules["queue_age"]["above"], rules["drift"]["enabled"], rules["new"]["above"]) == (60, False, 3)
    assert health["status"] == "healthy"
    assert health["alerts"]["mistakes"] == [f"{path}: [queue_age.above] {shown['mistakes'][0]['detail']}"]


async def test_whoever_is_told_can_be_tried_out(tmp_path: Path) -> None:
    with receiving() as good, receiving(Reply(410)) as gone, receiving(Reply(body=b'{"ok":true}')) as telegram:
        async with service_of(
            f"sqlite:///{tmp_path / 'm.db'}",
            tmp_path,
            alert_webhook_urls=f"{good.url}/hook, {gone.url}/hook",
            alert_telegram_chat="1",
            telegram_token=TOKEN,
            telegram_api_url=telegram.url,
            alert_language="ru",
        ) as service:
            answer = await service.client.post("/alerts/test")
    assert answer.status_code == 200
    channels = answer.json()["channels"]
    assert [(each["taken"], each["detail"]) for each in channels] == [(True, "200"), (False, "410"), (True, "200")]
    assert [each["channel"].split()[0] for each in channels] == ["webhook", "webhook", "telegram"]
    assert good.got[0].said["type"] == "alerts.test"
    assert telegram.got[0].said["text"].startswith("Проверка")


async def test_without_anybody_to_tell_there_is_nothing_to_try_out(service: Service) -> None:
    assert (await service.client.post("/alerts/test")).json() == {"channels": []}


async def test_answers_fit_the_page(service: Service) -> None:
    alert = await service.keep()
    await service.keep("resolved", ago_s=5)
    page = (await service.client.get("/openapi.json")).json()
    answers = {
        ("/alerts", "get"): await service.client.get("/alerts"),
        ("/alerts/rules", "get"): await service.client.get("/alerts/rules"),
        ("/alerts/test", "post"): await service.client.post("/alerts/test"),
        ("/alerts/{id}/silence", "post"): await service.client.post(f"/alerts/{alert}/silence", json={"minutes": 1}),
    }
    for (path, method), answer in answers.items():
        schema = page["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for({**schema, "components": page["components"]})
        assert answer.status_code == 200
        validator.validate(answer.json())


class Beating:
    """An instance that sends heartbeats to a real service, until it falls silent."""

    def __init__(self, url: str) -> None:
        self.silent = False
        self.heard = threading.Event()
        self._url = url
        self._over = threading.Event()
        self._started_at = now()
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(0.5):
            if not self.silent:
                with suppress(httpx.TransportError):
                    if httpx.post(f"{self._url}/heartbeats", content=self._heartbeat()).status_code == 200:
                        self.heard.set()

    def _heartbeat(self) -> bytes:
        return msgspec.json.encode(
            Heartbeat(
                service="ml_worker",
                instance="worker-1",
                version="1",
                started_at=self._started_at,
                at=now(),
                health={"status": "healthy", "service": "ml_worker"},
                pid=1,
                hostname="h",
            )
        )

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def beating(url: str) -> Iterator[Beating]:
    process = Beating(url)
    try:
        yield process
    finally:
        process.close()


def await_message(receiver: Receiver, number: int) -> dict[str, Any]:
    """The alert in that message, counted from 0."""
    deadline = time.monotonic() + _PATIENCE_S
    while len(receiver.got) <= number:
        assert time.monotonic() < deadline, "nobody was told"
        time.sleep(0.1)
    (alert,) = receiver.got[number].said["data"]["alerts"]
    return {"rule": alert["rule"], "state": alert["state"], "subject": alert["subject"]}


def test_an_instance_falls_silent_and_comes_back_and_a_webhook_hears_of_both(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(only(service_down={"for_s": 0, "resolve_for_s": 0}) + "[nonsense]\nabove = 'x'\n")
    about = {"rule": "service_down", "subject": {"service": "ml_worker"}}
    settings = {"FORETELL_ALERT_RULES": str(rules), "FORETELL_ALERT_START_GRACE_S": "1"}
    with receiving() as receiver:
        settings["FORETELL_ALERT_WEBHOOK_URLS"] = receiver.url
        with running_service("monitoring", tmp_path, **settings) as service, beating(service.url) as instance:
            assert httpx.get(f"{service.url}/health").json()["alerts"]["mistakes"]
            assert instance.heard.wait(_PATIENCE_S)
            instance.silent = True
            assert await_message(receiver, 0) == {**about, "state": "firing"}
            (alert,) = httpx.get(f"{service.url}/alerts").json()["open"]
            assert (alert["state"], alert["value"]) == ("firing", 1)
            assert 'foretell_alerts{rule="service_down",severity="critical",state="firing"} 1.0' in (
                httpx.get(f"{service.url}/metrics").text
            )
            # Nobody stops while it fires: it is started again, and the end is told all the same.
            assert service.stop() == 0
        with running_service("monitoring", tmp_path, **settings) as service, beating(service.url):
            assert await_message(receiver, 1) == {**about, "state": "resolved"}
            # Its line comes after the message.
            assert service.stop() == 0
            assert [line["rule.name"] for line in service.lines("alert_resolved")] == ["service_down"]
            assert [line["rule.name"] for line in service.lines("alert_rule_refused")] == ["nonsense"]
        assert len(receiver.got) == 2


@pytest.fixture
async def part(tmp_path: Path) -> AsyncIterator[tuple[Part, MonitoringDatabase]]:
    """Alerting as the service runs it."""
    settings = MonitoringSettings(monitoring_database_url=f"sqlite:///{tmp_path / 'm.db'}", data_dir=tmp_path)
    database = MonitoringDatabase(settings)
    try:
        await migrate(database)
        yield alerts.part(Surroundings(settings, database, "monitoring-1")), database
    finally:
        await database.close()


async def test_it_works_until_it_is_stopped(part: tuple[Part, MonitoringDatabase]) -> None:
    assert part[0].run is not None
    stopping = asyncio.Event()
    working = asyncio.create_task(part[0].run(stopping))
    await asyncio.sleep(0)
    stopping.set()
    await working


async def test_when_one_half_of_it_fails_nothing_of_it_is_left_behind(part: tuple[Part, MonitoringDatabase]) -> None:
    run, database = part[0].run, part[1]
    assert run is not None
    async with database.transaction() as connection:
        await connection.exec_driver_sql("DROP TABLE notices")
    before = asyncio.all_tasks()
    with pytest.raises(OperationalError):
        await run(asyncio.Event())
    # A connection in use when its half was canceled may be on its way back to the pool.
    async with asyncio.timeout(30):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)
