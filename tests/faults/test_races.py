"""Many requests for the same thing at the same moment."""

import asyncio
from collections import Counter
from uuid import UUID

import httpx
import pytest
from tests.faults.callers import authorized
from tests.faults.promises import assert_promises_kept
from tests.system import FLIGHT, System

pytestmark = pytest.mark.faults

_ORDER = {"model": "flight-delay", "input": FLIGHT}
_OTHER = {"model": "flight-delay", "input": {**FLIGHT, "distance_miles": 229}}


async def test_a_hundred_requests_with_one_key_make_one_prediction(system: System) -> None:
    user_id, client = await authorized(system, credits=1000)
    async with client:
        for round_number in range(3):
            key = {"Idempotency-Key": f"round {round_number}"}
            calls = (client.post("/predictions/predict", json=_ORDER, headers=key) for _ in range(100))
            answers = await asyncio.gather(*calls)
            statuses = Counter(answer.status_code for answer in answers)
            assert statuses.keys() <= {200, 202, 409}
            ids = {answer.json()["id"] for answer in answers if answer.status_code != 409}
            assert len(ids) == 1
            # One of them made it; all the others were told that it had been there before.
            made = [a for a in answers if a.status_code != 409 and "idempotency-replayed" not in a.headers]
            assert len(made) == 1
            other = await client.post("/predictions/predict", json=_OTHER, headers=key)
            assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        await assert_promises_kept(system, ids=[UUID(identifier) for identifier in ids])
    assert (await system.balance(user_id)).available == 997


async def test_one_key_with_two_bodies_at_once_takes_one_of_them(system: System) -> None:
    user_id, client = await authorized(system, credits=1000)
    async with client:
        key = {"Idempotency-Key": "both"}
        orders = [_ORDER, _OTHER] * 50
        answers = await asyncio.gather(
            *(client.post("/predictions/predict", json=order, headers=key) for order in orders)
        )
        taken = [order for order, answer in zip(orders, answers, strict=True) if answer.status_code in (200, 202)]
        refused = [order for order, answer in zip(orders, answers, strict=True) if answer.status_code == 422]
        assert len(taken) + len(refused) + sum(answer.status_code == 409 for answer in answers) == 100
        assert taken
        assert refused
        assert all(order == taken[0] for order in taken)
        assert all(order != taken[0] for order in refused)
        await assert_promises_kept(system)
    assert (await system.balance(user_id)).available == 999


async def test_credits_for_ten_go_to_ten_of_two_hundred(system: System) -> None:
    user_id, token = await system.new_user(credits=10)
    # Four connections, so that the requests come to the app on several of them at once and not as one burst.
    limits = httpx.Limits(max_connections=4)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers, limits=limits, timeout=60) as client:
        answers = await asyncio.gather(*(client.post("/predictions/predict", json=_ORDER) for _ in range(200)))
        assert Counter(answer.status_code for answer in answers) == {202: 10, 402: 190}
        ids = [UUID(answer.json()["id"]) for answer in answers if answer.status_code == 202]
        ended = await assert_promises_kept(system, ids=ids)
    assert ended == {("succeeded", None): 10}
    balance = await system.balance(user_id)
    assert (balance.available, balance.held) == (0, 0)


async def test_canceling_and_ending_at_once_ends_each_prediction_once(system: System) -> None:
    user_id, client = await authorized(system, credits=200)
    async with client:

        async def order_and_cancel() -> tuple[str, int]:
            location = (await client.post("/predictions/predict", json=_ORDER)).headers["location"]
            return location, (await client.delete(location)).status_code

        answers = await asyncio.gather(*(order_and_cancel() for _ in range(200)))
        assert {status for _, status in answers} <= {200, 409}
        await assert_promises_kept(system)
        for location, status in answers:
            # Whoever was told that it is canceled finds it canceled, and whoever came too late has a result.
            expected = "canceled" if status == 200 else "succeeded"
            assert (await client.get(location)).json()["status"] == expected
    canceled = sum(status == 200 for _, status in answers)
    assert (await system.balance(user_id)).available == canceled


async def test_two_apps_race_for_the_same_credits_and_keys(system: System) -> None:
    user_id, token = await system.new_user(credits=10)
    second = system.spawn_app_on_another_port()
    headers = {"Authorization": f"Bearer {token}"}
    try:
        await system.wait_healthy()
        async with (
            httpx.AsyncClient(base_url=system.url, headers=headers, timeout=60) as one,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{second.port}", headers=headers, timeout=60) as other,
        ):
            keys = [f"key {number % 20}" for number in range(200)]
            answers = await asyncio.gather(
                *(
                    client.post("/predictions/predict", json=_ORDER, headers={"Idempotency-Key": key})
                    for number, key in enumerate(keys)
                    for client in ((one, other) if number % 2 else (other, one))
                )
            )
        accepted = {answer.json()["id"] for answer in answers if answer.status_code in (200, 202)}
        assert {answer.status_code for answer in answers} <= {200, 202, 402, 409}
        assert len(accepted) == 10
        await assert_promises_kept(system, ids=[UUID(identifier) for identifier in accepted])
    finally:
        await system.end([second])
    balance = await system.balance(user_id)
    assert (balance.available, balance.held) == (0, 0)
