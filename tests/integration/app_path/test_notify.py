"""`"notify": {"webhook": URL}` of a single prediction, and a low balance, on the way through the app."""

import ipaddress
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from tests.integration.app_path.running import ORDER, PATH, Running, running
from tests.predictions import assert_books_are_right, balance_of, succeeded

from foretell.domain.accounts import telegram
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.credits.ledger import Balance
from foretell.domain.notifications.tables import events
from foretell.domain.predictions.tables import predictions
from foretell.services.app.settings import AppSettings, signing_secret

URL = "http://127.0.0.1:9009/done?order=17"


@pytest.fixture
async def app(settings: AppSettings) -> AsyncIterator[Running]:
    allowed = (ipaddress.ip_network("127.0.0.0/8"),)
    async with running(settings.model_copy(update={"webhook_allowed_networks": allowed})) as app:
        yield app
        await assert_books_are_right(app.database)


def _order(url: str = URL) -> dict[str, Any]:
    return ORDER | {"notify": {"webhook": url}}


async def _webhooks(app: Running, table: Any) -> list[str | None]:
    async with app.database.snapshot() as connection:
        return list((await connection.execute(select(table.c.webhook).order_by(table.c.id))).scalars())


async def test_its_end_is_written_for_whoever_it_names(app: Running) -> None:
    _, headers = await app.open_account()
    answers = [await app.client.post(PATH, json=order, headers=headers) for order in (ORDER, _order())]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert await _webhooks(app, predictions) == [None, URL]
    await app.tasks(2)
    ids = [answer.json()["id"] for answer in answers]
    await app.end([succeeded(UUID(each)) for each in ids])
    assert await _webhooks(app, events) == [URL]
    # Nobody else sees where.
    assert "webhook" not in (await app.client.get(f"/predictions/{ids[1]}", headers=headers)).text


async def test_the_same_key_means_the_same_webhook(app: Running) -> None:
    ada, headers = await app.open_account()
    keyed = headers | {"Idempotency-Key": "once"}
    first = await app.client.post(PATH, json=_order(), headers=keyed)
    again = await app.client.post(PATH, json=_order(), headers=keyed)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    for other in (ORDER, _order(URL + "8")):
        answer = await app.client.post(PATH, json=other, headers=keyed)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert await balance_of(app.database, ada) == Balance(99, 1)


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
async def test_a_chat_names_no_webhook_which_would_outlive_its_link(app: Running) -> None:
    ada, _ = await app.open_account()
    async with app.database.transaction() as connection:
        code, _ = await telegram.make_code(connection, ada)
        await telegram.link(connection, 42, code)
    async with app.database.snapshot() as connection:
        user, chat = await telegram.find_link(connection, 42)
    token, _ = AccessTokens(signing_secret(app.settings), lifetime_s=900).issue(user, chat)
    headers = {"Authorization": f"Bearer {token}"}
    refused = await app.client.post(PATH, json=_order(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert await balance_of(app.database, ada) == Balance(100, 0)
    # What it is for goes on.
    assert (await app.client.post(PATH, json=ORDER, headers=headers)).status_code == 202


@pytest.mark.parametrize(
    ("notify", "pointer"),
    [
        ({"webhook": "http://10.0.0.1/"}, "#/notify/webhook"),
        ({"webhook": "http://[::1]/"}, "#/notify/webhook"),
        ({"webhook": "http://user@127.0.0.1/"}, "#/notify/webhook"),
        ({"webhook": ""}, "#/notify/webhook"),
        ({"webhook": "http://127.0.0.1/" + "x" * 2048}, "#/notify/webhook"),
        ({"webhook": 1}, "#/notify/webhook"),
        ({}, "#/notify/webhook"),
        ({"webhook": URL, "email": "a@example.com"}, "#/notify/email"),
        ("http://127.0.0.1/", "#/notify"),
    ],
    ids=str,
)
@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
async def test_what_does_not_fit_is_refused_and_costs_nothing(app: Running, notify: object, pointer: str) -> None:
    ada, headers = await app.open_account()
    answer = await app.client.post(PATH, json=ORDER | {"notify": notify}, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert await balance_of(app.database, ada) == Balance(100, 0)


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
async def test_no_notify_at_all(app: Running) -> None:
    _, headers = await app.open_account()
    assert (await app.client.post(PATH, json=ORDER | {"notify": None}, headers=headers)).status_code == 202
    assert await _webhooks(app, predictions) == [None]


async def test_a_low_balance_at_a_threshold_of_ones_own(app: Running) -> None:
    _, headers = await app.open_account()
    assert (await app.client.get("/balance", headers=headers)).json() == {
        "available": 100,
        "held": 0,
        "threshold": None,
    }
    changed = await app.client.patch("/balance", json={"threshold": 100}, headers=headers)
    assert changed.json() == {"available": 100, "held": 0, "threshold": 100}
    assert (await app.client.get("/events", headers=headers)).json()["items"] == []
    answer = await app.client.post(PATH, json=ORDER, headers=headers)
    await app.tasks()
    await app.end([succeeded(UUID(answer.json()["id"]))])
    told = (await app.client.get("/events", headers=headers)).json()["items"]
    assert [event["type"] for event in told] == ["prediction.finished", "balance.low"]
    assert told[1]["data"] == {"available": 99, "held": 0, "threshold": 100}
    for wrong in ({}, {"threshold": 0}, {"threshold": 10**10}, {"available": 1000}):
        assert (await app.client.patch("/balance", json=wrong, headers=headers)).status_code == 422
    assert (await app.client.patch("/balance", json={"threshold": None}, headers=headers)).json()["threshold"] is None
