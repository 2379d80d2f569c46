"""Who sends a body slowly has all the time of a request left when it has arrived."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from foretell.domain.operators import users
from foretell.domain.operators.journal import Actor
from foretell.kit.asgi import Operations
from foretell.services.app.api import build_api
from foretell.services.app.app import App
from foretell.services.app.state import AppState

from .conftest import Account


@pytest.fixture
async def olga(state: AppState) -> Account:
    """An operator."""
    async with state.database.transaction() as connection:
        user = await users.add(
            connection,
            Actor(None, "command line"),
            username="olga",
            password_hash="nobody logs in with this",
            credits=0,
            role="operator",
        )
    token, _ = state.access_tokens.issue(user)
    return Account(user.id, {"Authorization": f"Bearer {token}"})


async def test_an_operator_may_send_slowly(
    state: AppState, olga: Account, ada: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real, passed_s = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + passed_s)
    api = build_api(state)
    operations = Operations("app", instance="app-1", version="1")
    app = App(api, operations, api)

    async def slowly(body: bytes) -> AsyncIterator[bytes]:
        nonlocal passed_s
        for place in range(len(body)):
            # As if a minute went by while the client sends nothing.
            passed_s += 60.0
            yield body[place : place + 1]
            await asyncio.sleep(0)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://foretell") as client:
        path, headers = f"/admin/users/{ada.id}/grant", {**olga.headers, "Content-Type": "application/json"}
        answer = await client.post(path, content=slowly(b'{"credits": 5}'), headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["available"] == 105
