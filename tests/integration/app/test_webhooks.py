"""`/webhooks`: an account's own, and nobody else's; secrets are shown once; addresses are looked at when set."""

import asyncio
import ipaddress
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from tests.integration.app.conftest import Account, client_of

from foretell.client.answers import ApiError
from foretell.client.asynchronous import AsyncClient
from foretell.domain.accounts.throttle import AccountThrottle
from foretell.domain.notifications import endpoints, tables
from foretell.kit.clock import now, uuid7
from foretell.services.app.api import build_api, surround
from foretell.services.app.settings import AppSettings
from foretell.services.app.state import AppState

Problem = Callable[..., None]
URL = "http://127.0.0.1:9009/hook"


@pytest.fixture
def settings(tmp_path: Path) -> AppSettings:
    return AppSettings(data_dir=tmp_path / "data", webhook_allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),))


@pytest.fixture
async def made(client: httpx.AsyncClient, ada: Account) -> dict[str, Any]:
    answer = await client.post("/webhooks", json={"url": URL, "description": "orders"}, headers=ada.headers)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    webhook: dict[str, Any] = answer.json()
    return webhook


async def test_null_stands_for_what_a_webhook_leaves_out(client: httpx.AsyncClient, ada: Account) -> None:
    answer = await client.post("/webhooks", json={"url": URL, "events": None, "description": None}, headers=ada.headers)
    assert (answer.status_code, answer.json()["description"]) == (201, "")


async def test_a_webhook_is_made_shown_changed_and_removed(
    client: httpx.AsyncClient, ada: Account, made: dict[str, Any], is_problem: Problem
) -> None:
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["url"], made["events"], made["description"], made["state"]) == (URL, None, "orders", "enabled")
    path = f"/webhooks/{made['id']}"
    assert (await client.get(path, headers=ada.headers)).json() == made
    assert (await client.get("/webhooks", headers=ada.headers)).json() == {"items": [made]}

    change = {"events": ["balance.low"], "description": "", "state": "paused", "url": URL + "/2"}
    changed = (await client.patch(path, json=change, headers=ada.headers)).json()
    assert changed == made | change
    back = (await client.patch(path, json={"events": None, "state": "enabled"}, headers=ada.headers)).json()
    assert (back["events"], back["state"], back["url"]) == (None, "enabled", URL + "/2")
    assert (await client.patch(path, json={}, headers=ada.headers)).json() == back

    rotated = await client.post(path + "/rotate", headers=ada.headers)
    assert rotated.headers["cache-control"] == "no-store"
    assert rotated.json()["secret"] not in (secret, "")
    assert (await client.delete(path, headers=ada.headers)).status_code == 204
    is_problem(await client.get(path, headers=ada.headers), 404, "not_found")
    assert (await client.get("/webhooks", headers=ada.headers)).json() == {"items": []}


async def test_nothing_shows_a_secret_again(client: httpx.AsyncClient, ada: Account, made: dict[str, Any]) -> None:
    path = f"/webhooks/{made['id']}"
    for answer in (
        await client.get(path, headers=ada.headers),
        await client.get("/webhooks", headers=ada.headers),
        await client.patch(path, json={"state": "paused"}, headers=ada.headers),
    ):
        assert "secret" not in answer.text
        assert "whsec" not in answer.text


async def test_somebody_elses_is_as_if_it_were_not_there(
    client: httpx.AsyncClient, bob: Account, made: dict[str, Any]
) -> None:
    answers = []
    for identifier in (made["id"], str(uuid7())):
        path = f"/webhooks/{identifier}"
        calls = [
            client.get(path, headers=bob.headers),
            client.patch(path, json={"state": "paused"}, headers=bob.headers),
            client.post(path + "/rotate", headers=bob.headers),
            client.post(path + "/test", headers=bob.headers),
            client.get(path + "/deliveries", headers=bob.headers),
            client.post(path + "/redeliver", json={"sequence": 1}, headers=bob.headers),
            client.post(path + "/redeliver", json={"since": "2026-01-01T00:00:00Z"}, headers=bob.headers),
            client.delete(path, headers=bob.headers),
        ]
        responses = [await call for call in calls]
        answers.append([(each.status_code, each.json()["detail"]) for each in responses])
    assert answers[0] == answers[1]
    assert {status for status, _ in answers[0]} == {404}
    assert (await client.get("/webhooks", headers=bob.headers)).json() == {"items": []}


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "http://169.254.1.1/latest",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://user:password@127.0.0.1/",
        "http://127.0.0.1:25/",
        "ftp://127.0.0.1/",
        "http://no-such-host.invalid/",
        "nonsense",
    ],
)
async def test_addresses_that_may_not_be_used(
    client: httpx.AsyncClient, ada: Account, made: dict[str, Any], url: str, is_problem: Problem
) -> None:
    for answer in (
        await client.post("/webhooks", json={"url": url}, headers=ada.headers),
        await client.patch(f"/webhooks/{made['id']}", json={"url": url}, headers=ada.headers),
    ):
        is_problem(answer, 422, "invalid_request")
        assert answer.json()["errors"][0]["pointer"] == "#/url"
    assert (await client.get("/webhooks", headers=ada.headers)).json()["items"][0]["url"] == URL


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": URL, "events": []},
        {"url": URL, "events": ["no.such"]},
        {"url": URL, "secret": "whsec_mine"},
        {"url": URL, "description": "x" * 201},
        {"url": URL, "state": "disabled"},
        {"url": URL, "description": "a\0b"},
    ],
)
async def test_bodies_that_do_not_fit(
    client: httpx.AsyncClient, ada: Account, body: dict[str, Any], is_problem: Problem
) -> None:
    is_problem(await client.post("/webhooks", json=body, headers=ada.headers), 422, "invalid_request")


