"""What proves who calls, and what does not."""

import asyncio
import re
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from foretell.domain.accounts import api_keys
from foretell.kit import deadline
from foretell.kit.database import Database
from foretell.kit.errors import Unavailable
from foretell.services.app.authentication import Authenticator
from foretell.services.app.state import AppState

from .conftest import Account

IsProblem = Callable[[httpx.Response, int, str], None]


async def test_without_credentials_nobody_gets_in(client: httpx.AsyncClient, is_problem: IsProblem) -> None:
    nothing: list[dict[str, str]] = [
        {},
        {"Authorization": "Basic YWRhOmFkYQ=="},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
        {"X-API-Key": ""},
    ]
    for headers in nothing:
        is_problem(await client.get("/balance", headers=headers), 401, "invalid_token")


async def test_every_route_but_the_public_ones_asks_who_calls(client: httpx.AsyncClient) -> None:
    public = {"/about", "/users", "/token", "/token/revoke", "/models", "/models/{name}"}
    document = (await client.get("/openapi.json")).json()
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_public = path in public or (method, path) == ("post", "/session")
            if is_public == ("security" in operation):
                pytest.fail(f"{method} {path} is {'public' if is_public else 'private'}, the page says otherwise")
            if is_public or path == "/predictions/predict":
                continue
            url = re.sub(r"{\w+_id}", lambda _: str(uuid4()), path)
            response = await client.request(method, url, json={"name": "x"} if method == "post" else None)
            assert response.status_code == 401, (method, path)
            asked += 1
    assert asked >= 20


async def test_an_api_key_works_in_both_headers_until_it_is_revoked(
    client: httpx.AsyncClient, ada: Account, is_problem: IsProblem
) -> None:
    created = await client.post("/api-keys", json={"name": " nightly "}, headers=ada.headers)
    assert created.status_code == 201
    assert created.headers["cache-control"] == "no-store"
    key = created.json()["key"]
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        assert (await client.get("/users/me", headers=headers)).json()["username"] == "ada"
    listed = (await client.get("/api-keys", headers=ada.headers)).json()["items"]
    assert [item["name"] for item in listed] == ["nightly"]
    assert key not in str(listed)
    assert key.startswith(listed[0]["prefix"])
    assert (await client.delete(f"/api-keys/{listed[0]['id']}", headers=ada.headers)).status_code == 204
    is_problem(await client.get("/users/me", headers={"X-API-Key": key}), 401, "invalid_token")
    assert (await client.get("/api-keys", headers=ada.headers)).json() == {"items": []}


async def test_a_key_needs_a_name(client: httpx.AsyncClient, ada: Account) -> None:
    for body in ({}, {"name": ""}, {"name": "a\0b"}, {"name": "x" * 101}, {"name": "a", "role": "operator"}):
        response = await client.post("/api-keys", json=body, headers=ada.headers)
        assert response.status_code == 422, body
    assert (await client.get("/api-keys", headers=ada.headers)).json() == {"items": []}


async def test_too_many_keys_are_a_conflict(client: httpx.AsyncClient, ada: Account, is_problem: IsProblem) -> None:
    for _ in range(api_keys.MAX_KEYS_PER_USER):
        assert (await client.post("/api-keys", json={"name": "x"}, headers=ada.headers)).status_code == 201
    is_problem(await client.post("/api-keys", json={"name": "x"}, headers=ada.headers), 409, "too_many_keys")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def _key_of(database: Database, account: Account) -> tuple[api_keys.ApiKey, str]:
    async with database.transaction() as connection:
        return await api_keys.create(connection, account.id, "key")


async def test_a_key_is_remembered_for_a_while_and_then_looked_at_again(
    database: Database, state: AppState, ada: Account
) -> None:
    clock = Clock()
    authenticator = Authenticator(database, state.access_tokens, remembered_s=5, clock=clock)
    key, secret = await _key_of(database, ada)
    assert authenticator.identify_cached(secret) is None
    identity = await authenticator.identify(secret)
    assert (identity.user_id, identity.api_key_id) == (ada.id, key.id)
    assert authenticator.identify_cached(secret) == identity
    assert set(authenticator.key_uses.take()) == {key.id}
    clock.now_s = 5.0
    assert authenticator.identify_cached(secret) is None


async def test_a_revoked_key_is_forgotten_at_once(database: Database, state: AppState, ada: Account) -> None:
    authenticator = Authenticator(database, state.access_tokens, clock=Clock())
    (key, secret), (_, other) = await _key_of(database, ada), await _key_of(database, ada)
    await authenticator.identify(secret)
    await authenticator.identify(other)
    authenticator.forget_api_key(key.id)
    assert authenticator.identify_cached(secret) is None
    assert authenticator.identify_cached(other) is not None


async def test_who_has_no_time_left_leaves_the_look_up_to_those_who_have(
    database: Database, state: AppState, ada: Account
) -> None:
    authenticator = Authenticator(database, state.access_tokens, clock=Clock())
    _, secret = await _key_of(database, ada)

    async def ask_in_haste() -> None:
        with deadline.allowed(-1.0):
            await authenticator.identify(secret)

    patient = asyncio.create_task(authenticator.identify(secret))
    hasty = asyncio.create_task(ask_in_haste())
    with pytest.raises(Unavailable) as error:
        await hasty
    assert error.value.outcome == "not_done"
    assert (await patient).user_id == ada.id


async def test_only_so_many_keys_are_remembered(database: Database, state: AppState, ada: Account) -> None:
    authenticator = Authenticator(database, state.access_tokens, max_remembered=2, clock=Clock())
    first, second, third = [(await _key_of(database, ada))[1] for _ in range(3)]
    for secret in (first, second, first, third):
        await authenticator.identify(secret)
    assert authenticator.identify_cached(first) is not None
    assert authenticator.identify_cached(second) is None
    assert authenticator.identify_cached(third) is not None
