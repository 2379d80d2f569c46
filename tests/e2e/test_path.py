"""The way of a prediction through real processes: what a user sees of it, and what a stop leaves of it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.faults.callers import authorized, new_callers
from tests.faults.promises import assert_promises_kept
from tests.system import FLIGHT, System, wait_until

_ORDER = {"model": "flight-delay", "input": FLIGHT}
_FEATURES = {"model": "flight-delay", "features": {"carrier": "AA", "dep_hour": 9, "distance": 550, "weather_delay": 0}}
_PASSWORD = "correct horse battery staple"
#: Long enough for every test here; what is asked for ends in a small part of it.
_WAIT = {"Prefer": "wait=30"}


@asynccontextmanager
async def _registered(system: System, username: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a user who came in by the front door."""
    async with httpx.AsyncClient(base_url=system.url, timeout=40) as client:
        registered = await client.post("/users", json={"username": username, "password": _PASSWORD})
        assert registered.status_code == 201, registered.text
        taken = await client.post("/token", data={"username": username, "password": _PASSWORD})
        assert taken.status_code == 200, taken.text
        client.headers["Authorization"] = f"Bearer {taken.json()['access_token']}"
        yield client


async def _ended(client: httpx.AsyncClient, location: str) -> dict[str, Any]:
    """Ask until the prediction has ended."""
    async with asyncio.timeout(60):
        while (view := (await client.get(location)).json())["status"] == "queued":
            await asyncio.sleep(0.02)
    return view


async def _balance(client: httpx.AsyncClient) -> tuple[int, int]:
    balance = (await client.get("/balance")).json()
    return balance["available"], balance["held"]


async def test_a_user_registers_predicts_and_pays(system: System) -> None:
    async with _registered(system, "ada") as client:
        assert await _balance(client) == (100, 0)
        accepted = await client.post("/predictions/predict", json=_ORDER)
        assert accepted.status_code == 202
        body = accepted.json()
        assert (body["status"], body["model"], body["version"], body["price"]) == ("queued", "flight-delay", "1.0.0", 1)
        assert accepted.headers["location"] == f"/predictions/{body['id']}"

        view = await _ended(client, accepted.headers["location"])
        assert view["status"] == "succeeded"
        assert view["output"]["prediction"] in (0, 1)
        assert 0 <= view["output"]["probability"] <= 1
        assert view["input"] == FLIGHT
        assert view["worker_id"] in {worker.instance for worker in system.alive("worker")}
        assert view["created_at"] <= view["published_at"] <= view["started_at"] <= view["finished_at"]
        timings = view["timings"]
        assert timings["total_s"] == pytest.approx(timings["waiting_s"] + timings["running_s"], abs=1e-5)

        assert await _balance(client) == (99, 0)
        movements = (await client.get("/transactions")).json()["items"]
        assert [movement["kind"] for movement in movements] == ["capture", "hold", "grant"]
        assert [movement["amount"] for movement in movements] == [1, 1, 100]
        assert {movement["prediction_id"] for movement in movements[:2]} == {body["id"]}
        history = (await client.get("/predictions")).json()["items"]
        assert [row["id"] for row in history] == [body["id"]]
    await assert_promises_kept(system)


async def test_features_skip_preprocessing(system: System) -> None:
    _, client = await authorized(system)
    async with client:
        # 09:15 in clear weather is what the features say.
        given = {"carrier": "AA", "departure_time": "09:15", "distance_miles": 550, "weather_code": 1}
        by_input = await client.post(
            "/predictions/predict", json={"model": "flight-delay", "input": given}, headers=_WAIT
        )
        by_features = await client.post("/predictions/predict", json=_FEATURES, headers=_WAIT)
        assert by_input.json()["output"] == by_features.json()["output"]
        assert (await client.get(by_features.headers["location"])).json()["features"] == _FEATURES["features"]


