"""Sessions in cookies: who gets one, what it is good for, what it needs beside it, and how it ends."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from foretell.domain.accounts import registration, sessions
from foretell.domain.accounts.tables import sessions as sessions_table
from foretell.kit.clock import now
from foretell.services.app.api import build_api, surround
from foretell.services.app.authentication import record_uses
from foretell.services.app.settings import AppSettings
from foretell.services.app.state import AppState

from .conftest import PASSWORD, client_of, make_state

IsProblem = Callable[[httpx.Response, int, str], None]
Headers = dict[str, str]


@pytest.fixture
async def eve(state: AppState) -> registration.User:
    """Somebody with a password."""
    password_hash = await state.passwords.hash(PASSWORD)
    async with state.database.transaction() as connection:
        return await registration.register(connection, username="eve", password_hash=password_hash, grant_credits=100)


async def _sign_in(client: httpx.AsyncClient, username: str = "eve", **more: Any) -> Headers:
    """A session in the client's cookies; what its changes need."""
    answer = await client.post("/session", json={"username": username, "password": PASSWORD}, **more)
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrf_token"]}


def _cookie(secret: str) -> Headers:
    return {"Cookie": f"foretell_session={secret}"}


async def test_a_session_is_opened_shown_and_ended(
    client: httpx.AsyncClient, eve: registration.User, is_problem: IsProblem
) -> None:
    is_problem(await client.get("/session"), 401, "invalid_token")
    answer = await client.post("/session", json={"username": "Eve", "password": PASSWORD})
    assert answer.json()["user"] == {
        "id": str(eve.id),
        "username": "eve",
        "role": "user",
        "created_at": answer.json()["user"]["created_at"],
        "language": None,
        "theme": None,
    }
    cookie = SimpleCookie(answer.headers["set-cookie"])["foretell_session"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "Lax", "/", "")
    assert int(cookie["max-age"]) == 14 * 86_400
    assert len(cookie.value) == len("fts_") + 43
    assert answer.headers["cache-control"] == "no-store"
    shown = await client.get("/session")
    assert shown.json() == answer.json()
    assert (await client.get("/balance")).json()["available"] == 100
    csrf = {"X-CSRF-Token": shown.json()["csrf_token"]}
    ended = await client.delete("/session", headers=csrf)
    assert ended.status_code == 204
    assert SimpleCookie(ended.headers["set-cookie"])["foretell_session"]["max-age"] == "0"
    is_problem(
        await client.get("/balance", headers={"Cookie": f"foretell_session={cookie.value}"}), 401, "invalid_token"
    )


async def test_the_secret_is_stored_hashed(client: httpx.AsyncClient, eve: registration.User, state: AppState) -> None:
    await _sign_in(client)
    secret = client.cookies["foretell_session"]
    async with state.database.snapshot() as connection:
        row = (await connection.execute(select(sessions_table))).mappings().one()
    assert secret.encode() not in bytes(row["token_hash"])
    assert secret not in str(dict(row))


async def test_wrong_names_and_passwords_fail_alike_and_are_throttled_as_tokens_are(
    client: httpx.AsyncClient, eve: registration.User, is_problem: IsProblem
) -> None:
    told = set()
    for name, password in (("eve", "wrong"), ("nobody", PASSWORD), ("e", PASSWORD)):
        answer = await client.post("/session", json={"username": name, "password": password})
        is_problem(answer, 401, "invalid_credentials")
        assert "set-cookie" not in answer.headers
        told.add(answer.json()["detail"])
    assert len(told) == 1
    # Ten guesses of one address at one account; "eve" was guessed at once already.
    for _ in range(10):
        answer = await client.post("/token", data={"username": "eve", "password": "wrong"})
    is_problem(answer, 429, "too_many_attempts")
    is_problem(await client.post("/session", json={"username": "eve", "password": PASSWORD}), 429, "too_many_attempts")


