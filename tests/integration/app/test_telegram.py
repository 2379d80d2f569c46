"""Telegram: links for people, and what the installation's bot asks for them, which is 404 to everybody else."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from foretell.contracts.bot_secret import new_bot_secret
from foretell.domain.accounts import registration
from foretell.domain.errors import InvalidToken
from foretell.domain.notifications.tables import endpoints
from foretell.domain.predictions.audit import audit
from foretell.services.app.settings import AppSettings
from foretell.services.app.state import AppState

from .conftest import Account, client_of, make_state

IsProblem = Callable[[httpx.Response, int, str], None]

CHAT = 123456789
SECRET = new_bot_secret()
BOT = {"Authorization": f"Bearer {SECRET}"}
#: Everything that the bot asks, with what would be a good body.
CALLS: dict[str, tuple[str, str, Any]] = {
    "name": ("PUT", "/telegram/bot", {"username": "foretell_bot"}),
    "sign up": ("POST", "/telegram/accounts", {"chat_id": CHAT, "language": "ru", "name": "Анна"}),
    "link": ("POST", "/telegram/links", {"chat_id": CHAT, "code": "x"}),
    "unlink": ("DELETE", f"/telegram/links/{CHAT}", None),
    "token": ("POST", "/telegram/tokens", {"chat_id": CHAT}),
    "pay": ("POST", "/telegram/payments", {"chat_id": CHAT, "charge_id": "c", "stars": 250, "credits": 500}),
    "refund": ("POST", "/telegram/refunds", {"charge_id": "c"}),
}


@pytest.fixture
def settings(tmp_path: Path) -> AppSettings:
    return AppSettings(data_dir=tmp_path / "data", bot_secret=SECRET)


async def ask(client: httpx.AsyncClient, call: str, **changes: Any) -> httpx.Response:
    """One call of the bot."""
    method, path, body = CALLS[call]
    path = changes.pop("path", path)
    # As ASCII: httpx itself can't write half of a surrogate pair.
    content = None if body is None else json.dumps(body | changes)
    return await client.request(method, path, headers=BOT | {"Content-Type": "application/json"}, content=content)


async def make_link(client: httpx.AsyncClient, account: Account) -> dict[str, Any]:
    response = await client.post("/telegram/link", headers=account.headers)
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    answer: dict[str, Any] = response.json()
    return answer


async def balance(client: httpx.AsyncClient, headers: dict[str, str]) -> int:
    available: int = (await client.get("/balance", headers=headers)).json()["available"]
    return available


async def headers_of(client: httpx.AsyncClient, chat_id: int = CHAT) -> dict[str, str]:
    """What the bot sends in the name of a chat."""
    answer = (await ask(client, "token", chat_id=chat_id)).json()
    return {"Authorization": f"Bearer {answer['access_token']}"}


STRANGERS: dict[str, dict[str, str]] = {
    "nobody": {},
    "another secret": {"Authorization": f"Bearer {new_bot_secret()}"},
    "a part of it": {"Authorization": f"Bearer {SECRET[:-1]}"},
    "another scheme": {"Authorization": f"Basic {SECRET}"},
    "an API key's header": {"X-API-Key": SECRET},
    "nothing after the scheme": {"Authorization": "Bearer "},
}


async def test_to_everybody_else_there_is_nothing(client: httpx.AsyncClient, ada: Account) -> None:
    nothing = (await client.get("/telegram/nothing")).json()
    documented = (await client.get("/openapi.json")).json()["paths"]
    assert "/telegram/link" in documented
    for (method, path, body), headers in itertools.product(CALLS.values(), [*STRANGERS.values(), ada.headers]):
        for content in (dict(json=body), dict(content=b"{"), dict(content=b"x" * 2_000_000)):
            response = await client.request(method, path, headers=headers, **content)
            assert response.status_code == 404
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json() == {**nothing, "instance": path}
        for other in ("GET", "PATCH", "OPTIONS"):
            response = await client.request(other, path, headers=headers)
            assert (response.status_code, response.headers.get("allow")) == (404, None)
        assert path.replace(str(CHAT), "{chat_id}") not in documented


async def test_a_newline_after_a_path_opens_nothing(client: httpx.AsyncClient, ada: Account) -> None:
    for method, path, body in CALLS.values():
        for headers in ({}, ada.headers, BOT):
            response = await client.request(method, f"{path}%0A", headers=headers, json=body)
            assert (response.status_code, response.headers.get("allow")) == (404, None), path
    # No account was made.
    made = await ask(client, "token")
    assert made.json()["code"] == "chat_not_linked"


async def test_without_a_secret_the_bots_addresses_are_nobodys(state: AppState) -> None:
    settings = state.settings.model_copy(update={"bot_secret": AppSettings().bot_secret})
    async with client_of(make_state(settings, state.database)) as client:
        for headers in (BOT, {"Authorization": "Bearer "}, {}):
            response = await client.post("/telegram/tokens", headers=headers, json={"chat_id": CHAT})
            assert response.status_code == 404


async def test_two_headers_are_no_proof(client: httpx.AsyncClient) -> None:
    headers = [("Authorization", BOT["Authorization"]), ("Authorization", "Bearer other")]
    assert (await client.post("/telegram/tokens", headers=headers, json={"chat_id": CHAT})).status_code == 404


async def test_somebody_signs_up_in_telegram_and_predicts(client: httpx.AsyncClient, state: AppState) -> None:
    first = await ask(client, "sign up")
    assert first.status_code == 201
    assert first.json()["username"] == f"telegram-{CHAT}"
    again = await ask(client, "sign up", name="Other", language=None)
    assert (again.status_code, again.json()) == (200, first.json())
    response = await ask(client, "token")
    assert response.headers["cache-control"] == "no-store"
    token = response.json()
    assert (token["token_type"], token["expires_in"]) == ("bearer", state.settings.access_token_lifetime_s)
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    assert (await client.get("/users/me", headers=headers)).json()["username"] == f"telegram-{CHAT}"
    assert await balance(client, headers) == 100
    chats = (await client.get("/telegram/link", headers=headers)).json()["items"]
    assert [(chat["chat_id"], chat["name"]) for chat in chats] == [(CHAT, "Анна")]
    # Nobody can log in with a password that was never set.
    for password in ("", "x", "nobody"):
        form = {"username": f"telegram-{CHAT}", "password": password}
        assert (await client.post("/token", data=form)).status_code in (401, 422)


@pytest.mark.parametrize("chat_id", [0, -5, -1001234567890, 2**53 + 1])
async def test_what_is_no_private_chat_is_refused(
    client: httpx.AsyncClient, is_problem: IsProblem, chat_id: int
) -> None:
    for call in ("sign up", "link", "token", "pay"):
        is_problem(await ask(client, call, chat_id=chat_id), 422, "invalid_request")


async def test_double_taps_make_one_account(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(ask(client, "sign up") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert await balance(client, await headers_of(client)) == 100


async def test_signing_up_is_throttled_and_closed_as_registration_is(
    client: httpx.AsyncClient, state: AppState, is_problem: IsProblem
) -> None:
    settings = state.settings.model_copy(update={"telegram_signups": 2})
    async with client_of(make_state(settings, state.database)) as bounded:
        for chat_id in (1, 2, 1, 2, 1):
            assert (await ask(bounded, "sign up", chat_id=chat_id)).is_success
        is_problem(await ask(bounded, "sign up", chat_id=3), 429, "too_many_attempts")
        # Whoever has an account is let in.
        assert (await ask(bounded, "sign up", chat_id=2)).status_code == 200
    settings = state.settings.model_copy(update={"registration_open": False})
    async with client_of(make_state(settings, state.database)) as closed:
        is_problem(await ask(closed, "sign up", chat_id=3), 403, "forbidden")
        assert (await ask(closed, "sign up", chat_id=2)).status_code == 200


async def test_a_deep_link_lets_a_chat_act_for_an_account(
    client: httpx.AsyncClient, ada: Account, bob: Account, is_problem: IsProblem
) -> None:
    made = await make_link(client, ada)
    assert made["url"] is None
    assert (await ask(client, "name", username="@foretell_bot")).status_code == 204
    made = await make_link(client, ada)
    assert made["url"] == f"https://t.me/foretell_bot?start={made['code']}"
    linked = await ask(client, "link", code=made["code"], name="Ada's phone")
    assert (linked.status_code, linked.json()["user_id"]) == (200, str(ada.id))
    assert (await ask(client, "link", code=made["code"])).json() == linked.json()
    is_problem(await ask(client, "link", code=made["code"], chat_id=5), 404, "unknown_link_code")
    is_problem(await ask(client, "link", code=(await make_link(client, bob))["code"]), 409, "chat_is_linked")
    shown = (await client.get("/telegram/link", headers=ada.headers)).json()
    assert (shown["bot"], [chat["name"] for chat in shown["items"]]) == ("foretell_bot", ["Ada's phone"])
    headers = await headers_of(client)
    assert (await client.get("/users/me", headers=headers)).json()["id"] == str(ada.id)
    assert (await client.get("/telegram/link", headers=bob.headers)).json()["items"] == []


async def test_the_operator_may_say_what_the_bot_is_called(state: AppState, ada: Account) -> None:
    settings = AppSettings(bot_secret=SECRET, telegram_bot_name="@other_bot", data_dir=state.settings.data_dir)
    async with client_of(make_state(settings, state.database)) as client:
        assert (await make_link(client, ada))["url"].startswith("https://t.me/other_bot?start=")


async def test_unlinking_by_the_account_and_by_the_chat(
    client: httpx.AsyncClient, ada: Account, bob: Account, is_problem: IsProblem
) -> None:
    for chat_id in (1, 2, 3):
        await ask(client, "link", code=(await make_link(client, ada))["code"], chat_id=chat_id)
    is_problem(await client.delete("/telegram/link?chat_id=1", headers=bob.headers), 404, "chat_not_linked")
    assert (await client.delete("/telegram/link?chat_id=1", headers=ada.headers)).status_code == 204
    is_problem(await client.delete("/telegram/link?chat_id=1", headers=ada.headers), 404, "chat_not_linked")
    is_problem(await client.delete("/telegram/link?chat_id=x", headers=ada.headers), 422, "invalid_request")
    is_problem(await client.delete("/telegram/link"), 401, "invalid_token")
    assert (await ask(client, "unlink", path="/telegram/links/2")).status_code == 204
    is_problem(await ask(client, "unlink", path="/telegram/links/2"), 404, "chat_not_linked")
    is_problem(await ask(client, "token", chat_id=2), 404, "chat_not_linked")
    assert (await client.delete("/telegram/link", headers=ada.headers)).status_code == 204
    assert (await client.get("/telegram/link", headers=ada.headers)).json()["items"] == []
    is_problem(await ask(client, "token", chat_id=3), 404, "chat_not_linked")


@pytest.mark.parametrize("way", ["the account", "the chat", "closed"])
async def test_a_chats_token_ends_with_its_link(
    client: httpx.AsyncClient, state: AppState, ada: Account, is_problem: IsProblem, way: str
) -> None:
    await ask(client, "link", code=(await make_link(client, ada))["code"])
    headers, available = await headers_of(client), await balance(client, ada.headers)
    assert await balance(client, headers) == available
    match way:
        case "the account":
            assert (await client.delete(f"/telegram/link?chat_id={CHAT}", headers=ada.headers)).status_code == 204
        case "the chat":
            assert (await ask(client, "unlink")).status_code == 204
        case _:
            async with state.database.transaction() as connection:
                await registration.deactivate(connection, ada.id)
    for _ in range(2):
        is_problem(await client.get("/balance", headers=headers), 401, "invalid_token")
        # As `POST /predictions/predict` asks, past the routes.
        token = headers["Authorization"].removeprefix("Bearer ")
        assert state.authenticator.identify_cached(token) is None
        with pytest.raises(InvalidToken):
            await state.authenticator.identify(token)
    if way != "closed":
        # The same chat of the same account again is another link; whoever holds the old token has none of it.
        await ask(client, "link", code=(await make_link(client, ada))["code"])
        is_problem(await client.get("/balance", headers=headers), 401, "invalid_token")
        assert await balance(client, await headers_of(client)) == available


async def test_a_chat_makes_nothing_that_would_outlive_its_link(
    client: httpx.AsyncClient, ada: Account, is_problem: IsProblem
) -> None:
    await ask(client, "link", code=(await make_link(client, ada))["code"])
    token = await ask(client, "token")
    assert token.json()["user_id"] == str(ada.id)
    headers = await headers_of(client)
    key = (await client.post("/api-keys", json={"name": "ada's"}, headers=ada.headers)).json()["id"]
    url = "https://hooks.example/x"
    for method, path, body in (
        ("POST", "/api-keys", {"name": "theirs"}),
        ("DELETE", f"/api-keys/{key}", None),
        ("POST", "/telegram/link", None),
        ("DELETE", "/telegram/link", None),
        ("POST", "/webhooks", {"url": url, "events": ["balance.low"]}),
        ("POST", "/webhooks/once/rotate", None),
        ("POST", "/users/me/password", {"current": "x", "new": "a new password"}),
        ("PATCH", "/users/me", {"language": "en"}),
        ("DELETE", "/sessions", None),
        ("DELETE", "/users/me", {"password": "x"}),
    ):
        is_problem(await client.request(method, path, json=body, headers=headers), 403, "forbidden")
    # What it is for goes on.
    assert (await client.get("/balance", headers=headers)).status_code == 200
    assert (await client.get("/api-keys", headers=headers)).json()["items"][0]["id"] == key
    assert (await client.get("/telegram/link", headers=headers)).json()["items"] != []


async def test_the_number_of_a_chat_is_written_in_one_way(client: httpx.AsyncClient, is_problem: IsProblem) -> None:
    await ask(client, "sign up", chat_id=10)
    for odd in ("1_0", "+10", "10.0", "%2010", "1e1"):
        is_problem(await ask(client, "unlink", path=f"/telegram/links/{odd}"), 422, "invalid_request")
    assert (await ask(client, "unlink", path="/telegram/links/10")).status_code == 204


async def test_a_chat_is_told_what_happens_as_long_as_it_is_linked(
    client: httpx.AsyncClient, state: AppState, ada: Account, bob: Account
) -> None:
    async def told() -> list[tuple[int, UUID]]:
        query = select(endpoints.c.chat_id, endpoints.c.user_id).where(endpoints.c.kind == "telegram")
        async with state.database.snapshot() as connection:
            return sorted((row.chat_id, row.user_id) for row in await connection.execute(query))

    codes = {chat_id: (await make_link(client, ada))["code"] for chat_id in (1, 2, 3)}
    taps = [ask(client, "link", chat_id=chat_id, code=code) for chat_id, code in codes.items() for _ in range(3)]
    assert {answer.status_code for answer in await asyncio.gather(*taps)} == {200}
    signed_up = (await asyncio.gather(*(ask(client, "sign up", chat_id=4) for _ in range(3))))[0].json()["user_id"]
    assert await told() == [(1, ada.id), (2, ada.id), (3, ada.id), (4, UUID(signed_up))]
    await ask(client, "unlink", path="/telegram/links/1")
    await client.delete("/telegram/link?chat_id=2", headers=ada.headers)
    assert await told() == [(3, ada.id), (4, UUID(signed_up))]
    # A chat that changes hands is told what happens to its new account, and nothing else.
    await ask(client, "unlink", path="/telegram/links/4")
    await ask(client, "link", chat_id=4, code=(await make_link(client, bob))["code"])
    await client.delete("/telegram/link", headers=ada.headers)
    assert await told() == [(4, bob.id)]


async def test_a_chat_never_acts_as_an_operator(client: httpx.AsyncClient, state: AppState, ada: Account) -> None:
    await ask(client, "link", code=(await make_link(client, ada))["code"])
    async with state.database.transaction() as connection:
        await registration.set_role(connection, ada.id, "operator")
    token = (await headers_of(client))["Authorization"].removeprefix("Bearer ")
    assert state.access_tokens.verify(token).role == "user"


async def test_stars_become_credits_once_and_go_back_once(
    client: httpx.AsyncClient, state: AppState, is_problem: IsProblem
) -> None:
    is_problem(await ask(client, "pay"), 404, "chat_not_linked")
    await ask(client, "sign up")
    headers = await headers_of(client)
    told = await asyncio.gather(*(ask(client, "pay") for _ in range(4)))
    assert {answer.status_code for answer in told} == {200}
    assert len({answer.text for answer in told}) == 1
    assert (told[0].json()["credits"], told[0].json()["refunded_at"]) == (500, None)
    assert await balance(client, headers) == 600
    is_problem(await ask(client, "pay", credits=5000), 409, "payment_differs")
    is_problem(await ask(client, "refund", charge_id="other"), 404, "not_found")
    refunds = await asyncio.gather(*(ask(client, "refund") for _ in range(4)))
    assert {answer.json()["refunded_credits"] for answer in refunds} == {500}
    assert await balance(client, headers) == 100
    movements = (await client.get("/transactions", headers=headers)).json()["items"]
    assert [(each["kind"], each["amount"], each["reference"]) for each in movements] == [
        ("adjustment", -500, "telegram-refund:c"),
        ("top_up", 500, "telegram:c"),
        ("grant", 100, None),
    ]
    async with state.database.snapshot() as connection:
        assert await audit(connection) == []


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("sign up", {"chat_id": True}),
    ("sign up", {"chat_id": "1"}),
    ("sign up", {"chat_id": 2**60}),
    ("sign up", {"name": "x" * 257}),
    ("sign up", {"name": "a\0b"}),
    ("sign up", {"name": "a\ud800"}),
    ("sign up", {"role": "operator"}),
    ("link", {"code": "x" * 65}),
    ("link", {"code": "\ud800"}),
    ("link", {"name": "a\ud800"}),
    ("pay", {"stars": 0}),
    ("pay", {"credits": -5}),
    ("pay", {"credits": 10**10}),
    ("pay", {"charge_id": ""}),
    ("pay", {"charge_id": "a\0b"}),
    ("pay", {"charge_id": "a\ud800"}),
    ("refund", {"charge_id": 5}),
    ("refund", {"charge_id": "a\ud800"}),
    ("name", {"username": "evil.example/x"}),
]


async def test_what_does_not_fit_is_422_to_the_bot(client: httpx.AsyncClient, is_problem: IsProblem) -> None:
    for call, wrong in WRONG:
        is_problem(await ask(client, call, **wrong), 422, "invalid_request")
    is_problem(await ask(client, "unlink", path="/telegram/links/x"), 422, "invalid_request")
