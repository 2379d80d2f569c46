"""Reports over what real heartbeats and logs brought, on both databases."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert
from tests.integration.monitoring.watched import Process, Watching, watching

from foretell.kit.clock import now
from foretell.services.monitoring.reports.revenue import RevenueBook
from foretell.services.monitoring.storage.tables import alerts, instances, snapshots

REQUESTS = "foretell_http_requests_total"
REQUEST_S = "foretell_http_request_duration_seconds"
TASKS = "foretell_worker_tasks_total"
SETTLED = "foretell_predictions_settled_total"
FLIGHTS = {"model": "flight-delay", "version": "1.0.0"}


@pytest.fixture
async def watched(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[Watching]:
    async with watching(monitoring_database_url, tmp_path) as service:
        yield service


@pytest.fixture
def began() -> datetime:
    """Some time ago: a report over ten minutes begins later."""
    return now() - timedelta(hours=1)


def ago(**before: float) -> datetime:
    return now() - timedelta(**before)


def by(items: list[dict[str, Any]], *names: str) -> dict[Any, dict[str, Any]]:
    return {tuple(item[name] for name in names): item for item in items}


# What is not there


@pytest.mark.parametrize(
    "name", ["health", "latency", "throughput", "errors", "workers", "queues", "shadows", "revenue", "overview"]
)
async def test_nothing_was_heard_of_yet(watched: Watching, name: str) -> None:
    report = await watched.get(f"/reports/{name}")
    assert report.get("status", "healthy") == "healthy"
    assert not any(report.get(several) for several in ("services", "routes", "items", "models", "logs", "queues"))
    assert (await watched.client.get(f"/reports/{name}", params={"nonsense": "1"})).status_code == 422


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("latency", {"window": "x"}),
        ("throughput", {"points": "0"}),
        ("throughput", {"points": "100000"}),
        ("revenue", {"days": "-1"}),
        ("errors", {"since": "tomorrow"}),
        ("health", {"window": "5m"}),
    ],
)
async def test_nonsense_is_refused_and_named(watched: Watching, path: str, parameters: dict[str, str]) -> None:
    answer = await watched.client.get(f"/reports/{path}", params=parameters)
    assert answer.status_code == 422
    assert [error["parameter"] for error in answer.json()["errors"]] == list(parameters)


# Counting


async def test_rates_are_what_happened_in_the_period(watched: Watching, began: datetime) -> None:
    app = Process(watched, "app", "app-1", began)
    app.count(REQUESTS, 5000, route="/users", method="POST", status="201")
    await app.say(ago(minutes=11))
    app.count(REQUESTS, 300, route="/users", method="POST", status="201")
    app.count(REQUESTS, 60, route="/predictions/predict", method="POST", status="503")
    app.count(REQUESTS, 30, route="/predictions/predict", method="POST", status="422")
    app.count("foretell_predictions_accepted_total", 600, **FLIGHTS)
    await app.say(ago(seconds=2))
    report = await watched.get("/reports/throughput", window="10m")
    # What was before the period is not in it; its only snapshots are 11 minutes apart.
    assert report["services"] == [{"service": "app", "count": 390, "per_s": pytest.approx(390 / report["counted_s"])}]
    assert report["counted_s"] == pytest.approx(598, abs=5)
    assert report["models"][0] | FLIGHTS == report["models"][0]
    assert report["models"][0]["accepted"] == 600
    assert report["accepted_per_s"] == pytest.approx(600 / report["counted_s"])
    errors = await watched.get("/reports/errors", window="10m")
    assert errors["requests"] == {
        "count": 390, "count_4xx": 30, "count_5xx": 60,
        "share_4xx": pytest.approx(30 / 390), "share_5xx": pytest.approx(60 / 390),
    }  # fmt: skip
    routes = by(errors["routes"], "service", "route")
    assert routes["app", "/predictions/predict"]["share_5xx"] == pytest.approx(2 / 3)
    assert routes["app", "/users"]["count_4xx"] == routes["app", "/users"]["count_5xx"] == 0


async def test_a_process_that_starts_again_counts_from_zero(watched: Watching, began: datetime) -> None:
    first = Process(watched, "ml_worker", "worker-1", began)
    first.count(TASKS, 10_000, **FLIGHTS, outcome="succeeded")
    await first.say(ago(minutes=5, seconds=1))
    first.count(TASKS, 100, **FLIGHTS, outcome="succeeded")
    await first.say(ago(minutes=3))
    second = Process(watched, "ml_worker", "worker-1", ago(minutes=2))
    second.count(TASKS, 7, **FLIGHTS, outcome="succeeded")
    second.count(TASKS, 3, **FLIGHTS, outcome="failed")
    await second.say(ago(seconds=1))
    throughput = await watched.get("/reports/throughput", points=10)
    (model,) = throughput["models"]
    assert model["tasks"] == 110
    assert all(point["tasks_per_s"] >= 0 for point in throughput["points"])
    step_s = throughput["window_s"] / len(throughput["points"])
    assert sum(point["tasks_per_s"] * step_s for point in throughput["points"]) == pytest.approx(110, rel=0.2)
    workers = await watched.get("/reports/workers")
    # The one before it said no farewell, and is not waited for: a name is that of one process.
    assert [(item["id"], item["state"], item["failed"]) for item in workers["items"]] == [
        ("worker-1", "crashed", 0),
        ("worker-1", "healthy", 3),
    ]
    assert workers["live"] == 1
    health = await watched.get("/reports/health")
    # One name is one instance: the process before it is history.
    assert [len(service["instances"]) for service in health["services"]] == [1]


async def test_latency_goes_on_over_time(watched: Watching, began: datetime) -> None:
    dispatcher = Process(watched, "dispatcher", "dispatcher-1", began)
    await dispatcher.say(ago(minutes=5, seconds=1))
    dispatcher.observe("foretell_prediction_duration_seconds", [0.2] * 10, **FLIGHTS)
    await dispatcher.say(ago(minutes=4))
    await dispatcher.say(ago(minutes=1))
    dispatcher.observe("foretell_prediction_duration_seconds", [30.0] * 20, **FLIGHTS)
    await dispatcher.say(ago(seconds=1))
    assert (await watched.get("/reports/latency"))["points"] == []
    report = await watched.get("/reports/latency", points=5)
    points = report["points"]
    assert len(points) == 5
    assert points[-1]["at"] == report["until"]
    assert sum(point["count"] for point in points) == pytest.approx(report["all_predictions"]["count"], abs=3)
    assert points[0]["p95_s"] < 1 < 20 < points[-1]["p50_s"]
    # Nothing was settled meanwhile.
    assert points[2] == {"at": points[2]["at"], "count": 0, "mean_s": None, "p50_s": None, "p95_s": None, "p99_s": None}


async def test_what_shadows_said_is_counted(watched: Watching, began: datetime) -> None:
    beside = {**FLIGHTS, "shadow": "2.0.0"}
    worker = Process(watched, "ml_worker", "worker-1", began)
    worker.count("foretell_shadow_tasks_total", 1000, **beside, outcome="failed")
    await worker.say(ago(minutes=6))
    worker.count("foretell_shadow_tasks_total", 90, **beside, outcome="same")
    worker.count("foretell_shadow_tasks_total", 10, **beside, outcome="different")
    worker.observe("foretell_shadow_difference", [0.0] * 90 + [0.2] * 10, **beside, field="probability")
    await worker.say(ago(seconds=1))
    (found,) = (await watched.get("/reports/shadows"))["items"]
    assert (found["model"], found["version"], found["shadow"]) == ("flight-delay", "1.0.0", "2.0.0")
    assert (found["same"], found["different"], found["failed"]) == (90, 10, 0)
    (number,) = found["differences"]
    assert (number["field"], number["count"]) == ("probability", 100)
    assert number["mean"] == pytest.approx(0.02)
    assert number["p50"] < 0.01 < number["p95"]


async def test_what_a_killed_worker_did_still_counts(watched: Watching, began: datetime) -> None:
    killed = Process(watched, "ml_worker", "worker-1", began)
    await killed.say(ago(minutes=5, seconds=1))
    killed.count(TASKS, 40, **FLIGHTS, outcome="succeeded")
    await killed.say(ago(minutes=4), health={"busy": True, "current_task": current_task()})
    await watched.silence()
    survivor = Process(watched, "ml_worker", "worker-2", began)
    await survivor.say(ago(minutes=5, seconds=1))
    survivor.count(TASKS, 20, **FLIGHTS, outcome="succeeded")
    await survivor.say(ago(seconds=1))
    assert (await watched.get("/reports/throughput"))["models"][0]["tasks"] == 60
    workers = await watched.get("/reports/workers")
    assert (workers["live"], workers["busy"]) == (1, 0)
    found = by(workers["items"], "id")
    assert found["worker-1",]["state"] == "missing"
    assert found["worker-1",]["current_task"] is None
    assert found["worker-2",]["state"] == "healthy"


def current_task() -> dict[str, Any]:
    return {**FLIGHTS, "tasks": 12, "since": now().isoformat(), "prediction_id": "019a"}


async def test_what_was_counted_before_anybody_listened_is_not_in_the_period(
    watched: Watching, began: datetime
) -> None:
    app = Process(watched, "app", "app-1", began)
    app.count(REQUESTS, 1_000_000, route="/", method="GET", status="200")
    await app.say(ago(seconds=60))
    app.count(REQUESTS, 50, route="/", method="GET", status="200")
    await app.say(ago(seconds=10))
    report = await watched.get("/reports/throughput")
    assert report["services"][0]["count"] == 50
    assert report["requests_per_s"] == pytest.approx(1, rel=0.1)


async def test_a_period_of_the_past(watched: Watching, began: datetime) -> None:
    app = Process(watched, "app", "app-1", began)
    for minutes in range(60, 0, -1):
        app.count(REQUESTS, minutes, route="/", method="GET", status="200")
        await app.say(ago(minutes=minutes))
    since, until = ago(minutes=40, seconds=10), ago(minutes=29, seconds=50)
    report = await watched.get("/reports/throughput", since=since.isoformat(), until=until.isoformat())
    # From 41 minutes ago, which had counted its own 41, to 30 minutes ago.
    assert report["services"][0]["count"] == sum(range(30, 41))


# Latency


async def test_quantiles_are_of_the_period_and_of_all_instances(watched: Watching, began: datetime) -> None:
    one, two = (Process(watched, "app", f"app-{number}", began) for number in (1, 2))
    for app in (one, two):
        app.observe(REQUEST_S, [50.0] * 100, route="/predictions/predict")
        await app.say(ago(minutes=5, seconds=1))
    one.observe(REQUEST_S, [0.002] * 50, route="/predictions/predict")
    two.observe(REQUEST_S, [0.04] * 50, route="/predictions/predict")
    for app in (one, two):
        await app.say(ago(seconds=1))
    report = await watched.get("/reports/latency")
    (route,) = report["routes"]
    assert (route["service"], route["route"], route["count"]) == ("app", "/predictions/predict", 100)
    assert route["mean_s"] == pytest.approx(0.021)
    # 50 of them from 1.5 to 2 ms, the others from 35 to 50 ms; and the sum says where in there.
    assert route["p50_s"] == pytest.approx(0.002)
    assert 0.04 <= route["p95_s"] < 0.048 < route["p99_s"] <= 0.05


async def test_models_and_predictions_by_version(watched: Watching, began: datetime) -> None:
    worker, model, dispatcher = (
        Process(watched, service, service, ago(minutes=1)) for service in ("ml_worker", "model_service", "dispatcher")
    )
    worker.observe("foretell_worker_run_duration_seconds", [0.003] * 4, **FLIGHTS)
    worker.observe("foretell_batch_items", [1, 1, 30, 32], station="worker")
    model.observe("foretell_model_run_duration_seconds", [0.3], model="flight-delay", version="2.0.0")
    dispatcher.observe("foretell_prediction_duration_seconds", [0.2, 0.2], **FLIGHTS)
    dispatcher.observe("foretell_prediction_duration_seconds", [0.2], model="sentiment", version="1.0.0")
    dispatcher.observe("foretell_settle_lag_seconds", [0.01])
    for process in (worker, model, dispatcher):
        await process.say(ago(seconds=1))
    report = await watched.get("/reports/latency")
    assert set(by(report["models"], "station", "version")) == {("worker", "1.0.0"), ("model", "2.0.0")}
    assert {key: item["count"] for key, item in by(report["predictions"], "model").items()} == {
        ("flight-delay",): 2, ("sentiment",): 1
    }  # fmt: skip
    assert report["all_predictions"]["count"] == 3
    assert report["settle_lag"]["p50_s"] == pytest.approx(0.01)
    (batches,) = (await watched.get("/reports/throughput"))["batches"]
    assert (batches["station"], batches["count"], batches["mean_items"]) == ("worker", 4, 16)
    assert 16 < batches["p95_items"] <= 32


# Health


async def test_states_of_services(watched: Watching, began: datetime) -> None:
    names = {"app": ["app-1"], "dispatcher": ["dispatcher-1"], "ml_worker": ["w-1", "w-2"], "model_service": ["m-1"]}
    processes = {
        name: Process(watched, service, name, began, address=f"10.0.0.1:{name[-1]}")
        for service, several in names.items()
        for name in several
    }
    for process in processes.values():
        await process.say(ago(seconds=2))
    assert (await watched.get("/reports/health"))["status"] == "healthy"
    assert len(await watched.get("/prometheus/targets")) == 5

    await watched.silence()
    await processes["w-1"].say(ago(seconds=1))
    await processes["app-1"].say(ago(seconds=1), health={"status": "unhealthy", "failing": {"broker": "It is away."}})
    await processes["m-1"].say(ago(seconds=1), goodbye=True)
    report = await watched.get("/reports/health")
    assert report["status"] == "unhealthy"
    states = {service["service"]: (service["state"], service["live"], service["expected"], service["healthy"])
              for service in report["services"]}  # fmt: skip
    assert states == {
        "app": ("unhealthy", 1, 1, 0),
        "dispatcher": ("down", 0, 1, 0),
        "ml_worker": ("degraded", 1, 2, 1),
        "model_service": ("stopped", 0, 0, 0),
    }
    found = {item["instance"]: item for service in report["services"] for item in service["instances"]}
    assert found["app-1"]["failing"] == {"broker": "It is away."}
    assert found["app-1"]["address"] == "127.0.0.1:1"
    assert found["app-1"]["version"] == "1.2.3"
    assert found["app-1"]["uptime_s"] == pytest.approx(3600, abs=60)
    assert {name: item["state"] for name, item in found.items()} == {
        "app-1": "unhealthy", "dispatcher-1": "missing", "w-1": "healthy", "w-2": "missing", "m-1": "stopped"
    }  # fmt: skip
    assert await watched.get("/prometheus/targets") == [
        {"targets": ["127.0.0.1:1"], "labels": {"service": "app", "instance": "app-1"}},
        {"targets": ["127.0.0.1:1"], "labels": {"service": "ml_worker", "instance": "w-1"}},
    ]


async def test_one_in_the_place_of_another_makes_a_service_whole(watched: Watching, began: datetime) -> None:
    await Process(watched, "ml_worker", "pod-a", began).say(ago(seconds=1))
    await watched.silence()
    replaced = now()
    await Process(watched, "ml_worker", "pod-b", replaced).say(replaced)
    (service,) = (await watched.get("/reports/health"))["services"]
    assert (service["state"], service["live"], service["expected"]) == ("healthy", 1, 1)
    assert [item["state"] for item in service["instances"]] == ["missing", "healthy"]


@pytest.mark.parametrize(("gap_s", "goes_on"), [(5, True), (120, False)])
async def test_a_restart_does_not_begin_the_time_of_a_service_anew(
    watched: Watching, began: datetime, gap_s: float, goes_on: bool
) -> None:
    await Process(watched, "app", "app-1", began).say(ago(seconds=1), goodbye=True)
    async with watched.database.transaction() as connection:
        await connection.execute(instances.update().values(last_seen_at=ago(seconds=gap_s)))
    restarted = now()
    await Process(watched, "app", "app-2", restarted).say(restarted)
    (service,) = (await watched.get("/reports/health"))["services"]
    assert service["state"] == "healthy"
    since = datetime.fromisoformat(service["since"])
    assert since == began if goes_on else since >= restarted


async def test_what_was_not_seen_for_a_day_is_forgotten(watched: Watching, began: datetime) -> None:
    await Process(watched, "bot", "bot-1", began).say(ago(seconds=1))
    async with watched.database.transaction() as connection:
        await connection.execute(instances.update().values(last_seen_at=ago(hours=25), state="missing"))
    assert (await watched.get("/reports/health"))["services"] == []


# Workers, queues, errors


async def test_what_workers_have_in_hand(watched: Watching, began: datetime) -> None:
    worker = Process(watched, "ml_worker", "w-1", began, memory_bytes=123_456_789)
    worker.count("process_cpu_seconds_total", 100)
    await worker.say(ago(seconds=101))
    worker.count("process_cpu_seconds_total", 50)
    worker.count(TASKS, 500, **FLIGHTS, outcome="succeeded")
    task = current_task()
    health = {"busy": True, "tasks_done": 12345, "models": ["flight-delay 1.0.0"], "current_task": task}
    await worker.say(ago(seconds=1), health=health)
    report = await watched.get("/reports/workers", window="100s")
    (item,) = report["items"]
    assert (report["live"], report["busy"]) == (1, 1)
    assert item["busy"]
    assert item["current_task"]["tasks"] == 12
    assert item["current_task"]["prediction_id"] == "019a"
    assert (item["tasks_done"], item["memory_bytes"]) == (12345, 123_456_789)
    assert item["tasks_per_s"] == pytest.approx(5, rel=0.1)
    assert item["cpu_share"] == pytest.approx(0.5, rel=0.1)
    assert item["models"] == ["flight-delay 1.0.0"]


async def test_a_worker_of_another_release_is_shown_without_its_task(watched: Watching, began: datetime) -> None:
    worker = Process(watched, "ml_worker", "w-1", began)
    await worker.say(ago(seconds=1), health={"busy": True, "current_task": {"model": 7}})
    (item,) = (await watched.get("/reports/workers"))["items"]
    assert item["current_task"] is None


async def test_queues_are_as_the_last_dispatcher_found_them(watched: Watching, began: datetime) -> None:
    for name, seconds, ready in (("d-1", 20, 100), ("d-2", 3, 7)):
        dispatcher = Process(watched, "dispatcher", name, began)
        for queue, waiting in (("ml_tasks", ready), ("ml_tasks.dead", 2), ("ml_results", 0), ("ml_results.dead", 0)):
            dispatcher.set("foretell_queue_ready_messages", waiting, queue=queue)
        dispatcher.set("foretell_dead_letters", 2, queue="ml_tasks")
        dispatcher.set("foretell_dead_letters", 0, queue="ml_results")
        dispatcher.set("foretell_queue_oldest_task_age_seconds", 12.5, queue="ml_tasks")
        dispatcher.set("foretell_queued_predictions", ready)
        dispatcher.set("foretell_held_credits", 2 * ready)
        await dispatcher.say(ago(seconds=seconds))
    worker = Process(watched, "ml_worker", "w-1", ago(seconds=60))
    worker.count("foretell_broker_redeliveries_total", 3, queue="ml_tasks")
    worker.count("foretell_broker_publishes_total", 98, outcome="confirmed")
    worker.count("foretell_broker_publishes_total", 2, outcome="failed")
    await worker.say(ago(seconds=2))
    report = await watched.get("/reports/queues")
    queues = by(report["items"], "queue")
    assert set(queues) == {("ml_tasks",), ("ml_results",)}
    tasks = queues["ml_tasks",]
    assert (tasks["ready"], tasks["dead_letters"], tasks["oldest_task_age_s"]) == (7, 2, 12.5)
    assert tasks["redeliveries"] == 3
    assert queues["ml_results",]["oldest_task_age_s"] is None
    assert (report["queued_predictions"], report["held_credits"]) == (7, 14)
    (publishes,) = report["publishes"]
    assert (publishes["service"], publishes["confirmed"], publishes["failed"]) == ("ml_worker", 98, 2)


async def test_failures_and_lines_of_the_logs(watched: Watching, began: datetime) -> None:
    dispatcher = Process(watched, "dispatcher", "d-1", began)
    await dispatcher.say(ago(seconds=100))
    dispatcher.count(SETTLED, 90, status="succeeded", code="")
    dispatcher.count(SETTLED, 8, status="failed", code="model_error")
    dispatcher.count(SETTLED, 2, status="failed", code="timeout")
    await dispatcher.say(ago(seconds=1))
    levels = ["INFO"] * 5 + ["WARNING"] * 3 + ["ERROR"] * 2
    lines = [
        {"service": "app", "level": level, "message": "something_happened", "timestamp": now().isoformat()}
        for level in levels
    ]
    assert (await watched.client.post("/logs", json=lines)).json() == {"status": "logged"}
    report = await watched.get("/reports/errors")
    assert report["predictions"] == {
        "ended": 100,
        "failed": 10,
        "share": 0.1,
        "codes": [{"code": "model_error", "count": 8}, {"code": "timeout", "count": 2}],
    }
    (logged,) = report["logs"]
    assert (logged["service"], logged["warnings"], logged["errors"]) == ("app", 3, 2)
    assert 0 < logged["errors_per_minute"] < logged["warnings_per_minute"] < 3
    overview = await watched.get("/reports/overview")
    assert overview["predictions"] == report["predictions"]
    assert overview["errors_per_minute"] == pytest.approx(logged["errors_per_minute"], rel=0.2)


# Revenue


async def test_revenue_outlives_the_snapshots(watched: Watching, began: datetime) -> None:
    book = RevenueBook(watched.database)
    today, yesterday = now().date(), now().date() - timedelta(days=1)
    dispatcher = Process(watched, "dispatcher", "d-1", began)

    async def tell(at: datetime, credits: dict[tuple[Any, str], int]) -> None:
        for (day, model), earned in credits.items():
            dispatcher.set("foretell_revenue_credits", earned, day=day.isoformat(), model=model)
            dispatcher.set("foretell_revenue_predictions", earned // 2, day=day.isoformat(), model=model)
        await dispatcher.say(at)

    await tell(ago(seconds=50), {(yesterday, "sentiment"): 40, (today, "sentiment"): 10, (today, "flight-delay"): 4})
    await book.write_down()
    # Known at once, before it is written down.
    await tell(ago(seconds=5), {(today, "sentiment"): 12})
    report = await watched.get("/reports/revenue", days=2)
    assert [(item["day"], item["model"], item["credits"], item["predictions"]) for item in report["items"]] == [
        (yesterday.isoformat(), "sentiment", 40, 20),
        (today.isoformat(), "flight-delay", 4, 2),
        (today.isoformat(), "sentiment", 12, 6),
    ]
    assert (report["credits"], report["predictions"]) == (56, 28)
    assert [total["credits"] for total in report["totals"]] == [40, 16]
    assert report["as_of"] is not None
    assert (await watched.get("/reports/revenue", days=1))["credits"] == 16
    assert (await watched.get("/reports/overview"))["revenue_credits"] == 16

    await book.write_down()
    async with watched.database.transaction() as connection:
        await connection.execute(delete(snapshots))
        await connection.execute(delete(instances))
    kept = await watched.get("/reports/revenue", days=2)
    assert kept["items"] == report["items"]


async def test_what_was_earned_is_not_taken_back(watched: Watching, began: datetime) -> None:
    book = RevenueBook(watched.database)
    day = now().date().isoformat()
    for name, credits in (("d-1", 100), ("d-2", 30)):
        # The second has only begun to add up.
        dispatcher = Process(watched, "dispatcher", name, began)
        dispatcher.set("foretell_revenue_credits", credits, day=day, model="sentiment")
        dispatcher.set("foretell_revenue_predictions", credits, day=day, model="sentiment")
        await dispatcher.say(ago(seconds=1))
        await RevenueBook(watched.database).write_down()
        async with watched.database.transaction() as connection:
            await connection.execute(delete(snapshots))
    await book.write_down()
    assert (await watched.get("/reports/revenue"))["credits"] == 100


async def test_revenue_is_as_old_as_the_dispatchers_last_look(watched: Watching, began: datetime) -> None:
    dispatcher = Process(watched, "dispatcher", "d-1", began)
    dispatcher.set("foretell_revenue_credits", 5, day=now().date().isoformat(), model="sentiment")
    added_up_at = ago(minutes=7)
    dispatcher.set("foretell_revenue_timestamp_seconds", added_up_at.timestamp())
    # It goes on telling while its database is away.
    await dispatcher.say(ago(seconds=1))
    report = await watched.get("/reports/revenue")
    assert report["credits"] == 5
    assert datetime.fromisoformat(report["as_of"]) == pytest.approx(added_up_at, abs=timedelta(milliseconds=1))


async def test_a_day_that_is_none_is_passed_over(watched: Watching, began: datetime) -> None:
    dispatcher = Process(watched, "dispatcher", "d-1", began)
    dispatcher.set("foretell_revenue_credits", 5, day="someday", model="sentiment")
    await dispatcher.say(ago(seconds=1))
    assert (await watched.get("/reports/revenue"))["items"] == []


# The start page


async def test_the_start_page_says_the_same_as_the_reports(watched: Watching, began: datetime) -> None:
    app, worker = Process(watched, "app", "app-1", began), Process(watched, "ml_worker", "w-1", began)
    await app.say(ago(seconds=200))
    app.count(REQUESTS, 100, route="/", method="GET", status="200")
    app.count(REQUESTS, 25, route="/", method="GET", status="500")
    app.observe(REQUEST_S, [0.1] * 125, route="/")
    await app.say(ago(seconds=1))
    worker.count(REQUESTS, 1000, route="/health", method="GET", status="200")
    await worker.say(ago(seconds=1), health={"busy": True})
    page = await watched.get("/reports/overview")
    # The app's requests only: what machines ask of workers is no news.
    assert page["requests"]["count"] == 125
    assert page["requests"]["share_5xx"] == 0.2
    assert page["request_durations"]["count"] == 125
    assert (page["workers"], page["workers_busy"]) == (1, 1)
    assert [(each["service"], each["state"]) for each in page["services"]] == [
        ("app", "healthy"),
        ("ml_worker", "healthy"),
    ]
    assert page["alerts_firing"] == 0
    assert (page["status"], page["firing"], page["drifting"]) == ("healthy", [], [])


@pytest.mark.parametrize(
    ("severity", "status"), [("info", "healthy"), ("warning", "degraded"), ("critical", "degraded")]
)
async def test_the_start_page_is_not_healthy_while_an_alert_fires(
    watched: Watching, began: datetime, severity: str, status: str
) -> None:
    await Process(watched, "app", "app-1", began).say(ago(seconds=1))
    alert = {
        "id": "1", "rule": "queue_age", "subject": "{}", "severity": severity, "state": "firing", "value": 1.0,
        "pending_since": began, "fired_at": began, "summary": "Tasks wait for 9 min.",
        "texts": '{"summary": {"en": "Tasks wait for 9 min.", "ru": "Задачи ждут 9 мин."}, "action": {}}',
    }  # fmt: skip
    async with watched.database.transaction() as connection:
        await connection.execute(insert(alerts).values(alert))
    page = await watched.get("/reports/overview")
    assert (page["status"], page["alerts_firing"]) == (status, 1)
    summary = {"en": "Tasks wait for 9 min.", "ru": "Задачи ждут 9 мин."}
    assert page["firing"] == [{"rule": "queue_age", "severity": severity, "summary": summary}]


async def test_what_models_failed_on_is_told_by_the_type_of_the_exception(watched: Watching, began: datetime) -> None:
    worker, model = Process(watched, "ml_worker", "w-1", began), Process(watched, "model_service", "m-1", began)
    for each in (worker, model):
        await each.say(ago(seconds=200))
        each.count("foretell_model_failures_total", 3, model="churn", version="2", reason="KeyError")
    worker.count("foretell_model_failures_total", 1, model="churn", version="1", reason="not_finite")
    await worker.say(ago(seconds=1))
    await model.say(ago(seconds=1))
    assert (await watched.get("/reports/errors"))["models"] == [
        {"model": "churn", "version": "2", "reason": "KeyError", "count": 6},
        {"model": "churn", "version": "1", "reason": "not_finite", "count": 1},
    ]


async def test_every_report_is_in_the_documentation(watched: Watching) -> None:
    paths = (await watched.get("/openapi.json"))["paths"]
    names = ["health", "latency", "throughput", "errors", "workers", "queues", "revenue", "overview"]
    assert {f"/reports/{name}" for name in names} | {
        "/queues/{queue}/dead", "/queues/{queue}/redrive", "/prometheus/targets"
    } <= set(paths)  # fmt: skip
    assert set(paths["/queues/{queue}/dead"]) == {"get", "delete"}
