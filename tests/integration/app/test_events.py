"""Server-sent events, over a real server: streams are what in-process clients get wrong."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn

from foretell.services.app.api import build_api, surround
from foretell.services.app.state import AppState

from .conftest import Account

Submit = Callable[..., Awaitable[UUID]]
Finish = Callable[..., Awaitable[None]]


@pytest.fixture
async def served(state: AppState) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, served on the loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        surround(build_api(state), state.settings), log_config=None, lifespan="off", timeout_graceful_shutdown=10
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listener]))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream: their fields, `data` parsed."""
    event: dict[str, Any] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value
        elif event:
            yield event
            event = {}


async def test_a_stream_tells_the_state_at_once_and_ends_with_the_prediction(
    served: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish
) -> None:
    prediction_id = await submit(ada)
    async with served.stream("GET", f"/predictions/{prediction_id}/events", headers=ada.headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store"
        events = _events(response)
        first = await anext(events)
        assert (first["event"], first["id"], first["data"]["status"]) == ("prediction", "queued", "queued")
        await finish(prediction_id)
        last = await anext(events)
        assert (last["id"], last["data"]["output"]) == ("succeeded", {"prediction": 1, "probability": 0.75})
        assert [event async for event in events] == []


async def test_the_stream_of_a_prediction_that_ended_is_one_event(
    served: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish
) -> None:
    prediction_id = await submit(ada)
    await finish(prediction_id)
    for seen in ({}, {"Last-Event-ID": "queued"}, {"Last-Event-ID": "what is this"}):
        response = await served.get(f"/predictions/{prediction_id}/events", headers=ada.headers | seen)
        assert response.text.count("event: prediction") == 1


async def test_who_has_seen_the_end_is_told_to_stay_away(
    served: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish
) -> None:
    prediction_id = await submit(ada)
    await finish(prediction_id)
    headers = ada.headers | {"Last-Event-ID": "succeeded"}
    response = await served.get(f"/predictions/{prediction_id}/events", headers=headers)
    assert (response.status_code, response.content) == (204, b"")


async def test_streams_end_when_the_app_stops(
    served: httpx.AsyncClient, state: AppState, ada: Account, submit: Submit
) -> None:
    prediction_id = await submit(ada)
    async with served.stream("GET", f"/predictions/{prediction_id}/events", headers=ada.headers) as response:
        events = _events(response)
        await anext(events)
        state.stopping.set()
        assert [event async for event in events] == []


async def test_a_client_that_leaves_is_watched_for_no_longer(
    served: httpx.AsyncClient, ada: Account, submit: Submit, finish: Finish
) -> None:
    prediction_id = await submit(ada)
    async with served.stream("GET", f"/predictions/{prediction_id}/events", headers=ada.headers) as response:
        await anext(_events(response))
    await finish(prediction_id)
    response = await served.get(f"/predictions/{prediction_id}/events", headers=ada.headers)
    assert "event: prediction" in response.text
