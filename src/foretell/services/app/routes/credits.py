"""Balance, usage and transactions."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts import http
from foretell.domain.credits import ledger
from foretell.domain.notifications import events
from foretell.domain.predictions import usage
from foretell.kit.clock import now
from foretell.services.app.dependencies import Caller, Limit, PlainNumber, State
from foretell.services.app.openapi import problem_answers

router = APIRouter(tags=["credits"])

_LARGEST_ID = 2**63 - 1
_MOST_DAYS = 366


@router.get("/balance", summary="My credits", responses=problem_answers(401))
async def show_balance(caller: Caller, state: State) -> http.Balance:
    """Credits that are available, and credits held by predictions that have not ended."""
    async with state.database.snapshot() as connection:
        return await _balance(connection, caller.user_id)


@router.patch("/balance", summary="Set the threshold of balance.low", responses=problem_answers(401, 413, 422))
async def change_balance(wanted: http.BalanceChange, caller: Caller, state: State) -> http.Balance:
    """Below this many credits the event `balance.low` is sent, once each time the threshold is crossed.

    If there are already fewer, it is sent at once.
    """
    async with state.database.transaction() as connection:
        await events.set_threshold(connection, caller.user_id, wanted.threshold)
        return await _balance(connection, caller.user_id)


async def _balance(connection: AsyncConnection, user_id: UUID) -> http.Balance:
    balance = await ledger.balance(connection, user_id)
    threshold = await events.threshold(connection, user_id)
    return http.Balance(available=balance.available, held=balance.held, threshold=threshold)


@router.get("/usage", summary="My usage by day and model", responses=problem_answers(401, 422))
async def show_usage(
    caller: Caller,
    state: State,
    days: Annotated[int, Query(ge=1, le=_MOST_DAYS, description="Today and those before it"), PlainNumber] = 30,
) -> http.Usage:
    """From stored sums, which are fast for any history and some seconds old."""
    since = now().date() - timedelta(days=days - 1)
    async with state.database.snapshot() as connection:
        found = await usage.used(connection, caller.user_id, since)
    return http.Usage(
        items=[
            http.UsageOfDay(
                day=each.day,
                model=each.model,
                predictions=each.succeeded + each.failed + each.canceled,
                succeeded=each.succeeded,
                failed=each.failed,
                canceled=each.canceled,
                credits=each.credits,
            )
            for each in found
        ]
    )


@router.get("/transactions", summary="My transactions", responses=problem_answers(401, 422))
async def list_transactions(
    caller: Caller,
    state: State,
    limit: Limit = 50,
    cursor: Annotated[
        int | None, Query(ge=0, le=_LARGEST_ID, description="`next_cursor` of the page before"), PlainNumber
    ] = None,
) -> http.TransactionPage:
    """Every movement of the credits, newest first."""
    async with state.database.snapshot() as connection:
        # One more than requested, to know whether there is a next page.
        movements = await ledger.movements(connection, caller.user_id, limit=limit + 1, before_id=cursor)
    shown = movements[:limit]
    return http.TransactionPage(
        items=[http.Transaction.model_validate(movement) for movement in shown],
        next_cursor=str(shown[-1].id) if len(movements) > limit else None,
    )