async def test_a_change_needs_the_token_of_this_session_and_no_foreign_page(
    state: AppState, eve: registration.User, is_problem: IsProblem
) -> None:
    async with client_of(state) as client, client_of(state) as other:
        mine, others = await _sign_in(client), await _sign_in(other)
        assert mine != others
        wanted = {"name": "nightly"}
        refused: list[Headers] = [
            {},
            {"X-CSRF-Token": ""},
            {"X-CSRF-Token": "x" * 43},
            others,
            mine | {"Origin": "https://evil.example"},
            mine | {"Origin": "null"},
            mine | {"Origin": "http://foretell:8080"},
            mine | {"Sec-Fetch-Site": "cross-site"},
            mine | {"Sec-Fetch-Site": "same-site"},
        ]
        for headers in refused:
            is_problem(await client.post("/api-keys", json=wanted, headers=headers), 403, "csrf")
        assert (await client.get("/api-keys")).json() == {"items": []}
        allowed = [mine, mine | {"Origin": "http://foretell"}, mine | {"Sec-Fetch-Site": "same-origin"}]
        for headers in allowed:
            assert (await client.post("/api-keys", json=wanted, headers=headers)).status_code == 201
        # To look needs none: the answer is for nobody but our own page to read.
        assert len((await client.get("/api-keys", headers={"Sec-Fetch-Site": "cross-site"})).json()["items"]) == 3
        (key, *_) = (await client.get("/api-keys")).json()["items"]
        is_problem(await client.delete(f"/api-keys/{key['id']}"), 403, "csrf")
        # A program's credentials count more than the cookie, and need no token.
        token = (await client.post("/token", data={"username": "eve", "password": PASSWORD})).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await client.delete(f"/api-keys/{key['id']}", headers=bearer)).status_code == 204


