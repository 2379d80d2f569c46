"""Shows, streams and cancels predictions. `submit` accepts them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse

from foretell.contracts import http
from foretell.contracts.messages import Status
from foretell.domain.accounts.identity import Identity
from foretell.domain.errors import AlreadyFinished, InvalidToken
from foretell.domain.predictions import history
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.history import PredictionView
from foretell.domain.predictions.pages import Span
from foretell.domain.predictions.presentation import details_of, prediction_of
from foretell.kit.errors import Unavailable
from foretell.services.app.dependencies import NAME_PATTERN, Caller, Limit, QueryMoment, State, Token
from foretell.services.app.exporting import history_pages, table
from foretell.services.app.openapi import problem_answers, struct_answer
from foretell.services.app.state import AppState
from foretell.services.app.waiting import finished_of

router = APIRouter(tags=["predictions"])

#: Proxies close an idle connection, many after 60 s.
COMMENT_EVERY_S = 15.0

_encode = msgspec.json.Encoder().encode

OfStatus = Annotated[Status | None, Query(description="Only those with this status")]
OfModel = Annotated[str | None, Query(max_length=64, pattern=NAME_PATTERN, description="Only of this model")]
Since = Annotated[QueryMoment | None, Query(description="Only those made then or later")]
Until = Annotated[QueryMoment | None, Query(description="Only those made before")]


@router.get(
    "/predictions",
    summary="My predictions",
    response_model=None,
    responses={200: struct_answer(http.PredictionPage, "Newest first"), **problem_answers(401, 422)},
)
async def list_predictions(
    caller: Caller,
    state: State,
    limit: Limit = 20,
    cursor: Annotated[UUID | None, Query(description="`next_cursor` of the page before")] = None,
    status: OfStatus = None,
    model: OfModel = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """The history, newest first."""
    async with state.database.snapshot() as connection:
        # One more than requested, to know whether there is a next page.
        views = await history.page(
            connection,
            caller.user_id,
            limit=limit + 1,
            before_id=cursor,
            status=status,
            model=model,
            span=Span(since, until),
        )
    shown = views[:limit]
    next_cursor = str(shown[-1].id) if len(views) > limit else None
    return _json(http.PredictionPage([prediction_of(view) for view in shown], next_cursor))


@router.get(
    "/predictions.csv",
    summary="My predictions as a table",
    # Without it, FastAPI describes the answer as JSON, too.
    response_class=StreamingResponse,
    response_model=None,
    responses={
        200: {
            "description": "CSV in UTF-8, newest first; no cell is a formula to a spreadsheet",
            "content": {"text/csv": {"schema": {"type": "string"}}},
        },
        **problem_answers(401, 422, 429),
    },
)
async def export_predictions(
    caller: Caller,
    state: State,
    status: OfStatus = None,
    model: OfModel = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """All predictions that match the filters, with inputs and results."""
    state.exports.attempt(caller.user_id)
    pages = history_pages(state, caller.user_id, status=status, model=model, span=Span(since, until))
    return StreamingResponse(
        table(pages),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": 'attachment; filename="foretell-predictions.csv"',
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        },
    )


@router.get(
    "/predictions/{prediction_id:uuid}",
    summary="One prediction",
    response_model=None,
    responses={200: struct_answer(http.PredictionDetails, "The prediction as it stands"), **problem_answers(401, 404)},
)
async def show_prediction(prediction_id: UUID, caller: Caller, state: State) -> Response:
    """The state of a prediction with its input, its place while it is queued, and its result once it ended."""
    details = details_of(await _find(state, caller.user_id, prediction_id))
    if details.status == "queued":
        details = msgspec.structs.replace(details, queue=await state.queue_places.place_of(prediction_id))
    return _json(details)


@router.delete(
    "/predictions/{prediction_id:uuid}",
    summary="Cancel a prediction",
    response_model=None,
    responses={
        200: struct_answer(http.Prediction, "It is canceled"),
        **problem_answers(401, 404, AlreadyFinished(status="succeeded")),
    },
)
async def cancel_prediction(prediction_id: UUID, caller: Caller, state: State) -> Response:
    """Cancel a prediction while it is queued. Its credits are released."""
    async with state.database.transaction() as connection:
        view = await cancel(connection, caller.user_id, prediction_id)
    # Waiting requests in other processes see it when they poll the database, within a second.
    state.waiting.wake([finished_of(view)])
    state.changes.wake()
    return _json(prediction_of(view))


@router.get(
    "/predictions/{prediction_id:uuid}/events",
    summary="Follow a prediction",
    # Without it, FastAPI describes the answer as JSON, too.
    response_class=StreamingResponse,
    response_model=None,
    responses={
        200: {
            "description": "An event `prediction` with a Prediction as its data: at once, and when it has ended",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "You have seen the end (`Last-Event-ID`): there is nothing to follow any more"},
        **problem_answers(401, 404),
    },
)
async def follow_prediction(
    prediction_id: UUID,
    caller: Caller,
    token: Token,
    state: State,
    last_event_id: Annotated[str | None, Header(description="The id of the last event that was seen")] = None,
) -> Response:
    """Server-sent events: the current state of the prediction, then its end, which also ends the stream."""
    # Before the stream begins, so that an unknown prediction is an ordinary 404.
    view = await _find(state, caller.user_id, prediction_id)
    if view.status != "queued" and last_event_id == view.status:
        # 204, because a browser reconnects after the end of a stream, and only 204 stops it.
        return Response(status_code=204)
    return StreamingResponse(
        _events(state, caller, token, view),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(state: AppState, caller: Identity, token: str, view: PredictionView) -> AsyncIterator[bytes]:
    stopping = asyncio.create_task(state.stopping.wait())
    try:
        async with state.waiting.watch(view.id) as ended:
            # Read again after `watch`: it may have ended in between.
            view = await _look_again(state, view)
            yield _event(view)
            while view.status == "queued" and not stopping.done():
                waiting_for = [future for future in (ended, stopping) if not future.done()]
                done, _ = await asyncio.wait(waiting_for, timeout=COMMENT_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    if not await _still_in(state, caller, token):
                        return
                    yield b": still queued\n\n"
                view = await _look_again(state, view)
                if view.status != "queued":
                    yield _event(view)
    finally:
        stopping.cancel()


async def _still_in(state: AppState, caller: Identity, token: str) -> bool:
    try:
        await state.authenticator.check_still(caller, token)
    except InvalidToken:
        return False
    except Unavailable:
        pass
    return True


async def _look_again(state: AppState, view: PredictionView) -> PredictionView:
    try:
        return await _find(state, view.user_id, view.id)
    except Unavailable:
        # The stream goes on: the database still has the end when it is available again.
        return view


async def _find(state: AppState, user_id: UUID, prediction_id: UUID) -> PredictionView:
    async with state.database.snapshot() as connection:
        return await history.find(connection, user_id, prediction_id)


def _event(view: PredictionView) -> bytes:
    # The encoded JSON has no line breaks, so one `data:` line is enough.
    return b"event: prediction\nid: %b\nretry: 2000\ndata: %b\n\n" % (
        view.status.encode(),
        _encode(prediction_of(view)),
    )


def _json(answer: msgspec.Struct) -> Response:
    return Response(_encode(answer), media_type="application/json")
