"""`/admin`: there for operators alone, with the journal of what they do."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from foretell.domain.accounts import registration, telegram
from foretell.domain.accounts.identity import User
from foretell.domain.operators import journal, predictions, users
from foretell.domain.operators.journal import Actor
from foretell.kit.clock import now
from foretell.services.app.state import AppState

from .conftest import PASSWORD, Account, client_of

IsProblem = Callable[[httpx.Response, int, str], None]
Submit = Callable[..., Awaitable[UUID]]
Finish = Callable[..., Awaitable[None]]

COMMAND_LINE = Actor(None, "command line: root", "machine")


@pytest.fixture
async def olga(state: AppState) -> Account:
    """An operator, with a password."""
    password_hash = await state.passwords.hash(PASSWORD)
    async with state.database.transaction() as connection:
        user = await users.add(
            connection, COMMAND_LINE, username="olga", password_hash=password_hash, credits=0, role="operator"
        )
    token, _ = state.access_tokens.issue(user)
    return Account(user.id, {"Authorization": f"Bearer {token}"})


async def _journal(client: httpx.AsyncClient, operator: Account, **parameters: Any) -> list[dict[str, Any]]:
    answer = await client.get("/admin/journal", params=parameters, headers=operator.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_to_everybody_else_there_is_nothing(
    client: httpx.AsyncClient, ada: Account, olga: Account, is_problem: IsProblem
) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = [path for path in document["paths"] if path.startswith("/admin")]
    assert len(paths) >= 9
    nothing = (await client.get("/nothing", headers=ada.headers)).json()
    for path in [*paths, "/admin", "/admin/", "/admin/nothing", "/admin/users/1"]:
        url = path.replace("{user_id}", str(uuid4()))
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            is_problem(await client.request(method, url), 401, "invalid_token")
            answer = await client.request(method, url, headers=ada.headers, content=b"{")
            is_problem(answer, 404, "not_found")
            assert answer.json()["detail"] == nothing["detail"]
            assert "allow" not in answer.headers
    assert (await client.get("/admin/users", headers=olga.headers)).status_code == 200
    is_problem(await client.get("/admin/nothing", headers=olga.headers), 404, "not_found")


async def test_who_was_an_operator_is_none_at_once(
    client: httpx.AsyncClient, state: AppState, olga: Account, is_problem: IsProblem
) -> None:
    async with client_of(state) as browser:
        await browser.post("/session", json={"username": "olga", "password": PASSWORD})
        assert (await browser.get("/admin/users")).status_code == 200
        async with state.database.transaction() as connection:
            await users.set_role(connection, COMMAND_LINE, olga.id, "user")
        # The token still says operator: what counts is what the database says.
        is_problem(await client.get("/admin/users", headers=olga.headers), 404, "not_found")
        is_problem(await browser.get("/admin/users"), 404, "not_found")


async def test_a_chat_of_an_operator_is_no_operator(
    client: httpx.AsyncClient, state: AppState, olga: Account, is_problem: IsProblem
) -> None:
    async with state.database.transaction() as connection:
        code, _ = await telegram.make_code(connection, olga.id)
        await telegram.link(connection, 42, code)
        user, link = await telegram.find_link(connection, 42)
    token, _ = state.access_tokens.issue(user, link)
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await client.get("/balance", headers=bearer)).status_code == 200
    is_problem(await client.get("/admin/users", headers=bearer), 404, "not_found")


async def test_the_cookie_of_an_operator_needs_its_token(
    state: AppState, olga: Account, ada: Account, is_problem: IsProblem
) -> None:
    async with client_of(state) as browser:
        answer = await browser.post("/session", json={"username": "olga", "password": PASSWORD})
        assert answer.json()["user"]["role"] == "operator"
        path = f"/admin/users/{ada.id}/grant"
        is_problem(await browser.post(path, json={"credits": 5}), 403, "csrf")
        csrf = {"X-CSRF-Token": answer.json()["csrf_token"]}
        granted = await browser.post(path, json={"credits": 5}, headers=csrf)
        assert granted.json()["available"] == 105


async def test_accounts_are_found_by_name_and_id(
    client: httpx.AsyncClient, state: AppState, olga: Account, ada: Account, bob: Account
) -> None:
    async def names(**parameters: Any) -> list[str]:
        answer = await client.get("/admin/users", params=parameters, headers=olga.headers)
        assert answer.status_code == 200, answer.text
        return [item["username"] for item in answer.json()["items"]]

    assert set(await names()) == {"olga", "ada", "bob"}
    assert await names(name="AD") == ["ada"]
    assert await names(name=str(bob.id)) == ["bob"]
    assert await names(name="%") == []
    assert await names(role="operator") == ["olga"]
    assert await names(active=False) == []
    first = (await client.get("/admin/users", params={"limit": 2}, headers=olga.headers)).json()
    rest = await client.get("/admin/users", params={"cursor": first["next_cursor"]}, headers=olga.headers)
    assert len(first["items"]) == 2
    assert len(rest.json()["items"]) == 1
    assert rest.json()["next_cursor"] is None


async def test_a_grant_counts_once_by_its_reference_and_stands_in_the_journal(
    client: httpx.AsyncClient, olga: Account, ada: Account, is_problem: IsProblem
) -> None:
    path, body = f"/admin/users/{ada.id}/grant", {"credits": 50, "reference": "order-1", "note": "for the workshop"}
    granted = await client.post(path, json=body, headers=olga.headers)
    assert (granted.status_code, granted.json()["available"]) == (200, 150)
    is_problem(await client.post(path, json=body, headers=olga.headers), 409, "duplicate_reference")
    is_problem(await client.post(path, json={"credits": 0}, headers=olga.headers), 422, "invalid_request")
    is_problem(
        await client.post(f"/admin/users/{uuid4()}/grant", json={"credits": 5}, headers=olga.headers), 404, "not_found"
    )
    (entry,) = await _journal(client, olga, subject=f"user:{ada.id}")
    assert (entry["act"], entry["operator"], entry["operator_id"]) == ("user.grant", "olga", str(olga.id))
    assert entry["before"] == {"available": 100}
    assert entry["after"]["available"] == 150
    assert (entry["after"]["credits"], entry["after"]["note"]) == (50, "for the workshop")
    moved = await client.get(f"/admin/users/{ada.id}/transactions", headers=olga.headers)
    assert [item["reference"] for item in moved.json()["items"]] == ["order-1", None]
    assert entry["after"]["transaction"] == moved.json()["items"][0]["id"]


async def test_what_a_prediction_has_cost_is_given_back_once(
    client: httpx.AsyncClient,
    olga: Account,
    ada: Account,
    bob: Account,
    submit: Submit,
    finish: Finish,
    is_problem: IsProblem,
) -> None:
    done, waiting = await submit(ada, price=7), await submit(ada)
    await finish(done)
    path = f"/admin/users/{ada.id}/refund"
    answer = await client.post(path, json={"prediction_id": str(done)}, headers=olga.headers)
    assert (answer.status_code, answer.json()["available"], answer.json()["held"]) == (200, 99, 1)
    again = await client.post(path, json={"prediction_id": str(done)}, headers=olga.headers)
    is_problem(again, 409, "duplicate_reference")
    other = await client.post(path, json={"prediction_id": str(waiting)}, headers=olga.headers)
    is_problem(other, 409, "not_refundable")
    foreign = await client.post(
        f"/admin/users/{bob.id}/refund", json={"prediction_id": str(done)}, headers=olga.headers
    )
    is_problem(foreign, 404, "not_found")
    for body in ({}, {"prediction_id": str(done), "credits": 1}):
        is_problem(await client.post(path, json=body, headers=olga.headers), 422, "invalid_request")
    assert (await client.post(path, json={"credits": 3}, headers=olga.headers)).json()["available"] == 102
    assert [entry["act"] for entry in await _journal(client, olga, subject=f"user:{ada.id}")] == ["user.refund"] * 2


async def test_blocking_stops_everything_at_once_and_can_be_undone(
    client: httpx.AsyncClient, olga: Account, ada: Account, is_problem: IsProblem
) -> None:
    key = (await client.post("/api-keys", json={"name": "k"}, headers=ada.headers)).json()["key"]
    assert (await client.get("/balance", headers={"X-API-Key": key})).status_code == 200
    path = f"/admin/users/{ada.id}"
    blocked = await client.post(f"{path}/block", json={"reason": "abuse"}, headers=olga.headers)
    assert (blocked.status_code, blocked.json()["active"]) == (200, False)
    for headers in (ada.headers, {"X-API-Key": key}):
        is_problem(await client.get("/balance", headers=headers), 401, "invalid_token")
    # Twice is once.
    await client.post(f"{path}/block", json={}, headers=olga.headers)
    assert (await client.post(f"{path}/unblock", json={}, headers=olga.headers)).json()["active"] is True
    assert (await client.get("/balance", headers={"X-API-Key": key})).status_code == 200
    entries = await _journal(client, olga, subject=f"user:{ada.id}")
    assert [(entry["act"], entry["before"], entry["after"]) for entry in entries] == [
        ("user.unblock", {"active": False, "closed_at": None}, {"active": True}),
        ("user.block", {"active": True}, {"active": False, "reason": "abuse"}),
    ]


async def test_nobody_shuts_themselves_out(client: httpx.AsyncClient, olga: Account, is_problem: IsProblem) -> None:
    path = f"/admin/users/{olga.id}"
    is_problem(await client.post(f"{path}/block", json={}, headers=olga.headers), 409, "not_yourself")
    is_problem(await client.post(f"{path}/role", json={"role": "user"}, headers=olga.headers), 409, "not_yourself")
    assert (await client.get(path, headers=olga.headers)).json()["role"] == "operator"


async def test_an_operator_is_made_by_another(
    client: httpx.AsyncClient, state: AppState, olga: Account, ada: Account
) -> None:
    made = await client.post(f"/admin/users/{ada.id}/role", json={"role": "operator"}, headers=olga.headers)
    assert made.json()["role"] == "operator"
    user = User(ada.id, "ada", "operator", True, now())
    token, _ = state.access_tokens.issue(user)
    assert (await client.get("/admin/users", headers={"Authorization": f"Bearer {token}"})).status_code == 200


async def test_details_say_what_an_account_has(
    client: httpx.AsyncClient, olga: Account, ada: Account, submit: Submit
) -> None:
    await submit(ada)
    await client.post("/api-keys", json={"name": "k"}, headers=ada.headers)
    shown = (await client.get(f"/admin/users/{ada.id}", headers=olga.headers)).json()
    assert (shown["queued"], shown["api_keys"], shown["available"], shown["held"]) == (1, 1, 99, 1)


async def test_predictions_of_everybody_without_inputs(
    client: httpx.AsyncClient, olga: Account, ada: Account, bob: Account, submit: Submit, finish: Finish
) -> None:
    mine = [await submit(ada), await submit(bob), await submit(ada, model="sentiment")]
    await finish(mine[0])

    async def ids(**parameters: Any) -> list[str]:
        answer = await client.get("/admin/predictions", params=parameters, headers=olga.headers)
        assert answer.status_code == 200, answer.text
        assert "carrier" not in answer.text
        assert "probability" not in answer.text
        return [item["id"] for item in answer.json()["items"]]

    newest = [str(each) for each in reversed(mine)]
    assert await ids() == newest
    assert await ids(user_id=str(ada.id)) == [newest[0], newest[2]]
    assert await ids(model="sentiment") == newest[:1]
    assert await ids(status="queued") == newest[:2]
    assert await ids(status="succeeded", user_id=str(ada.id)) == newest[2:]
    first = (await client.get("/admin/predictions", params={"limit": 2}, headers=olga.headers)).json()
    assert [item["username"] for item in first["items"]] == ["ada", "bob"]
    assert await ids(cursor=first["next_cursor"]) == newest[2:]


async def test_what_is_rare_is_found_page_by_page(
    client: httpx.AsyncClient,
    olga: Account,
    ada: Account,
    submit: Submit,
    finish: Finish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predictions, "MOST_LOOKED_AT", 2)
    rare = await submit(ada, model="sentiment")
    for _ in range(4):
        await submit(ada)
    seen: list[str] = []
    parameters: dict[str, Any] = {"model": "sentiment"}
    pages = 0
    while True:
        page = (await client.get("/admin/predictions", params=parameters, headers=olga.headers)).json()
        seen += [item["id"] for item in page["items"]]
        pages += 1
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert (seen, pages) == ([str(rare)], 3)


async def test_the_journal_comes_in_pages_and_says_what_the_command_line_did(
    client: httpx.AsyncClient, state: AppState, olga: Account, ada: Account
) -> None:
    for credits in (1, 2, 3):
        async with state.database.transaction() as connection:
            await users.grant(connection, COMMAND_LINE, ada.id, credits)
    first = (await client.get("/admin/journal", params={"limit": 2}, headers=olga.headers)).json()
    assert [entry["after"]["credits"] for entry in first["items"]] == [3, 2]
    assert first["items"][0]["operator"] == "command line: root"
    rest = await _journal(client, olga, cursor=first["next_cursor"])
    assert [entry["act"] for entry in rest] == ["user.grant", "user.add"]


async def test_an_act_that_fails_leaves_no_entry(
    client: httpx.AsyncClient, state: AppState, olga: Account, ada: Account
) -> None:
    before = len(await _journal(client, olga))

    async def grant_and_fail() -> None:
        async with state.database.transaction() as connection:
            await users.grant(connection, COMMAND_LINE, ada.id, 5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await grant_and_fail()
    assert len(await _journal(client, olga)) == before
    async with state.database.snapshot() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM journal")) == before
        assert len(await journal.page(connection, limit=10, subject=f"user:{ada.id}")) == 0


async def test_a_blocked_account_says_so_to_other_processes(state: AppState, ada: Account) -> None:
    async with state.database.transaction() as connection:
        await users.block(connection, COMMAND_LINE, ada.id)
        ended = await registration.ended_since(connection, now() - timedelta(minutes=1))
    assert [(each.user_id, each.active) for each in ended] == [(ada.id, False)]
