"""What somebody does with their own account: looks, password, everything that is kept of them, and its end."""

import csv
import io
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from foretell.domain.accounts import registration, telegram
from foretell.domain.predictions import usage
from foretell.kit.clock import now
from foretell.services.app.exporting import safe_cell
from foretell.services.app.state import AppState

from .conftest import PASSWORD, Account, client_of

IsProblem = Callable[[httpx.Response, int, str], None]
Submit = Callable[..., Awaitable[UUID]]
Finish = Callable[..., Awaitable[None]]
NEW = "another password that is long"


@pytest.fixture
async def eve(state: AppState) -> Account:
    """Somebody with a password."""
    password_hash = await state.passwords.hash(PASSWORD)
    async with state.database.transaction() as connection:
        user = await registration.register(connection, username="eve", password_hash=password_hash, grant_credits=100)
    token, _ = state.access_tokens.issue(user)
    return Account(user.id, {"Authorization": f"Bearer {token}"})


async def _sign_in(client: httpx.AsyncClient, password: str = PASSWORD) -> dict[str, str]:
    answer = await client.post("/session", json={"username": "eve", "password": password})
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrf_token"]}


async def test_looks_are_kept(client: httpx.AsyncClient, ada: Account) -> None:
    changed = await client.patch("/users/me", json={"language": "ru"}, headers=ada.headers)
    assert (changed.json()["language"], changed.json()["theme"]) == ("ru", None)
    await client.patch("/users/me", json={"theme": "dark"}, headers=ada.headers)
    me = (await client.get("/users/me", headers=ada.headers)).json()
    assert (me["language"], me["theme"], me["role"]) == ("ru", "dark", "user")
    await client.patch("/users/me", json={"language": None}, headers=ada.headers)
    assert (await client.get("/users/me", headers=ada.headers)).json()["language"] is None
    for wrong in ({"language": "de"}, {"theme": "pink"}, {"role": "operator"}, {"username": "bob"}):
        assert (await client.patch("/users/me", json=wrong, headers=ada.headers)).status_code == 422


async def test_a_new_password_ends_every_other_log_in(state: AppState, eve: Account, is_problem: IsProblem) -> None:
    async with client_of(state) as here, client_of(state) as there:
        csrf = await _sign_in(here)
        await _sign_in(there)
        for body, status, code in (
            ({"old": "wrong", "new": NEW}, 403, "wrong_password"),
            ({"old": PASSWORD, "new": "short"}, 422, "invalid_request"),
        ):
            is_problem(await here.post("/users/me/password", json=body, headers=csrf), status, code)
        done = await here.post("/users/me/password", json={"old": PASSWORD, "new": NEW}, headers=csrf)
        assert done.status_code == 204
        assert (await here.get("/session")).status_code == 200
        is_problem(await there.get("/session"), 401, "invalid_token")
        is_problem(await there.get("/balance", headers=eve.headers), 401, "invalid_token")
        there.cookies.clear()
        refused = await there.post("/session", json={"username": "eve", "password": PASSWORD})
        is_problem(refused, 401, "invalid_credentials")
        await _sign_in(there, NEW)


async def test_guesses_at_the_password_of_an_open_browser_are_throttled(
    client: httpx.AsyncClient, eve: Account, is_problem: IsProblem
) -> None:
    for _ in range(10):
        answer = await client.post("/users/me/password", json={"old": "wrong", "new": NEW}, headers=eve.headers)
        is_problem(answer, 403, "wrong_password")
    answer = await client.request("DELETE", "/users/me", json={"password": PASSWORD}, headers=eve.headers)
    is_problem(answer, 429, "too_many_attempts")


