"""Predictions of all accounts, without inputs and outputs."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from foretell.contracts import http
from foretell.contracts.messages import Status
from foretell.domain.operators import predictions
from foretell.services.app.dependencies import NAME_PATTERN, Limit, State
from foretell.services.app.routes.admin.acting import Operator, answers

router = APIRouter(prefix="/admin", tags=["operators"])


@router.get("/predictions", summary="Predictions of all accounts", responses=answers(422))
async def oversee_predictions(
    operator: Operator,
    state: State,
    user_id: Annotated[UUID | None, Query(description="Only of this account")] = None,
    model: Annotated[str | None, Query(max_length=64, pattern=NAME_PATTERN, description="Only of this model")] = None,
    status: Annotated[Status | None, Query(description="Only those with this status")] = None,
    limit: Limit = 50,
    cursor: Annotated[UUID | None, Query(description="`next_cursor` of the page before")] = None,
) -> http.OverseenPredictions:
    """Newest first. A page reads at most 5,000 predictions, so it may be short although there is a next one."""
    async with state.database.snapshot() as connection:
        found, following = await predictions.page(
            connection, limit=limit, before_id=cursor, user_id=user_id, model=model, status=status
        )
    return http.OverseenPredictions(
        items=[http.OverseenPrediction.model_validate(each) for each in found],
        next_cursor=None if following is None else str(following),
    )
