"""`GET /events/changes`: when to read again, without an event for each prediction."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select
from tests.integration.app.conftest import Account

from foretell.domain.accounts import sessions
from foretell.domain.credits.tables import wallets
from foretell.domain.notifications import events, listening
from foretell.services.app.routes.events import follow_changes
from foretell.services.app.state import AppState

Submit = Callable[..., Awaitable[UUID]]
Finish = Callable[..., Awaitable[None]]


class _Stream:
    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._chunks = chunks

    async def next(self) -> dict[str, str]:
        """The next message with an event; comments are left out."""
        while True:
            chunk = await asyncio.wait_for(anext(self._chunks), 60)
            lines = [line.partition(": ") for line in bytes(chunk).decode().strip().splitlines()]
            message = {name: value for name, _, value in lines}
            if "event" in message:
                return message

    async def balance(self) -> tuple[int, int]:
        """What the next message says of the credits."""
        message = await self.next()
        assert message["event"] == "changed"
        told = json.loads(message["data"])
        return told["available"], told["held"]


@asynccontextmanager
async def _streaming(state: AppState, account: Account) -> AsyncIterator[_Stream]:
    # The generator itself: httpx' transport for ASGI gives an answer only when it is whole.
    token = account.headers["Authorization"].removeprefix("Bearer ")
    identity = state.authenticator.identify_cached(token)
    assert identity is not None
    response: Any = await follow_changes(identity, token, state)
    chunks = response.body_iterator
    looking = asyncio.create_task(state.changes.look())
    try:
        assert b"retry: 2000" in bytes(await anext(chunks))
        yield _Stream(chunks)
    finally:
        looking.cancel()
        await chunks.aclose()


async def _credits(client: httpx.AsyncClient, account: Account) -> tuple[int, int]:
    balance = (await client.get("/balance", headers=account.headers)).json()
    return balance["available"], balance["held"]


async def test_what_is_accepted_and_what_ends_is_told_to_its_owner(
    client: httpx.AsyncClient, state: AppState, ada: Account, bob: Account, submit: Submit, finish: Finish
) -> None:
    async with _streaming(state, ada) as stream:
        # Not of the account: the next message would be of it.
        await finish(await submit(bob))
        identifier = await submit(ada)
        state.changes.wake()
        assert await stream.balance() == await _credits(client, ada)
        await finish(identifier)
        # No wake: a hint that is lost only makes it late.
        available, held = await stream.balance()
        assert (available, held) == await _credits(client, ada)
        assert held == 0


async def test_a_canceled_one_is_told_although_the_credits_are_the_same_again(
    client: httpx.AsyncClient, state: AppState, ada: Account, submit: Submit
) -> None:
    before = await _credits(client, ada)
    async with _streaming(state, ada) as stream:
        identifier = await submit(ada)
        await client.delete(f"/predictions/{identifier}", headers=ada.headers)
        told = await stream.balance()
        if told != before:
            # A look in between saw it waiting.
            told = await stream.balance()
        assert told == before


async def test_many_changes_are_told_as_few(
    client: httpx.AsyncClient, state: AppState, ada: Account, submit: Submit, finish: Finish
) -> None:
    async with _streaming(state, ada) as stream:
        for _ in range(30):
            await finish(await submit(ada))
            state.changes.wake()
        wanted = await _credits(client, ada)
        told = [await stream.balance()]
        while told[-1] != wanted:
            told.append(await stream.balance())
        # Nobody read the stream meanwhile: what it had to say is said in the last message.
        assert len(told) <= 2


async def test_no_events_are_written_for_it(state: AppState, ada: Account, submit: Submit, finish: Finish) -> None:
    async with _streaming(state, ada) as stream:
        await finish(await submit(ada))
        await stream.next()
    async with state.database.snapshot() as connection:
        assert not await connection.scalar(select(wallets.c.listening).where(wallets.c.user_id == ada.id))
        assert await events.page(connection, ada.id, after=0, limit=10) == []


async def test_an_endpoint_that_was_turned_off_is_told_and_other_events_are_not(state: AppState, ada: Account) -> None:
    async with state.database.transaction() as connection:
        await listening.begin(connection, ada.id)
        await events.tell(connection, ada.id, events.ENDPOINT_DISABLED, data='{"url": "https://before.example"}')
    async with _streaming(state, ada) as stream:
        async with state.database.transaction() as connection:
            await events.tell(connection, ada.id, events.BALANCE_LOW, data="{}")
            await events.tell(connection, ada.id, events.ENDPOINT_DISABLED, data='{"url": "https://a.example"}')
        assert (await stream.next())["event"] == "changed"
        message = await stream.next()
        assert (message["event"], message["id"]) == (events.ENDPOINT_DISABLED, "3")
        assert json.loads(message["data"])["data"] == {"url": "https://a.example"}


async def test_a_stream_ends_when_the_service_does(state: AppState, ada: Account) -> None:
    async with _streaming(state, ada) as stream:
        state.stopping.set()
        with pytest.raises(StopAsyncIteration):
            await stream.next()


async def test_the_stream_of_somebody_who_signed_out_ends(state: AppState, ada: Account, submit: Submit) -> None:
    async with state.database.transaction() as connection:
        session_id, secret = await sessions.create(
            connection, ada.id, user_agent="", address="", lifetime=state.session_lifetime
        )
    await state.authenticator.identify(secret)
    async with _streaming(state, Account(ada.id, {"Authorization": f"Bearer {secret}"})) as stream:
        async with state.database.transaction() as connection:
            await sessions.end(connection, ada.id, session_id)
        state.authenticator.forget_session(session_id)
        await submit(ada)
        with pytest.raises(StopAsyncIteration):
            await stream.next()


async def test_strangers_are_told_nothing(client: httpx.AsyncClient, is_problem: Callable[..., None]) -> None:
    is_problem(await client.get("/events/changes"), 401, "invalid_token")