async def test_half_a_surrogate_pair_is_no_text(
    client: httpx.AsyncClient, ada: Account, made: dict[str, Any], is_problem: Problem
) -> None:
    headers = ada.headers | {"Content-Type": "application/json"}
    for method, path in (("POST", "/webhooks"), ("PATCH", f"/webhooks/{made['id']}")):
        for name in ("description", "url"):
            content = json.dumps({"url": URL} | {name: "a\ud800"})
            answer = await client.request(method, path, content=content, headers=headers)
            is_problem(answer, 422, "invalid_request")
            assert [error["pointer"] for error in answer.json()["errors"]] == [f"#/{name}"]
        whole = json.dumps({"url": URL, "description": "\U0001f600"})
        answer = await client.request(method, path, content=whole, headers=headers)
        assert answer.json()["description"] == "\U0001f600"


async def test_an_account_has_so_many_and_no_more(
    client: httpx.AsyncClient, ada: Account, bob: Account, is_problem: Problem
) -> None:
    for _ in range(20):
        assert (await client.post("/webhooks", json={"url": URL}, headers=ada.headers)).status_code == 201
    is_problem(await client.post("/webhooks", json={"url": URL}, headers=ada.headers), 409, "too_many_webhooks")
    assert (await client.post("/webhooks", json={"url": URL}, headers=bob.headers)).status_code == 201


async def test_a_test_and_redeliveries_are_accepted(
    client: httpx.AsyncClient, ada: Account, made: dict[str, Any], is_problem: Problem
) -> None:
    path = f"/webhooks/{made['id']}"
    test = await client.post(path + "/test", headers=ada.headers)
    assert (test.status_code, test.json()) == (202, {"sequence": 1})
    again = await client.post(path + "/redeliver", json={"sequence": 1}, headers=ada.headers)
    assert (again.status_code, again.json()) == (202, {"events": 1})
    since = await client.post(path + "/redeliver", json={"since": "2026-01-01T00:00:00Z"}, headers=ada.headers)
    # A test is sent once only.
    assert (since.status_code, since.json()) == (202, {"events": 0})
    is_problem(await client.post(path + "/redeliver", json={"sequence": 2}, headers=ada.headers), 404, "not_found")
    for wrong in (
        {},
        {"sequence": 1, "since": "2026-01-01T00:00:00Z"},
        {"since": "2026-01-01T00:00:00"},
        {"sequence": 0},
    ):
        answer = await client.post(path + "/redeliver", json=wrong, headers=ada.headers)
        is_problem(answer, 422, "invalid_request")
    assert (await client.get(path + "/deliveries", headers=ada.headers)).json() == {"items": [], "next_cursor": None}


async def test_redeliveries_that_wait_are_bounded(
    state: AppState, ada: Account, made: dict[str, Any], is_problem: Problem
) -> None:
    path = f"/webhooks/{made['id']}/test"
    async with client_of(replace(state, webhook_sends=AccountThrottle(0))) as client:
        for _ in range(100):
            assert (await client.post(path, headers=ada.headers)).status_code == 202
        is_problem(await client.post(path, headers=ada.headers), 409, "too_many_redeliveries")


async def test_an_account_may_ask_for_so_many_sends_a_minute(
    state: AppState, ada: Account, bob: Account, made: dict[str, Any], is_problem: Problem
) -> None:
    path = f"/webhooks/{made['id']}"
    bodies = {"/test": None, "/redeliver": {"since": "2026-01-01T00:00:00Z"}}
    at = 0.0
    async with client_of(replace(state, webhook_sends=AccountThrottle(3, clock=lambda: at))) as client:
        for _ in range(3):
            assert (await client.post(path + "/test", headers=ada.headers)).status_code == 202
        for call, body in [*bodies.items(), ("/redeliver", {"sequence": 1})]:
            answer = await client.post(path + call, json=body, headers=ada.headers)
            is_problem(answer, 429, "too_many_attempts")
            assert answer.headers["retry-after"] == "20"
        is_problem(await client.post(path + "/test", headers=bob.headers), 404, "not_found")
        assert (await client.get(path, headers=ada.headers)).status_code == 200
        at += 20
        assert (await client.post(path + "/test", headers=ada.headers)).json() == {"sequence": 4}


