"""What operators see of the monitoring service through the app, and what they steer: alerts, queues, models."""

import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service_process import ServiceProcess, running_service

from foretell.broker.connect import connect
from foretell.contracts import queues
from foretell.kit.clock import now
from foretell.kit.database import Database
from foretell.services.app.offers import Offers
from foretell.services.app.presentation import price_of
from foretell.services.app.routes.admin.reports import _lines
from foretell.services.app.settings import AppSettings
from foretell.services.app.state import AppState

from .conftest import Account, client_of, make_state

IsProblem = Callable[[httpx.Response, int, str], None]
TOKEN = "9f8e7d6c5b4a39281706"

# The same code for each database; what the journal stores is tested on both.
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One that runs, with a token; all tests of this file look at it."""
    folder = tmp_path_factory.mktemp("monitoring")
    broker = f"sqlite:///{folder / 'broker.db'}"
    with running_service("monitoring", folder, FORETELL_MONITORING_TOKEN=TOKEN, FORETELL_BROKER_URL=broker) as service:
        yield service


@pytest.fixture
def settings(tmp_path: Path, monitoring: ServiceProcess) -> AppSettings:
    return AppSettings(data_dir=tmp_path / "data", monitoring_url=monitoring.url, monitoring_token=TOKEN)


async def _acts(operator: httpx.AsyncClient) -> list[tuple[str, str]]:
    entries = (await operator.get("/admin/journal")).json()["items"]
    return [(entry["act"], entry["subject"]) for entry in reversed(entries)][1:]


async def test_one_glance_says_whether_it_is_all_right(operator: httpx.AsyncClient) -> None:
    glance = (await operator.get("/admin/overview")).json()
    assert glance["problems"] == {}
    assert set(glance) == {"at", "overview", "health", "queues", "workers", "revenue", "alerts", "problems"}
    assert isinstance(glance["alerts"]["open"], list)


@pytest.mark.parametrize(
    "path",
    [
        *(f"/admin/reports/{name}" for name in ("overview", "health", "throughput", "latency", "errors", "workers")),
        *("/admin/reports/queues", "/admin/reports/revenue", "/admin/reports/drift", "/admin/reports/metrics"),
        "/admin/reports/shadows",
        *("/admin/workers", "/admin/queues", "/admin/alerts", "/admin/alerts/rules", "/admin/logs"),
    ],
)
async def test_every_report_comes_as_the_monitoring_service_says_it(operator: httpx.AsyncClient, path: str) -> None:
    answer = await operator.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    assert answer.json() is not None


async def test_what_it_does_not_know_is_refused_by_name(operator: httpx.AsyncClient, is_problem: IsProblem) -> None:
    answer = await operator.get("/admin/reports/latency", params={"window": "1h"})
    assert answer.status_code == 200
    wrong = await operator.get("/admin/reports/latency", params={"window": "long"})
    is_problem(wrong, 422, "invalid_request")
    assert wrong.json()["errors"][0]["parameter"] == "window"
    other = await operator.get("/admin/reports/latency", params={"colour": "red"})
    is_problem(other, 422, "invalid_request")
    assert (await operator.get("/admin/reports/secrets")).status_code == 404


async def test_without_a_monitoring_service_it_says_so(
    tmp_path: Path, database: Database, olga: Account, is_problem: IsProblem
) -> None:
    for url, code in (("http://127.0.0.1:9", "monitoring_away"), ("", "monitoring_not_set")):
        state = make_state(AppSettings(data_dir=tmp_path / "data", monitoring_url=url), database)
        async with client_of(state) as client:
            is_problem(await client.get("/admin/workers", headers=olga.headers), 503, code)
            glance = (await client.get("/admin/overview", headers=olga.headers)).json()
            assert glance["health"] is None
            assert set(glance["problems"]) == {"overview", "health", "queues", "workers", "revenue", "alerts"}
        await state.monitoring.close()
        state.passwords.close()


async def test_an_alert_that_is_not_there_can_not_be_silenced(
    operator: httpx.AsyncClient, is_problem: IsProblem
) -> None:
    is_problem(await operator.post("/admin/alerts/none/silence", json={"minutes": 5}), 404, "alert_not_found")
    is_problem(await operator.post("/admin/alerts/none/silence", json={"minutes": -1}), 422, "invalid_request")
    assert await _acts(operator) == []


async def test_dead_letters_are_shown_sent_back_and_thrown_away(
    operator: httpx.AsyncClient, monitoring: ServiceProcess, is_problem: IsProblem
) -> None:
    broker = await connect(f"sqlite:///{Path(monitoring._log).parent / 'broker.db'}", name="test")
    try:
        await broker.ensure_queue(queues.RESULTS)
        for number in range(3):
            await broker.publish(queues.dead_queue(queues.RESULTS), b"garbage", message_id=f"m{number}")
        path = f"/admin/queues/{queues.RESULTS}"
        dead = (await operator.get(f"{path}/dead", params={"limit": 2})).json()
        assert (dead["count"], len(dead["items"]), dead["items"][0]["kind"]) == (3, 2, "unreadable")
        assert "garbage" not in json.dumps(dead)
        moved = await operator.post(f"{path}/redrive", json={"limit": 1})
        assert moved.json() == {"queue": queues.RESULTS, "moved": 1, "left": 2}
        wrong = await operator.post(f"{path}/discard", json={"confirm": 7})
        is_problem(wrong, 409, "not_confirmed")
        assert wrong.json()["count"] == 2
        gone = await operator.post(f"{path}/discard", json={"confirm": 2})
        assert gone.json() == {"queue": queues.RESULTS, "moved": 2, "left": 0}
        is_problem(await operator.get("/admin/queues/other/dead"), 404, "unknown_queue")
    finally:
        await broker.close()
    subject = f"queue:{queues.RESULTS}"
    asked = ["queue.redrive", "queue.redrive.done", *["queue.discard", "queue.discard.done"] * 2]
    assert await _acts(operator) == [(act, subject) for act in asked]
    entries = (await operator.get("/admin/journal")).json()["items"]
    assert entries[2]["after"]["failed"] == "not_confirmed"


async def _log(monitoring: ServiceProcess, message: str) -> None:
    line = {"service": "app", "level": "INFO", "message": message, "timestamp": now().isoformat()}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{monitoring.url}/logs", json=line, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200


async def test_lines_are_found_and_followed(
    operator: httpx.AsyncClient, state: AppState, monitoring: ServiceProcess
) -> None:
    await _log(monitoring, "the first line")
    found = await operator.get("/admin/logs", params={"text": "the first", "limit": 1})
    assert [line["message"] for line in found.json()] == ["the first line"]

    async def still_in() -> bool:
        return True

    async with aclosing(_lines(state, {"text": "line"}, still_in)) as stream:
        assert await anext(stream) == b"retry: 2000\n\n"
        await _log(monitoring, "the second line")
        seen = b""
        while b"second" not in seen:
            seen += await anext(stream)
            if b"second" not in seen:
                await _log(monitoring, "the second line")
    assert b"event: log\n" in seen
    assert b"first" not in seen


async def test_traffic_and_price_are_changed_for_everybody_and_written_down(
    operator: httpx.AsyncClient, state: AppState, is_problem: IsProblem
) -> None:
    listed = (await operator.get("/admin/models")).json()["items"]
    flight = next(item for item in listed if item["name"] == "flight-delay")
    version = flight["default_version"]
    assert flight["rule"] == {"default": None, "weights": {}, "shadow": [], "price_credits": None}
    path = "/admin/models/flight-delay"
    for wrong in (
        {"weights": {"9.9.9": 1}},
        {"shadow": ["9.9.9"]},
        {"weights": {version: 0}},
        {"weights": {version: -1}},
    ):
        is_problem(await operator.put(f"{path}/traffic", json=wrong), 422, "invalid_request")
    assert (await operator.put(f"{path}/traffic", json={"default": "9.9.9"})).status_code == 404
    assert not (state.packages.folder / "traffic.toml").exists()

    changed = await operator.put(f"{path}/traffic", json={"default": version, "weights": {version: 2.5}})
    assert changed.status_code == 200, changed.text
    assert changed.json()["versions"][0]["weight"] == 2.5
    offers = Offers(state.registry, lambda package: price_of(package, state.registry, state.settings))
    priced = await operator.put(f"{path}/price", json={"price_credits": 42})
    assert (priced.json()["price"], priced.json()["manifest_price"]) == (42, flight["manifest_price"])
    assert (await operator.get("/models/flight-delay")).json()["price"] == 42
    offer = offers.get("flight-delay", None)
    assert offer is not None
    assert offer.price_credits == 42
    # The rule of before is still there, and goes with the price's end.
    assert priced.json()["rule"]["weights"] == {version: 2.5}
    back = await operator.put(f"{path}/price", json={"price_credits": None})
    assert back.json()["price"] == flight["manifest_price"]
    assert (await operator.put(f"{path}/price", json={})).status_code == 422
    assert (await operator.put("/admin/models/none/price", json={"price_credits": 1})).status_code == 404
    entries = (await operator.get("/admin/journal", params={"subject": "model:flight-delay"})).json()["items"]
    assert [entry["act"] for entry in entries] == ["model.price", "model.price", "model.traffic"]
    assert (entries[1]["before"]["price_credits"], entries[1]["after"]["price_credits"]) == (None, 42)

    reloaded = await operator.post("/admin/models/reload")
    assert reloaded.status_code == 202
    assert reloaded.json()["models_stamp"] != back.json()["models_stamp"]


async def test_rules_that_are_broken_are_not_written_over(
    operator: httpx.AsyncClient, state: AppState, is_problem: IsProblem
) -> None:
    file = state.packages.folder / "traffic.toml"
    file.parent.mkdir(parents=True)
    file.write_text("by hand, and wrong")
    answer = await operator.put("/admin/models/flight-delay/price", json={"price_credits": 1})
    is_problem(answer, 409, "rules_broken")
    assert file.read_text() == "by hand, and wrong"


@pytest.mark.parametrize(
    "rule", ["by hand, and wrong", '[flight-delay]\ndefault = "9.9.9"', '[typo]\ndefault = "1.0.0"']
)
async def test_a_change_by_hand_is_checked_before_any_service_reads_it(
    operator: httpx.AsyncClient, state: AppState, is_problem: IsProblem, rule: str
) -> None:
    folder = state.packages.folder
    folder.mkdir(parents=True)
    (folder / "traffic.toml").write_text(rule)
    answer = await operator.post("/admin/models/reload")
    is_problem(answer, 409, "changes_broken")
    assert "traffic.toml" in answer.json()["detail"]
    assert not (folder / ".reload").exists()
    (folder / "traffic.toml").write_text("")
    assert (await operator.post("/admin/models/reload")).status_code == 202


async def test_versions_stand_side_by_side(operator: httpx.AsyncClient, ada: Account, submit: Any, finish: Any) -> None:
    await finish(await submit(ada))
    await submit(ada)
    compared = (await operator.get("/admin/models/flight-delay/comparison")).json()
    (version,) = compared["versions"]
    assert (version["version"], version["succeeded"], version["queued"], version["failed"]) == ("1.0.0", 1, 1, 0)
    assert 0 <= version["p50_running_s"] <= version["p95_running_s"]
    assert version["mean_running_s"] >= 0
    assert compared["shadows"] == []
    label, probability = compared["answers"]
    assert (label["field"], label["title"]["en"], label["versions"][0]["mean"]) == ("prediction", "Prediction", None)
    (share,) = label["versions"][0]["shares"]
    assert share["share"] == 1.0
    assert share["label"]["en"] in ("On time", "Delayed")
    assert (probability["field"], probability["versions"][0]["shares"]) == ("probability", [])
    assert 0 <= probability["versions"][0]["mean"] <= 1
