"""Events of an account: as pages, and as a stream."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse

from foretell.contracts import http
from foretell.domain.accounts.identity import Identity
from foretell.domain.errors import InvalidToken
from foretell.domain.notifications import changes, events, listening
from foretell.domain.notifications.changes import Mark
from foretell.domain.predictions import event_views
from foretell.kit.clock import now
from foretell.kit.errors import Unavailable
from foretell.kit.problems import InvalidRequest
from foretell.services.app.dependencies import Caller, Limit, PlainNumber, State, Token
from foretell.services.app.openapi import problem_answers, struct_answer
from foretell.services.app.state import AppState

router = APIRouter(tags=["notifications"])

#: Proxies close an idle connection, many after 60 s.
COMMENT_EVERY_S = 15.0
_LARGEST = 2**63 - 1
#: Events that a stream reads at once.
_PAGE = 100
_STREAM = "text/event-stream"
#: The pause of a stream of changes after one that it has told: doubled while there is always another one.
_SHORTEST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 3.0

_encode = msgspec.json.Encoder().encode


@router.get(
    "/events",
    summary="Events of my account",
    response_model=None,
    responses={
        200: {
            "description": "Events, oldest first; or all there will be, as server-sent events",
            "content": {
                **struct_answer(http.EventPage, "")["content"],
                _STREAM: {"schema": {"type": "string"}},
            },
        },
        **problem_answers(401, 422),
    },
)
async def list_events(
    caller: Caller,
    token: Token,
    state: State,
    after: Annotated[
        int | None, Query(ge=0, le=_LARGEST, description="`next_cursor` of the page before, or a sequence"), PlainNumber
    ] = None,
    limit: Limit = 100,
    accept: Annotated[str, Header(description="`text/event-stream` for a stream", max_length=1000)] = "",
    last_event_id: Annotated[str | None, Header(description="The id of the last event of a stream")] = None,
) -> Response:
    """Ends of predictions and all other events of webhooks, for 7 days, with or without a webhook.

    Events are written from the first call on; the first gives up to 2,000 of what ended in the last 7 days. A stream
    (`Accept: text/event-stream`) begins after `Last-Event-ID` or `after`, or else with what happens from now on.
    """
    await _ask(state, caller.user_id)
    if _STREAM in accept:
        return await _stream(state, caller, token, _position(last_event_id, after))
    start = after or 0
    found, more = await _look(state, caller.user_id, start, limit)
    if not found and start:
        known = await _known(state, caller.user_id, start)
        if known != start:
            start = known
            found, more = await _look(state, caller.user_id, start, limit)
    page = http.EventPage(found, str(found[-1].sequence if found else start), more)
    return Response(_encode(page), media_type="application/json")


@router.get(
    "/events/changes",
    summary="When something of my account has changed",
    # Without it, FastAPI describes the answer as JSON, too.
    response_class=StreamingResponse,
    response_model=None,
    responses={
        200: {
            "description": "Events `changed` with a Balance as their data, and `endpoint.disabled` as in `GET /events`",
            "content": {_STREAM: {"schema": {"type": "string"}}},
        },
        **problem_answers(401),
    },
)
async def follow_changes(caller: Caller, token: Token, state: State) -> Response:
    """For pages that show lists: `changed` says that a prediction was accepted or ended, or that credits moved.

    Read again then what is shown. Nothing is stored for this stream, and several changes may be told as one: while
    they come without a pause, at most one in 3 s. After an interruption, read again.
    """
    return StreamingResponse(
        _changes(state, caller, token),
        media_type=_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _ask(state: AppState, user_id: UUID) -> None:
    at = now()
    async with state.database.snapshot() as connection:
        if await listening.has_asked(connection, user_id, at):
            return
    async with state.database.transaction() as connection:
        await event_views.ask(connection, user_id, at)


async def _look(state: AppState, user_id: UUID, after: int, limit: int) -> tuple[list[http.Event], bool]:
    async with state.database.snapshot() as connection:
        # One more than requested, to know whether there are more.
        found = await events.page(connection, user_id, after=after, limit=limit + 1)
        return await event_views.shown(connection, found[:limit]), len(found) > limit


def _position(last_event_id: str | None, after: int | None) -> int | None:
    # By the standard, an empty id means that there was none.
    if not last_event_id:
        return after
    if not re.fullmatch(r"[0-9]{1,19}", last_event_id) or int(last_event_id) > _LARGEST:
        raise InvalidRequest([{"detail": "must be the id of an event of this stream", "header": "Last-Event-ID"}])
    return int(last_event_id)


async def _stream(state: AppState, caller: Identity, token: str, after: int | None) -> Response:
    user_id = caller.user_id
    return StreamingResponse(
        _events(state, caller, token, await _known(state, user_id, after)),
        media_type=_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _known(state: AppState, user_id: UUID, after: int | None) -> int:
    """Where to begin: at the last event without `after`; at the oldest that is kept if `after` has not happened.

    Such a position is of a database that was replaced by a backup. A program that waited for it would miss all events
    until then; this way it gets some a second time, with the same ids.
    """
    async with state.database.snapshot() as connection:
        last = (await events.last_of(connection, [user_id])).get(user_id, 0)
    if after is None:
        return last
    return after if after <= last else 0


async def _events(state: AppState, caller: Identity, token: str, after: int) -> AsyncIterator[bytes]:
    user_id = caller.user_id
    stopping = asyncio.create_task(state.stopping.wait())
    try:
        async with state.following.follow(user_id) as written:
            # Send the first bytes at once, so that proxies and the browser see the response begin. They contain the
            # id at which the stream begins, so that a client that reconnects before the first event misses none.
            yield b"retry: 2000\nid: %d\n\n" % after
            while not stopping.done():
                written.clear()
                try:
                    await state.authenticator.check_still(caller, token)
                    found, more = await _look(state, user_id, after, _PAGE)
                except InvalidToken:
                    # Signed out or blocked: a browser that reconnects gets 401.
                    return
                except Unavailable:
                    # The stream goes on: the database still has the events when it is available again.
                    found, more = [], False
                for event in found:
                    yield _event(event)
                    after = event.sequence
                if not more and not await _something(written, stopping):
                    yield b": nothing new\n\n"
    finally:
        stopping.cancel()


async def _changes(state: AppState, caller: Identity, token: str) -> AsyncIterator[bytes]:
    stopping = asyncio.create_task(state.stopping.wait())
    pause_s = _SHORTEST_PAUSE_S
    try:
        async with state.changes.follow(caller.user_id) as followed:
            seen = await state.changes.now(caller.user_id)
            # A page that reads now misses nothing: all that changes later is told.
            yield b"retry: 2000\n: following\n\n"
            while not stopping.done():
                happened = await _something(followed.changed, stopping)
                followed.changed.clear()
                mark = followed.mark
                try:
                    await state.authenticator.check_still(caller, token)
                    told = await _told(state, caller.user_id, seen, mark)
                except InvalidToken:
                    return
                except Unavailable:
                    # The mark is compared again at the next look.
                    followed.mark = seen
                    continue
                for each in told:
                    yield each
                if not happened:
                    yield b": nothing new\n\n"
                seen = mark
                if told:
                    await asyncio.wait((stopping,), timeout=pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if followed.changed.is_set() else _SHORTEST_PAUSE_S
    finally:
        stopping.cancel()


async def _told(state: AppState, user_id: UUID, seen: Mark | None, mark: Mark | None) -> list[bytes]:
    """What a stream says when an account has another mark."""
    if seen is None or mark is None or seen == mark:
        return []
    balance = http.Balance(available=mark.available, held=mark.held, threshold=mark.threshold)
    told = [b"event: changed\ndata: %b\n\n" % balance.model_dump_json().encode()]
    if mark.last_event > seen.last_event:
        async with state.database.snapshot() as connection:
            found = await changes.disabled_since(connection, user_id, seen.last_event)
            told += [_event(event) for event in await event_views.shown(connection, found)]
    return told


async def _something(written: asyncio.Event, stopping: "asyncio.Task[bool]") -> bool:
    """Wait for new events or the stop of the process; False on a time-out."""
    waiting = asyncio.create_task(written.wait())
    try:
        done, _ = await asyncio.wait((waiting, stopping), timeout=COMMENT_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return bool(done)


def _event(event: http.Event) -> bytes:
    # One `data:` line must hold the JSON. Raw parts are as the client sent them and may contain line breaks.
    data = _encode(event).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.type.encode(), event.sequence, data)
