"""`GET /events`: everything that was told or would have been, as pages and as a stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.integration.app.conftest import Account

from foretell.domain.accounts import sessions
from foretell.services.app.routes.events import list_events
from foretell.services.app.state import AppState

Submit = Callable[..., Awaitable[UUID]]
Finish = Callable[..., Awaitable[None]]


async def test_a_program_that_asks_now_and_then_misses_nothing(
    client: httpx.AsyncClient, ada: Account, bob: Account, submit: Submit, finish: Finish
) -> None:
    before = await submit(ada)
    await finish(before)
    first = (await client.get("/events", headers=ada.headers)).json()
    assert [(item["id"], item["sequence"]) for item in first["items"]] == [(str(before), 1)]
    assert (first["next_cursor"], first["more"]) == ("1", False)

    ids = [await submit(ada) for _ in range(3)]
    for identifier in ids:
        await finish(identifier)
    page = (await client.get("/events", params={"after": 1, "limit": 2}, headers=ada.headers)).json()
    assert ([item["id"] for item in page["items"]], page["more"]) == ([str(each) for each in ids[:2]], True)
    rest = (await client.get("/events", params={"after": page["next_cursor"]}, headers=ada.headers)).json()
    assert [item["id"] for item in rest["items"]] == [str(ids[2])]
    nothing = (await client.get("/events", params={"after": rest["next_cursor"]}, headers=ada.headers)).json()
    assert nothing == {"items": [], "next_cursor": "4", "more": False}
    assert (await client.get("/events", headers=bob.headers)).json()["items"] == []

    event = rest["items"][0]
    assert event["type"] == "prediction.finished"
    assert event["data"] == (await client.get(f"/predictions/{ids[2]}", headers=ada.headers)).json()
    assert event["timestamp"] == event["data"]["finished_at"]


async def test_a_position_of_before_a_restored_backup_misses_nothing(
    client: httpx.AsyncClient, state: AppState, ada: Account, submit: Submit, finish: Finish
) -> None:
    await client.get("/events", headers=ada.headers)
    identifier = await submit(ada)
    await finish(identifier)
    page = (await client.get("/events", params={"after": 1000}, headers=ada.headers)).json()
    assert ([item["id"] for item in page["items"]], page["next_cursor"]) == ([str(identifier)], "1")
    at_the_end = (await client.get("/events", params={"after": 1}, headers=ada.headers)).json()
    assert at_the_end == {"items": [], "next_cursor": "1", "more": False}
    async with _streaming(state, ada, last_event_id="1000") as stream:
        assert await stream.ids(1) == [str(identifier)]
        assert stream.began_after == "0"


async def test_a_canceled_one_is_among_them(client: httpx.AsyncClient, ada: Account, submit: Submit) -> None:
    await client.get("/events", headers=ada.headers)
    identifier = await submit(ada)
    await client.delete(f"/predictions/{identifier}", headers=ada.headers)
    (event,) = (await client.get("/events", headers=ada.headers)).json()["items"]
    assert (event["id"], event["data"]["status"]) == (str(identifier), "canceled")


@pytest.mark.parametrize(
    "wrong",
    [
        {"after": "x"},
        {"after": -1},
        {"limit": 0},
        {"after": 2**63},
        {"after": "1_0"},
        {"after": " 1"},
        {"after": "1.0"},
        {"after": "+1"},
        {"after": "\u0661"},
        {"after": ""},
        {"limit": "1_0"},
        {"limit": "0" * 5000},
    ],
)
async def test_what_does_not_fit_is_refused(
    client: httpx.AsyncClient, ada: Account, wrong: dict[str, Any], is_problem: Callable[..., None]
) -> None:
    answer = await client.get("/events", params=wrong, headers=ada.headers)
    is_problem(answer, 422, "invalid_request")
    assert [error["parameter"] for error in answer.json()["errors"]] == list(wrong)


async def test_every_number_of_a_query_is_written_plainly(
    client: httpx.AsyncClient, ada: Account, is_problem: Callable[..., None]
) -> None:
    found = 0
    for path, methods in (await client.get("/openapi.json")).json()["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                schema = parameter["schema"]
                types = {each.get("type") for each in schema.get("anyOf", [schema])}
                # To those who are no operators there is nothing at an address below /admin, whatever stands in it.
                if parameter["in"] == "query" and "integer" in types and not path.startswith("/admin"):
                    found += 1
                    where = path.replace("{webhook_id}", str(UUID(int=7)))
                    params = {parameter["name"]: "1_0"} | ({"url": "x"} if "once" in path else {})
                    answer = await client.request(method, where, params=params, headers=ada.headers)
                    is_problem(answer, 422, "invalid_request")
                    assert answer.json()["errors"][0]["parameter"] == parameter["name"], where
    assert found >= 8


@pytest.mark.parametrize("wrong", ["x", "-1", "9" * 19, "0" * 5000, "1_0"])
async def test_a_position_that_is_none_is_refused(
    client: httpx.AsyncClient, ada: Account, wrong: str, is_problem: Callable[..., None]
) -> None:
    headers = ada.headers | {"Accept": "text/event-stream", "Last-Event-ID": wrong}
    is_problem(await client.get("/events", headers=headers), 422, "invalid_request")


async def test_strangers_are_told_nothing(client: httpx.AsyncClient, is_problem: Callable[..., None]) -> None:
    is_problem(await client.get("/events"), 401, "invalid_token")


class _Stream:
    """What a browser reads from the stream, message by message."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._chunks = chunks
        #: The id that a browser has before the first event.
        self.began_after = ""

    async def next(self) -> dict[str, str]:
        chunk = await asyncio.wait_for(anext(self._chunks), 30)
        text = chunk if isinstance(chunk, str) else bytes(chunk).decode()
        lines = [line.partition(": ") for line in text.strip().splitlines()]
        return {name: value for name, _, value in lines}

    async def ids(self, count: int) -> list[str]:
        return [json.loads((await self.next())["data"])["id"] for _ in range(count)]