async def test_another_page_can_sign_nobody_in(
    client: httpx.AsyncClient, eve: registration.User, is_problem: IsProblem
) -> None:
    body = {"username": "eve", "password": PASSWORD}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await client.post("/session", json=body, headers=headers)
        is_problem(answer, 403, "csrf")
        assert "set-cookie" not in answer.headers
    # As a form of another page would send it.
    answer = await client.post("/session", content=b'{"username":"eve"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422


async def test_a_secret_counts_as_a_cookie_only(
    client: httpx.AsyncClient, eve: registration.User, is_problem: IsProblem
) -> None:
    await _sign_in(client)
    secret = client.cookies["foretell_session"]
    client.cookies.clear()
    for headers in ({"Authorization": f"Bearer {secret}"}, {"X-API-Key": secret}):
        is_problem(await client.get("/balance", headers=headers), 401, "invalid_token")
    assert (await client.get("/balance", headers={"Cookie": f"a=b; foretell_session={secret}"})).status_code == 200


async def test_what_somebody_planted_before_becomes_nobodys_session(
    state: AppState, eve: registration.User, is_problem: IsProblem
) -> None:
    planted = sessions.PREFIX + "A" * 43
    async with client_of(state) as client:
        answer = await client.post(
            "/session",
            json={"username": "eve", "password": PASSWORD},
            headers=_cookie(planted),
        )
        assert SimpleCookie(answer.headers["set-cookie"])["foretell_session"].value != planted
    async with client_of(state) as stranger:
        is_problem(await stranger.get("/session", headers=_cookie(planted)), 401, "invalid_token")
    # One that was real ends with the next sign-in of the same browser.
    async with client_of(state) as client:
        await _sign_in(client)
        first = client.cookies["foretell_session"]
        await _sign_in(client)
    async with client_of(state) as stranger:
        is_problem(await stranger.get("/session", headers=_cookie(first)), 401, "invalid_token")


@pytest.fixture
async def behind_proxy(state: AppState, settings: AppSettings) -> AsyncIterator[httpx.AsyncClient]:
    """The app as a browser sees it through a proxy with TLS, on 10.0.0.1."""
    trusting = make_state(
        settings.model_copy(update={"trusted_proxies": AppSettings(trusted_proxies="10.0.0.1").trusted_proxies}),
        state.database,
    )
    transport = httpx.ASGITransport(surround(build_api(trusting), trusting.settings), client=("10.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="https://foretell") as client:
        yield client
    trusting.passwords.close()


async def test_over_https_the_cookie_is_bound_to_the_host(
    behind_proxy: httpx.AsyncClient, client: httpx.AsyncClient, eve: registration.User
) -> None:
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    csrf = await _sign_in(behind_proxy, headers=said | {"User-Agent": "Firefox\x01 of eve"})
    cookie = next(iter(behind_proxy.cookies.jar))
    assert (cookie.name, cookie.secure, cookie.path) == ("__Host-foretell_session", True, "/")
    (listed,) = (await behind_proxy.get("/sessions")).json()["items"]
    assert (listed["address"], listed["user_agent"], listed["current"]) == ("203.0.113.7", "Firefox of eve", True)
    # Nobody's neighbour can put another in its place.
    both = f"foretell_session={sessions.PREFIX}{'B' * 43}; __Host-foretell_session={cookie.value}"
    assert (await behind_proxy.get("/session", headers={"Cookie": both})).status_code == 200
    ended = await behind_proxy.delete("/session", headers=csrf | said)
    assert ["Secure" in value for value in ended.headers.get_list("set-cookie")] == [True, False]
    # Who is no trusted proxy says nothing about it.
    answer = await client.post("/session", json={"username": "eve", "password": PASSWORD}, headers=said)
    assert "Secure" not in answer.headers["set-cookie"]


async def _age(state: AppState, **values: Any) -> None:
    async with state.database.transaction() as connection:
        await connection.execute(update(sessions_table).values(**values))


async def test_a_session_lasts_as_long_as_it_is_used_and_not_for_ever(
    state: AppState, eve: registration.User, is_problem: IsProblem
) -> None:
    async with client_of(state) as client:
        await _sign_in(client)
        soon = now() + timedelta(hours=1)
        await _age(state, expires_at=soon, last_used_at=now() - timedelta(days=13))
        answer = await client.get("/session")
        assert "Max-Age=1209600" in answer.headers["set-cookie"]
        async with state.database.snapshot() as connection:
            row = (await connection.execute(select(sessions_table))).one()
        assert row.expires_at > now() + timedelta(days=13)
        # What others calls use is written down by and by.
        await _age(state, expires_at=soon, last_used_at=now() - timedelta(days=13))
        await client.get("/balance")
        state.stopping.set()
        await record_uses(state.authenticator, state.database, state.session_lifetime, state.stopping)
        async with state.database.snapshot() as connection:
            row = (await connection.execute(select(sessions_table))).one()
        assert row.expires_at > now() + timedelta(days=13)
        # After 90 days no use makes it longer.
        await _age(state, created_at=now() - timedelta(days=89), last_used_at=now() - timedelta(days=1))
        await client.get("/session")
        async with state.database.snapshot() as connection:
            row = (await connection.execute(select(sessions_table))).one()
        assert row.expires_at < now() + timedelta(days=1, minutes=1)
        await _age(state, expires_at=now() - timedelta(seconds=1))
        state.authenticator.forget_session(row.id)
        is_problem(await client.get("/session"), 401, "invalid_token")


async def test_sign_out_elsewhere_and_everywhere(
    state: AppState, eve: registration.User, is_problem: IsProblem
) -> None:
    async with client_of(state) as here, client_of(state) as there, client_of(state) as program:
        csrf = await _sign_in(here)
        await _sign_in(there)
        tokens = (await program.post("/token", data={"username": "eve", "password": PASSWORD})).json()
        program.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        key = (await program.post("/api-keys", json={"name": "k"})).json()["key"]
        listed = (await here.get("/sessions")).json()["items"]
        assert [each["current"] for each in listed] == [False, True]
        assert (await there.get("/balance")).status_code == 200
        assert (await here.delete(f"/sessions/{listed[0]['id']}", headers=csrf)).status_code == 204
        is_problem(await there.get("/balance"), 401, "invalid_token")
        is_problem(await here.delete(f"/sessions/{listed[0]['id']}", headers=csrf), 404, "not_found")

        await _sign_in(there)
        assert (await here.delete("/sessions", headers=csrf)).status_code == 204
        for client in (here, there, program):
            client.cookies.clear()
            is_problem(await client.get("/balance"), 401, "invalid_token")
        refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        is_problem(await program.post("/token", data=refresh), 401, "invalid_token")
        assert (await here.get("/balance", headers={"X-API-Key": key})).status_code == 200
        again = (await program.post("/token", data={"username": "eve", "password": PASSWORD})).json()["access_token"]
        program.headers["Authorization"] = f"Bearer {again}"
        assert (await program.get("/balance")).status_code == 200


async def test_sessions_of_others_are_not_there(state: AppState, eve: registration.User, is_problem: IsProblem) -> None:
    password_hash = await state.passwords.hash(PASSWORD)
    async with state.database.transaction() as connection:
        await registration.register(connection, username="mallory", password_hash=password_hash, grant_credits=0)
    async with client_of(state) as client, client_of(state) as other:
        await _sign_in(client)
        csrf = await _sign_in(other, "mallory")
        (mine,) = (await client.get("/sessions")).json()["items"]
        assert mine["id"] not in (await other.get("/sessions")).text
        is_problem(await other.delete(f"/sessions/{mine['id']}", headers=csrf), 404, "not_found")
        assert (await client.get("/session")).status_code == 200


async def test_who_is_blocked_is_out_at_once_whatever_they_came_with(
    state: AppState, eve: registration.User, is_problem: IsProblem
) -> None:
    async with client_of(state) as browser, client_of(state) as program:
        await _sign_in(browser)
        token = (await program.post("/token", data={"username": "eve", "password": PASSWORD})).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        key = {"X-API-Key": (await program.post("/api-keys", json={"name": "k"}, headers=bearer)).json()["key"]}
        for client, headers in ((browser, {}), (program, bearer), (program, key)):
            assert (await client.get("/balance", headers=headers)).status_code == 200
        async with state.database.transaction() as connection:
            await registration.deactivate(connection, eve.id)
        async with state.database.snapshot() as connection:
            state.authenticator.end(await registration.ended_since(connection, now() - timedelta(hours=1)))
        for client, headers in ((browser, {}), (program, bearer), (program, key)):
            is_problem(await client.get("/balance", headers=headers), 401, "invalid_token")
        is_problem(
            await browser.post("/session", json={"username": "eve", "password": PASSWORD}), 401, "invalid_credentials"
        )
        async with state.database.transaction() as connection:
            await registration.activate(connection, eve.id)
        async with state.database.snapshot() as connection:
            state.authenticator.end(await registration.ended_since(connection, now() - timedelta(hours=1)))
        # The key is good again; sessions and tokens from before are not.
        assert (await program.get("/balance", headers=key)).status_code == 200
        is_problem(await program.get("/balance", headers=bearer), 401, "invalid_token")
        is_problem(await browser.get("/balance"), 401, "invalid_token")


async def test_the_oldest_of_too_many_sessions_end(state: AppState, eve: registration.User) -> None:
    async with state.database.transaction() as connection:
        made = [
            await sessions.create(connection, eve.id, user_agent="", address="", lifetime=state.session_lifetime)
            for _ in range(sessions.MAX_SESSIONS_PER_USER + 2)
        ]
        listed = await sessions.list_sessions(connection, eve.id)
    assert [each.id for each in listed] == [session_id for session_id, _ in reversed(made[2:])]


async def test_about_says_what_there_is(client: httpx.AsyncClient, state: AppState) -> None:
    about = (await client.get("/about")).json()
    assert about["product"] == "Foretell"
    assert about["environment"] == "development"
    assert about["languages"] == ["en", "ru"]
    assert (about["registration_open"], about["signup_credits"]) == (True, state.settings.signup_credits)
    assert (about["telegram"], about["telegram_bot"]) == (False, None)