async def test_a_caller_may_wait_for_the_result(system: System) -> None:
    _, client = await authorized(system)
    async with client:
        answer = await client.post("/predictions/predict", json=_ORDER, headers=_WAIT)
        assert answer.status_code == 200
        assert answer.headers["preference-applied"] == "wait"
        now = (await client.get(answer.headers["location"])).json()
        assert {**now, **answer.json()} == now


async def test_a_caller_may_follow_the_events(system: System) -> None:
    _, client = await authorized(system)
    async with client:
        await system.scale("worker", 0)
        accepted = await client.post("/predictions/predict", json=_ORDER)
        events = _events(client, accepted.headers["location"])
        assert (await anext(events))["status"] == "queued"
        system.wanted["worker"] = 1
        system.replace_missing()
        async with asyncio.timeout(60):
            ended = await anext(events)
        assert (ended["status"], ended["id"]) == ("succeeded", accepted.json()["id"])
        assert ended["output"]["prediction"] in (0, 1)
        assert [event async for event in events] == []


async def _events(client: httpx.AsyncClient, location: str) -> AsyncIterator[dict[str, Any]]:
    """The data of the events of a prediction, until the stream ends."""
    async with client.stream("GET", f"{location}/events") as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


async def test_an_api_key_works_until_it_is_revoked(system: System) -> None:
    _, client = await authorized(system)
    async with client, httpx.AsyncClient(base_url=system.url, timeout=40) as program:
        created = await client.post("/api-keys", json={"name": "nightly"})
        assert created.status_code == 201
        program.headers["Authorization"] = f"Bearer {created.json()['key']}"
        assert (await program.post("/predictions/predict", json=_ORDER, headers=_WAIT)).status_code == 200
        assert (await client.delete(f"/api-keys/{created.json()['id']}")).status_code == 204
        async with asyncio.timeout(60):
            # A key that was looked up a moment ago may be believed a little longer.
            while (refused := await program.post("/predictions/predict", json=_ORDER)).status_code != 401:
                await asyncio.sleep(0.2)
        assert refused.json()["code"] == "invalid_token"


async def test_a_canceled_prediction_gives_its_credits_back(system: System) -> None:
    await system.scale("worker", 0)
    _, client = await authorized(system, credits=10)
    async with client:
        accepted = await client.post("/predictions/predict", json=_ORDER)
        location = accepted.headers["location"]
        assert await _balance(client) == (9, 1)
        canceled = await client.delete(location)
        assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
        assert await _balance(client) == (10, 0)
        assert (await client.delete(location)).status_code == 409
        # Its task still comes to a worker, and changes nothing.
        await system.scale("worker", 1)
        await assert_promises_kept(system)
        assert (await client.get(location)).json()["status"] == "canceled"
        kinds = [movement["kind"] for movement in (await client.get("/transactions")).json()["items"]]
        assert kinds == ["release", "hold", "grant"]
        assert await _balance(client) == (10, 0)


async def test_without_credits_there_is_no_prediction(system: System) -> None:
    _, client = await authorized(system, credits=1)
    async with client:
        assert (await client.post("/predictions/predict", json=_ORDER, headers=_WAIT)).status_code == 200
        refused = await client.post("/predictions/predict", json=_ORDER)
        assert refused.status_code == 402
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "not_enough_credits"
        assert len((await client.get("/predictions")).json()["items"]) == 1
        assert await _balance(client) == (0, 0)