async def test_a_closed_account_lets_nobody_in_and_keeps_its_books(
    state: AppState, client: httpx.AsyncClient, eve: Account, submit: Submit, is_problem: IsProblem
) -> None:
    key = (await client.post("/api-keys", json={"name": "k"}, headers=eve.headers)).json()["key"]
    async with state.database.transaction() as connection:
        code, _ = await telegram.make_code(connection, eve.id)
        await telegram.link(connection, 42, code)
    waiting = await submit(eve)
    csrf = await _sign_in(client)
    empty = await client.request("DELETE", "/users/me", headers=csrf)
    assert [error["pointer"] for error in empty.json()["errors"]] == ["#/password"]
    refused = await client.request("DELETE", "/users/me", json={"password": "wrong"}, headers=csrf)
    is_problem(refused, 403, "wrong_password")
    closed = await client.request("DELETE", "/users/me", json={"password": PASSWORD}, headers=csrf)
    assert closed.status_code == 204
    assert "Max-Age=0" in closed.headers["set-cookie"]
    for headers in (eve.headers, {"X-API-Key": key}):
        is_problem(await client.get("/balance", headers=headers), 401, "invalid_token")
    is_problem(
        await client.post("/session", json={"username": "eve", "password": PASSWORD}), 401, "invalid_credentials"
    )
    taken = await client.post("/users", json={"username": "Eve", "password": NEW})
    is_problem(taken, 409, "username_taken")
    async with state.database.snapshot() as connection:
        assert await telegram.chats_of(connection, eve.id) == []
        user = await registration.find_user(connection, "eve")
    assert (user.active, user.closed_at is not None) == (False, True)
    assert waiting


async def test_everything_that_is_kept_comes_in_one_file(
    client: httpx.AsyncClient, ada: Account, bob: Account, submit: Submit, finish: Finish
) -> None:
    mine = [await submit(ada) for _ in range(2)]
    others = await submit(bob)
    await finish(mine[0])
    key = (await client.post("/api-keys", json={"name": "nightly"}, headers=ada.headers)).json()
    answer = await client.get("/users/me/export", headers=ada.headers)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "attachment" in answer.headers["content-disposition"]
    lines = [json.loads(line) for line in answer.text.splitlines()]
    by_record: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_record.setdefault(line["record"], []).append(line)
    assert by_record["account"][0]["username"] == "ada"
    assert by_record["balance"][0]["available"] == 98
    assert [line["id"] for line in by_record["prediction"]] == [str(each) for each in reversed(mine)]
    assert by_record["prediction"][1]["output"] == {"prediction": 1, "probability": 0.75}
    assert by_record["prediction"][0]["input"] == {"carrier": "AA", "distance_miles": 1.5}
    assert [line["kind"] for line in by_record["transaction"]] == ["capture", "hold", "hold", "grant"]
    assert by_record["api_key"][0]["prefix"] == key["prefix"]
    assert lines[-1] == {"record": "end"}
    for secret in (key["key"], str(others), "password"):
        assert secret not in answer.text


async def test_exports_are_not_for_every_moment(
    client: httpx.AsyncClient, ada: Account, state: AppState, is_problem: IsProblem
) -> None:
    for _ in range(state.settings.exports_per_minute):
        assert (await client.get("/predictions.csv", headers=ada.headers)).status_code == 200
    is_problem(await client.get("/users/me/export", headers=ada.headers), 429, "too_many_attempts")


async def test_the_history_as_a_table(client: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish) -> None:
    first, second = await submit(ada), await submit(ada, model="sentiment", stage="features")
    await finish(first)
    answer = await client.get("/predictions.csv", headers=ada.headers)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["id"] for row in rows] == [str(second), str(first)]
    assert (rows[1]["status"], rows[1]["model"], rows[1]["price"]) == ("succeeded", "flight-delay", "1")
    assert rows[1]["output"] == '{"prediction":1,"probability":0.75}'
    assert rows[1]["input"] == '{"carrier":"AA","distance_miles":1.50}'
    assert (rows[0]["features"], rows[0]["input"]) == ('{"carrier":"AA","distance_miles":1.50}', "")
    shown = (await client.get(f"/predictions/{first}", headers=ada.headers)).json()
    assert [rows[1][name] for name in ("created_at", "finished_at")] == [shown["created_at"], shown["finished_at"]]
    only = await client.get("/predictions.csv", params={"status": "succeeded"}, headers=ada.headers)
    assert len(only.text.splitlines()) == 2


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "|x", "%x", "\n=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert safe_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "1", "-1", "-1.5e-7", "AA", '{"a":1}', "flight-delay", "a=b"])
def test_what_is_none_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text


