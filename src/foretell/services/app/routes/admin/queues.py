"""Shows queues; shows, redrives and discards dead letters. The monitoring service does the work."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from foretell.contracts import http
from foretell.contracts.reports import activity
from foretell.domain.operators import journal
from foretell.domain.operators.journal import Actor
from foretell.kit.errors import ForetellError
from foretell.services.app.dependencies import PlainNumber, State
from foretell.services.app.monitoring import part
from foretell.services.app.routes.admin.acting import Operator, answers, reported
from foretell.services.app.state import AppState

router = APIRouter(prefix="/admin", tags=["operators"])

QueueName = Annotated[
    str, Path(max_length=100, pattern=r"^[a-z0-9_.-]+$", description="ml_tasks, ml_tasks.POOL or ml_results")
]


@router.get("/queues", summary="Queue depths", response_model=None, responses=reported(activity.Queues) | answers())
async def show_queues(operator: Operator, state: State) -> Response:
    """The report `queues`: waiting tasks of each, the oldest task, dead letters."""
    return Response(await state.monitoring.ask("/reports/queues"), media_type="application/json")


@router.get(
    "/queues/{queue}/dead",
    summary="Dead letters",
    response_model=None,
    responses=reported(activity.DeadLetters) | answers(422),
)
async def show_dead_letters(
    queue: QueueName,
    operator: Operator,
    state: State,
    limit: Annotated[int, Query(ge=1, le=500, description="How many of the oldest"), PlainNumber] = 50,
) -> Response:
    """The oldest dead letters: kind, model, size, predictions; without inputs and outputs."""
    content = await state.monitoring.ask(f"/queues/{part(queue)}/dead", {"limit": limit})
    return Response(content, media_type="application/json")


@router.post("/queues/{queue}/redrive", summary="Redrive dead letters", responses=answers(403, 409, 413, 422))
async def redrive(queue: QueueName, wanted: http.NewRedrive, operator: Operator, state: State) -> http.MovedLetters:
    """Return the oldest dead letters to their queue, each once. Nothing is charged twice."""
    return await _move(
        state, operator, "queue.redrive", queue, {"limit": wanted.limit}, "POST", "redrive", {"limit": wanted.limit}
    )


@router.post("/queues/{queue}/discard", summary="Discard dead letters", responses=answers(403, 409, 413, 422))
async def discard(queue: QueueName, wanted: http.NewDiscard, operator: Operator, state: State) -> http.MovedLetters:
    """Discard all dead letters if their number is `confirm`; otherwise 409 with the number."""
    return await _move(
        state, operator, "queue.discard", queue, {"confirm": wanted.confirm}, "DELETE", "dead", None,
        confirm=wanted.confirm,
    )  # fmt: skip


async def _move(
    state: AppState,
    operator: Actor,
    act: str,
    queue: str,
    asked: dict[str, Any],
    method: str,
    place: str,
    body: Any,
    **parameters: Any,
) -> http.MovedLetters:
    """Move dead letters, with two journal entries: the request before anything happens, then its result."""
    subject = f"queue:{queue}"
    async with state.database.transaction() as connection:
        await journal.write(connection, operator, act, subject, before=asked)
    try:
        told = await state.monitoring.tell(method, f"/queues/{part(queue)}/{place}", body, **parameters)
    except ForetellError as error:
        await _came_of_it(state, operator, act, subject, {"failed": error.code, **error.details})
        raise
    await _came_of_it(state, operator, act, subject, told)
    return http.MovedLetters.model_validate(told)


async def _came_of_it(state: AppState, operator: Actor, act: str, subject: str, after: dict[str, Any]) -> None:
    async with state.database.transaction() as connection:
        await journal.write_outcome(connection, operator, f"{act}.done", subject, after=after)