async def test_a_retry_with_the_same_key_gets_the_same_prediction(system: System) -> None:
    _, client = await authorized(system, credits=10)
    async with client:
        key = {"Idempotency-Key": "order 17"}
        first = await client.post("/predictions/predict", json=_ORDER, headers=key)
        assert first.status_code == 202
        retry = await client.post("/predictions/predict", json=_ORDER, headers={**key, **_WAIT})
        assert retry.status_code == 200
        assert retry.headers["idempotency-replayed"] == "true"
        assert (retry.json()["id"], retry.json()["status"]) == (first.json()["id"], "succeeded")
        other = await client.post("/predictions/predict", json=_FEATURES, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        assert await _balance(client) == (9, 0)


async def test_every_process_says_how_it_is_and_what_it_did(system: System) -> None:
    _, client = await authorized(system)
    async with client:
        assert (await client.post("/predictions/predict", json=_ORDER, headers=_WAIT)).status_code == 200
        names = {"app": "app", "dispatcher": "dispatcher", "worker": "ml_worker"}
        measured = {"app": "foretell_http_requests_total", "dispatcher": "foretell_predictions_settled_total"}
        for running in system.alive():
            base = f"http://127.0.0.1:{running.port}"
            health = (await client.get(f"{base}/health")).json()
            assert (health["status"], health["service"]) == ("healthy", names[running.service])
            assert health["instance"] == running.instance
            for kind in ("live", "ready"):
                assert (await client.get(f"{base}/health/{kind}")).status_code == 200
            metrics = (await client.get(f"{base}/metrics")).text
            assert f'instance="{running.instance}"' in metrics
            assert measured.get(running.service, "foretell_worker_busy") in metrics


@pytest.mark.faults
@pytest.mark.parametrize("service", ["worker", "dispatcher", "app"])
async def test_a_polite_stop_under_load_loses_nothing(system: System, service: str) -> None:
    callers = await new_callers(system)
    async with callers.calling():
        await callers.progress(50)
        for running in system.alive(service):
            assert await system.end([running]) == [0], system.log_of(running)[-3000:]
            await system.heal()
            await callers.progress(20)
    ended = await assert_promises_kept(system, callers)
    assert set(ended) == {("succeeded", None)}
    # What was accepted was also answered: a retry never finds a prediction that it had not heard of.
    assert callers.replays == 0
    if service != "app":
        assert set(callers.answers) == {202}


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_stop_ends_open_streams_and_answers_who_waits(system: System, number: signal.Signals) -> None:
    await system.scale("worker", 0)
    _, client = await authorized(system)
    async with client:
        accepted = [await client.post("/predictions/predict", json=_ORDER) for _ in range(5)]
        streams = [_events(client, answer.headers["location"]) for answer in accepted]
        for events in streams:
            assert (await anext(events))["status"] == "queued"
        waiting = [
            asyncio.create_task(client.post("/predictions/predict", json=_ORDER, headers=_WAIT, timeout=40))
            for _ in range(5)
        ]
        while await system.count("queued") < 10:
            await asyncio.sleep(0.02)
        assert await system.end(system.alive(), number) == [0, 0]
        # Whoever waited hears that the prediction is accepted, and asks again later; the streams end in order.
        answers = await asyncio.gather(*waiting)
        assert [answer.status_code for answer in answers] == [202] * 5
        for events in streams:
            assert [event["status"] async for event in events] in ([], ["queued"])
        await system.scale("worker", 2)
        for answer in [*accepted, *answers]:
            assert (await _ended(client, answer.headers["location"]))["status"] == "succeeded"
    await assert_promises_kept(system)


@pytest.mark.faults
async def test_a_restart_of_everything_keeps_everything(system: System) -> None:
    async with _registered(system, "grace") as client:
        before = await client.post("/predictions/predict", json=_ORDER, headers=_WAIT)
        key = {"Authorization": f"Bearer {(await client.post('/api-keys', json={'name': 'kept'})).json()['key']}"}
        await system.end(system.alive("worker"))
        queued = await client.post("/predictions/predict", json=_ORDER)
        statuses = await system.end(system.alive())
        assert statuses == [0] * len(statuses)
        await wait_until(lambda: not system.alive(), timeout_s=60, what="everything to be down")
        await system.heal()
        assert (await client.get(before.headers["location"])).json()["output"] == before.json()["output"]
        assert (await _ended(client, queued.headers["location"]))["status"] == "succeeded"
        balance = (await client.get("/balance", headers=key)).json()
        assert (balance["available"], balance["held"]) == (98, 0)
    await assert_promises_kept(system)
