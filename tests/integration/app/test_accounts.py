"""Registering, logging in, staying logged in, logging out."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from foretell.kit.database import Database
from foretell.services.app.settings import AppSettings

from .conftest import PASSWORD, Account, client_of, make_state

IsProblem = Callable[[httpx.Response, int, str], None]


@pytest.fixture
async def eve(client: httpx.AsyncClient) -> str:
    """The name of a user who has the password `PASSWORD`."""
    response = await client.post("/users", json={"username": "Eve", "password": PASSWORD})
    assert response.status_code == 201
    return "Eve"


async def log_in(client: httpx.AsyncClient, username: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/token", data={"username": username, "password": password})


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/token", data={"grant_type": "refresh_token", "refresh_token": token})


async def test_a_new_user_can_log_in_and_has_the_signup_grant(client: httpx.AsyncClient) -> None:
    registered = await client.post("/users", json={"username": "Ada", "password": PASSWORD})
    assert registered.status_code == 201
    assert registered.json()["username"] == "Ada"
    assert "password" not in registered.text
    tokens = await log_in(client, "ada")
    assert tokens.status_code == 200
    assert tokens.json()["token_type"] == "bearer"
    assert tokens.headers["cache-control"] == "no-store"
    headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
    assert (await client.get("/users/me", headers=headers)).json() == registered.json()
    assert (await client.get("/balance", headers=headers)).json() == {"available": 100, "held": 0, "threshold": None}


async def test_a_name_that_is_taken_is_a_conflict(client: httpx.AsyncClient, eve: str, is_problem: IsProblem) -> None:
    is_problem(await client.post("/users", json={"username": eve.upper(), "password": PASSWORD}), 409, "username_taken")


async def test_an_address_makes_no_more_accounts_than_the_operator_allows(
    database: Database, tmp_path: Path, is_problem: IsProblem
) -> None:
    state = make_state(AppSettings(data_dir=tmp_path, signups_per_address=2), database)
    async with client_of(state) as client:
        for name in ("one", "two"):
            assert (await client.post("/users", json={"username": name, "password": PASSWORD})).status_code == 201
        # What is wrong at once is not counted, and costs no hash.
        is_problem(await client.post("/users", json={"username": "three", "password": "x"}), 422, "invalid_request")
        refused = await client.post("/users", json={"username": "three", "password": PASSWORD})
        is_problem(refused, 429, "too_many_attempts")
        assert int(refused.headers["retry-after"]) > 40_000
        assert (await log_in(client, "one")).status_code == 200
    state.passwords.close()


_BODIES_THAT_DO_NOT_FIT: list[object] = [
    {"username": "mallory"},
    {"username": "m", "password": PASSWORD},
    {"username": "mallory", "password": "short"},
    {"username": "mal\0lory", "password": PASSWORD},
    {"username": "mallory", "password": PASSWORD + "\0"},
    {"username": "mal lory", "password": PASSWORD},
    {"username": 5, "password": PASSWORD},
    {"username": "mallory", "password": PASSWORD, "role": "operator"},
    {"username": "mallory", "password": PASSWORD, "balance": 10_000},
    {"username": "x" * 100_000, "password": PASSWORD},
    [],
    "mallory",
    None,
]


async def test_a_body_that_does_not_fit_registers_nobody(client: httpx.AsyncClient, database: Database) -> None:
    for body in _BODIES_THAT_DO_NOT_FIT:
        response = await client.post("/users", json=body)
        assert response.status_code == 422, body
        assert response.json()["code"] in ("invalid_request", "invalid_username", "invalid_password")
        assert PASSWORD not in response.text
    async with database.snapshot() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM users"))).scalar_one() == 0


async def test_a_body_that_cannot_be_read_is_422(client: httpx.AsyncClient) -> None:
    bodies = {
        "empty": b"",
        "cut": b"{",
        "not UTF-8": b"\xff\xfe",
        "deep list": b"[" * 100_000,
        "deep object": b'{"a":' * 100_000,
        "half a surrogate pair": b'{"username":"\\ud800abc","password":"password1"}',
        "not a number": b'{"username":NaN,"password":Infinity}',
        "a number of many digits": b'{"username":' + b"9" * 10_000 + b"}",
    }
    for name, content in bodies.items():
        response = await client.post("/users", content=content, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, name
        assert response.headers["content-type"] == "application/problem+json"


async def test_a_body_that_is_too_large_is_413_whatever_it_says(
    client: httpx.AsyncClient, settings: AppSettings, is_problem: IsProblem
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    headers = {"Content-Type": "application/json"}
    for content in (b" " * (settings.max_body_bytes + 1), chunks()):
        is_problem(await client.post("/users", content=content, headers=headers), 413, "body_too_large")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    is_problem(await client.post("/token", content=chunks(), headers=form), 413, "body_too_large")


async def test_registration_can_be_closed(settings: AppSettings, database: Database, is_problem: IsProblem) -> None:
    state = make_state(settings.model_copy(update={"registration_open": False}), database)
    async with client_of(state) as client:
        is_problem(await client.post("/users", json={"username": "ada", "password": PASSWORD}), 403, "forbidden")
    state.passwords.close()


async def test_wrong_password_and_unknown_user_are_answered_alike(
    client: httpx.AsyncClient, eve: str, is_problem: IsProblem
) -> None:
    wrong = await log_in(client, eve, "not the password")
    unknown = await log_in(client, "nobody-here", "not the password")
    is_problem(wrong, 401, "invalid_credentials")
    assert wrong.json() == unknown.json()


async def test_a_form_that_does_not_fit_is_422(client: httpx.AsyncClient, is_problem: IsProblem) -> None:
    forms: list[dict[str, str]] = [
        {},
        {"username": "Eve"},
        {"password": PASSWORD},
        {"username": "Eve", "password": ""},
        {"grant_type": "refresh_token"},
        {"grant_type": "client_credentials", "username": "Eve", "password": PASSWORD},
    ]
    for form in forms:
        is_problem(await client.post("/token", data=form), 422, "invalid_request")


async def test_nul_in_a_login_is_no_server_error(client: httpx.AsyncClient, is_problem: IsProblem) -> None:
    is_problem(await log_in(client, "e\0ve", "pass\0word"), 401, "invalid_credentials")
    is_problem(await refresh(client, "to\0ken"), 401, "invalid_token")


async def test_guessing_is_throttled_and_the_owner_is_not_locked_out(
    client: httpx.AsyncClient, eve: str, is_problem: IsProblem
) -> None:
    answers = [await log_in(client, "nobody-here", f"guess {number}") for number in range(12)]
    assert {answer.status_code for answer in answers} == {401, 429}
    is_problem(answers[-1], 429, "too_many_attempts")
    assert (await log_in(client, eve)).status_code == 200


async def test_a_refresh_token_gives_a_new_pair(client: httpx.AsyncClient, eve: str) -> None:
    first = (await log_in(client, eve)).json()
    second = (await refresh(client, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    headers = {"Authorization": f"Bearer {second['access_token']}"}
    assert (await client.get("/users/me", headers=headers)).json()["username"] == "Eve"


async def test_of_two_who_refresh_at_once_one_succeeds(client: httpx.AsyncClient, eve: str) -> None:
    token = (await log_in(client, eve)).json()["refresh_token"]
    answers = await asyncio.gather(*(refresh(client, token) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]


async def test_logging_out_ends_the_family(client: httpx.AsyncClient, eve: str, is_problem: IsProblem) -> None:
    token = (await log_in(client, eve)).json()["refresh_token"]
    for _ in range(2):
        assert (await client.post("/token/revoke", data={"token": token})).status_code == 200
    is_problem(await refresh(client, token), 401, "invalid_token")


async def test_a_refresh_token_is_no_access_token(client: httpx.AsyncClient, eve: str, is_problem: IsProblem) -> None:
    token = (await log_in(client, eve)).json()["refresh_token"]
    is_problem(await client.get("/balance", headers={"Authorization": f"Bearer {token}"}), 401, "invalid_token")


async def test_a_commit_that_fails_is_not_answered_as_a_success(
    client: httpx.AsyncClient, database: Database, ada: Account
) -> None:
    await _let_commits_fail(database)
    response = await client.post("/users", json={"username": "eve", "password": PASSWORD})
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert "constraint" not in response.text.lower()
    # Nothing is stuck, and nobody is there.
    assert (await client.get("/users/me", headers=ada.headers)).status_code == 200
    assert (await log_in(client, "eve")).status_code == 401


async def test_an_absent_database_is_503(settings: AppSettings, is_problem: IsProblem) -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing")
    state = make_state(settings, database)
    async with client_of(state) as client:
        is_problem(await log_in(client, "eve"), 503, "unavailable")
        is_problem(await client.post("/users", json={"username": "eve", "password": PASSWORD}), 503, "unavailable")
        key = {"X-API-Key": "ftl_" + "a" * 43}
        is_problem(await client.get("/balance", headers=key), 503, "unavailable")
    state.passwords.close()
    await database.close()


async def _let_commits_fail(database: Database) -> None:
    """Whoever adds a user can't commit: both databases look at this constraint only then."""
    statements = [
        "CREATE TABLE dangling (id integer REFERENCES nowhere (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER dangle AFTER INSERT ON users BEGIN INSERT INTO dangling VALUES (1); END",
    ]
    if database.dialect == "postgresql":
        statements[1:] = [
            "CREATE FUNCTION dangle() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO dangling VALUES (1); RETURN NEW; END $$",
            "CREATE TRIGGER dangle AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION dangle()",
        ]
    async with database.transaction() as connection:
        for statement in ["CREATE TABLE nowhere (id integer PRIMARY KEY)", *statements]:
            await connection.execute(text(statement))


async def test_what_a_password_was_is_in_no_answer_and_problems_name_fields(client: httpx.AsyncClient) -> None:
    response = await client.post("/users", json={"username": "eve", "password": "7 chars"})
    assert json.loads(response.content)["errors"] == [
        {"detail": "String should have at least 8 characters", "pointer": "#/password"}
    ]