async def test_the_history_of_a_time(client: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish) -> None:
    before, ended = await submit(ada), await submit(ada)
    await finish(ended)
    middle = now()
    after = await submit(ada)

    async def ids(**span: str) -> list[str]:
        answer = await client.get("/predictions", params=span, headers=ada.headers)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert await ids(since=middle.isoformat()) == [str(after)]
    assert await ids(until=middle.isoformat()) == [str(ended), str(before)]
    assert await ids(until=middle.isoformat(), status="succeeded", model="flight-delay") == [str(ended)]
    assert await ids(until=middle.isoformat(), status="queued", model="flight-delay") == [str(before)]
    assert await ids(since=middle.isoformat(), until=middle.isoformat()) == []
    assert await ids(since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z") == [
        str(after),
        str(ended),
        str(before),
    ]
    assert await ids(since=(now() + timedelta(days=1)).isoformat()) == []
    for early in ("1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"):
        assert await ids(until=early) == []
        assert await ids(until=early, status="queued") == []
        assert len(await ids(since=early)) == 3
        table = await client.get("/predictions.csv", params={"until": early}, headers=ada.headers)
        assert (table.status_code, len(table.text.splitlines())) == (200, 1)
    for late in ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"):
        assert await ids(since=late) == []
        assert len(await ids(until=late)) == 3
    wrong = await client.get("/predictions", params={"since": "2026-01-01T00:00:00"}, headers=ada.headers)
    assert wrong.status_code == 422


async def test_usage_comes_from_sums(
    client: httpx.AsyncClient, state: AppState, ada: Account, bob: Account, submit: Submit, finish: Finish
) -> None:
    assert (await client.get("/usage", headers=ada.headers)).json() == {"items": []}
    for model, price in (("flight-delay", 1), ("flight-delay", 1), ("sentiment", 2)):
        await finish(await submit(ada, model=model, price=price))
    await finish(await submit(bob))
    canceled = await submit(ada)
    await client.delete(f"/predictions/{canceled}", headers=ada.headers)
    await submit(ada)

    async def add_up() -> None:
        left = 1
        while left:
            async with state.database.transaction() as connection:
                highest = (await usage.frontier(connection)).ledger_id
                left = await usage.add_up(connection, highest, most=3)

    for _ in range(2):
        # Added up again, nothing counts twice.
        await add_up()
        today = str(now().date())
        common = {"day": today, "failed": 0}
        assert (await client.get("/usage", params={"days": 1}, headers=ada.headers)).json()["items"] == [
            common | {"model": "flight-delay", "predictions": 3, "succeeded": 2, "canceled": 1, "credits": 2},
            common | {"model": "sentiment", "predictions": 1, "succeeded": 1, "canceled": 0, "credits": 2},
        ]
    await finish(await submit(ada))
    await add_up()
    (first, _) = (await client.get("/usage", headers=ada.headers)).json()["items"]
    assert (first["succeeded"], first["credits"]) == (3, 3)


async def test_a_queued_prediction_says_where_it_stands(
    client: httpx.AsyncClient, state: AppState, ada: Account, bob: Account, submit: Submit, finish: Finish
) -> None:
    others = [await submit(bob) for _ in range(3)]
    mine = await submit(ada)
    shown = (await client.get(f"/predictions/{mine}", headers=ada.headers)).json()
    assert shown["queue"] == {"ahead": 3, "expected_wait_s": None}
    await finish(others[0])
    await finish(mine)
    assert (await client.get(f"/predictions/{mine}", headers=ada.headers)).json()["queue"] is None


async def test_models_say_how_good_they_are(client: httpx.AsyncClient) -> None:
    for name, measure in (("flight-delay", "auc"), ("sentiment", "accuracy")):
        quality = (await client.get(f"/models/{name}")).json()["quality"]
        assert quality[0]["name"] == measure
        assert 0.5 < quality[0]["value"] < 1
        assert quality[0]["better"] == "higher"
        assert quality[0]["meaning"]["ru"] != quality[0]["meaning"]["en"]
