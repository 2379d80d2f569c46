"""The hot route takes the cookie of a session, and refuses what comes with it from elsewhere; blocked users at once."""

import asyncio

import pytest
from tests.integration.app_path.running import ORDER, PATH, Running

from foretell.domain.accounts import registration, sessions

# The same code for each database; the sessions themselves are tested on both (tests/integration/app).
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)


async def test_a_prediction_by_cookie(app: Running) -> None:
    user_id, _ = await app.open_account()
    async with app.database.transaction() as connection:
        _, secret = await sessions.create(
            connection, user_id, user_agent="test", address="", lifetime=app.settings.session_lifetime
        )
    cookie = {"Cookie": f"theme=dark; foretell_session={secret}"}
    own = cookie | {"X-CSRF-Token": sessions.csrf_token_of(secret)}
    for headers in (cookie, cookie | {"X-CSRF-Token": "x"}, own | {"Origin": "https://evil.example"}):
        refused = await app.client.post(PATH, json=ORDER, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf")
        assert refused.json()["type"].endswith("csrf")
    accepted = await app.client.post(PATH, json=ORDER, headers=own)
    assert accepted.status_code == 202
    shown = await app.client.get(accepted.headers["location"], headers=cookie)
    assert shown.json()["status"] == "queued"
    bearer = await app.client.post(PATH, json=ORDER, headers={"Authorization": f"Bearer {secret}"})
    assert bearer.status_code == 401
    await app.client.delete(accepted.headers["location"], headers=own)


async def test_who_is_blocked_in_another_process_asks_for_nothing_more(app: Running) -> None:
    user_id, headers = await app.open_account()
    _, others = await app.open_account()
    async with app.database.transaction() as connection:
        _, secret = await sessions.create(
            connection, user_id, user_agent="test", address="", lifetime=app.settings.session_lifetime
        )
    own = {"Cookie": f"foretell_session={secret}", "X-CSRF-Token": sessions.csrf_token_of(secret)}
    for credentials in (headers, own):
        accepted = await app.client.post(PATH, json=ORDER, headers=credentials)
        assert accepted.status_code == 202
        await app.client.delete(accepted.headers["location"], headers=credentials)
    async with app.database.transaction() as connection:
        await registration.deactivate(connection, user_id)
    for credentials in (headers, own):
        while (await app.client.get("/balance", headers=credentials)).status_code == 200:
            await asyncio.sleep(0.05)
        assert (await app.client.post(PATH, json=ORDER, headers=credentials)).status_code == 401
    accepted = await app.client.post(PATH, json=ORDER, headers=others)
    assert accepted.status_code == 202
    await app.client.delete(accepted.headers["location"], headers=others)