@asynccontextmanager
async def _streaming(state: AppState, account: Account, **position: Any) -> AsyncIterator[_Stream]:
    # The generator itself: httpx' transport for ASGI gives an answer only when it is whole.
    token = account.headers["Authorization"].removeprefix("Bearer ")
    identity = state.authenticator.identify_cached(token)
    assert identity is not None
    given: dict[str, Any] = {"after": None, "limit": 100, "accept": "text/event-stream", "last_event_id": None}
    response: Any = await list_events(identity, token, state, **given | position)
    chunks = response.body_iterator
    try:
        stream = _Stream(chunks)
        begin = await stream.next()
        assert begin["retry"] == "2000"
        stream.began_after = begin["id"]
        yield stream
    finally:
        await chunks.aclose()


async def test_a_stream_that_breaks_before_its_first_event_misses_nothing(
    client: httpx.AsyncClient, state: AppState, ada: Account, submit: Submit, finish: Finish
) -> None:
    await client.get("/events", headers=ada.headers)
    await finish(await submit(ada))
    async with _streaming(state, ada) as stream:
        last = stream.began_after
    identifier = await submit(ada)
    await finish(identifier)
    async with _streaming(state, ada, last_event_id=last) as stream:
        assert await stream.ids(1) == [str(identifier)]
        assert stream.began_after == last


async def test_one_stream_shows_all_that_happens(
    state: AppState, ada: Account, bob: Account, submit: Submit, finish: Finish
) -> None:
    looking = asyncio.create_task(state.following.look())
    try:
        await finish(await submit(ada))
        async with _streaming(state, ada) as stream:
            # From now on, for whoever does not say from where.
            mine, others = [await submit(ada) for _ in range(2)], await submit(bob)
            for identifier in (others, *mine):
                await finish(identifier)
            state.following.wake([ada.id])
            seen = await stream.next()
            assert (seen["event"], seen["id"]) == ("prediction.finished", "2")
            assert json.loads(seen["data"])["id"] == str(mine[0])
            assert (await stream.next())["id"] == "3"
            # A hint that is lost only makes it late.
            await finish(await submit(ada))
            assert (await stream.next())["id"] == "4"
        for position in (
            {"last_event_id": "2"},
            {"after": 2},
            {"after": 0, "last_event_id": "2"},
            {"after": 2, "last_event_id": ""},
        ):
            async with _streaming(state, ada, **position) as stream:
                assert [(await stream.next())["id"] for _ in range(2)] == ["3", "4"]
    finally:
        looking.cancel()


async def test_a_stream_ends_when_the_service_does(state: AppState, ada: Account) -> None:
    async with _streaming(state, ada) as stream:
        state.stopping.set()
        with pytest.raises(StopAsyncIteration):
            await stream.next()


async def test_the_stream_of_somebody_who_signed_out_ends(state: AppState, ada: Account) -> None:
    async with state.database.transaction() as connection:
        session_id, secret = await sessions.create(
            connection, ada.id, user_agent="", address="", lifetime=state.session_lifetime
        )
    browser = Account(ada.id, {"Authorization": f"Bearer {secret}"})
    await state.authenticator.identify(secret)
    async with _streaming(state, browser) as stream:
        async with state.database.transaction() as connection:
            await sessions.end(connection, ada.id, session_id)
        state.authenticator.forget_session(session_id)
        state.following.wake([ada.id])
        with pytest.raises(StopAsyncIteration):
            await stream.next()