async def test_the_secret_of_single_predictions(client: httpx.AsyncClient, ada: Account) -> None:
    secrets = [(await client.post("/webhooks/once/rotate", headers=ada.headers)).json()["secret"] for _ in range(2)]
    assert all(secret.startswith("whsec_") for secret in secrets)
    assert secrets[0] != secrets[1]


async def test_a_first_secret_that_is_asked_for_many_times_at_once(client: httpx.AsyncClient, ada: Account) -> None:
    answers = await asyncio.gather(*(client.post("/webhooks/once/rotate", headers=ada.headers) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({answer.json()["secret"] for answer in answers}) == 5


async def test_attempts_at_the_address_of_single_predictions_come_in_pages(
    client: httpx.AsyncClient, state: AppState, ada: Account, bob: Account, is_problem: Problem
) -> None:
    url = URL + "?order=17&of=ä"
    endpoint = {"id": uuid7(), "user_id": ada.id, "kind": "once", "url": url, "url_hash": endpoints.hash_of(url)}
    endpoint |= {"description": "", "state": "enabled", "cursor": 3, "last_event": 3, "created_at": now()}
    attempt = {"endpoint_id": endpoint["id"], "type": "prediction.finished", "attempt": 1, "outcome": "delivered"}
    attempt |= {"status_code": 204, "duration_ms": 5, "at": now()}
    ids = [uuid7() for _ in range(3)]
    async with state.database.transaction() as connection:
        await connection.execute(insert(tables.endpoints).values(endpoint))
        for sequence, event_id in enumerate(ids, start=1):
            values = attempt | {"event_id": event_id, "sequence": sequence}
            await connection.execute(insert(tables.deliveries).values(values))
    path, asked = "/webhooks/once/deliveries", {"url": url, "limit": 2}
    first = (await client.get(path, params=asked, headers=ada.headers)).json()
    rest = (await client.get(path, params=asked | {"cursor": first["next_cursor"]}, headers=ada.headers)).json()
    seen = [item["event_id"] for item in first["items"] + rest["items"]]
    assert (seen, rest["next_cursor"]) == ([str(each) for each in reversed(ids)], None)
    is_problem(await client.get(path, params=asked, headers=bob.headers), 404, "not_found")
    is_problem(await client.get(path, headers=ada.headers), 422, "invalid_request")


async def test_secrets_that_sign_are_bounded(
    client: httpx.AsyncClient, ada: Account, bob: Account, made: dict[str, Any], is_problem: Problem
) -> None:
    # The first secret of single predictions replaces none.
    for path, free in ((f"/webhooks/{made['id']}/rotate", 5), ("/webhooks/once/rotate", 6)):
        secrets = [(await client.post(path, headers=ada.headers)).json()["secret"] for _ in range(free)]
        assert len(set(secrets)) == free
        answer = await client.post(path, headers=ada.headers)
        is_problem(answer, 409, "too_many_rotations")
        assert 86_000 < int(answer.headers["retry-after"]) <= 86_400
        assert answer.json()["free_at"] in answer.json()["detail"]
    assert (await client.post("/webhooks/once/rotate", headers=bob.headers)).status_code == 200


async def test_the_client_has_a_call_for_each(state: AppState, ada: Account) -> None:
    transport = httpx.ASGITransport(surround(build_api(state), state.settings))
    token = ada.headers["Authorization"].removeprefix("Bearer ")
    async with AsyncClient("http://foretell", token=token, transport=transport) as client:
        made = await client.create_webhook(URL, events=["balance.low"], description="orders")
        assert made["secret"].startswith("whsec_")
        assert [each["id"] for each in await client.webhooks()] == [made["id"]]
        changed = await client.change_webhook(made["id"], state="paused", events=None)
        assert (changed["state"], changed["events"]) == ("paused", None)
        assert (await client.rotate_webhook(made["id"])) != made["secret"]
        assert (await client.rotate_webhook("once")).startswith("whsec_")
        sequence = await client.test_webhook(made["id"])
        assert await client.redeliver(made["id"], sequence=sequence) == 1
        assert await client.redeliver(made["id"], since="2026-01-01T00:00:00Z") >= 0
        assert (await client.deliveries(made["id"], limit=5))["items"] == []
        with pytest.raises(ApiError, match="named this address"):
            await client.deliveries("once", url=URL)
        assert (await client.set_low_balance(50))["threshold"] == 50
        page = await client.events()
        assert [event["type"] for event in page["items"]] == ["webhook.test"]
        assert (await client.events(page["next_cursor"], limit=5))["items"] == []
        await client.remove_webhook(made["id"])
        assert await client.webhooks() == []
