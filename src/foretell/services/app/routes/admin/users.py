"""Accounts, for operators."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from foretell.contracts import http
from foretell.domain.accounts.identity import User
from foretell.domain.credits import ledger
from foretell.domain.credits.ledger import Balance
from foretell.domain.operators import users
from foretell.kit.problems import InvalidRequest, pointer
from foretell.services.app.dependencies import Limit, PlainNumber, State
from foretell.services.app.routes.admin.acting import Operator, answers
from foretell.services.app.state import AppState

router = APIRouter(prefix="/admin", tags=["operators"])

_LARGEST_ID = 2**63 - 1


@router.get("/users", summary="Find accounts", responses=answers(422))
async def find_users(
    operator: Operator,
    state: State,
    name: Annotated[str | None, Query(max_length=64, description="A part of the name, or an id")] = None,
    role: Annotated[Literal["user", "operator"] | None, Query(description="Only these")] = None,
    active: Annotated[bool | None, Query(description="Whether anybody can sign in to it")] = None,
    limit: Limit = 50,
    cursor: Annotated[UUID | None, Query(description="`next_cursor` of the page before")] = None,
) -> http.OverseenUsers:
    """Newest first."""
    if name is not None and "\0" in name:
        raise InvalidRequest([{"detail": "must not contain the character NUL", "parameter": "name"}])
    async with state.database.snapshot() as connection:
        found = await users.find(connection, limit=limit + 1, before_id=cursor, name=name, role=role, active=active)
    shown = found[:limit]
    return http.OverseenUsers(
        items=[http.OverseenUser(**_facts(each.user, each.balance)) for each in shown],
        next_cursor=str(shown[-1].user.id) if len(found) > limit else None,
    )


@router.get("/users/{user_id:uuid}", summary="One account", responses=answers())
async def show_user(user_id: UUID, operator: Operator, state: State) -> http.OverseenUserDetails:
    """With its balance, and its usage of the last 30 days."""
    return await _details(state, user_id)


@router.get("/users/{user_id:uuid}/transactions", summary="Transactions of an account", responses=answers(422))
async def list_user_transactions(
    user_id: UUID,
    operator: Operator,
    state: State,
    limit: Limit = 50,
    cursor: Annotated[
        int | None, Query(ge=0, le=_LARGEST_ID, description="`next_cursor` of the page before"), PlainNumber
    ] = None,
) -> http.TransactionPage:
    """Newest first."""
    async with state.database.snapshot() as connection:
        await ledger.balance(connection, user_id)
        movements = await ledger.movements(connection, user_id, limit=limit + 1, before_id=cursor)
    shown = movements[:limit]
    return http.TransactionPage(
        items=[http.Transaction.model_validate(movement) for movement in shown],
        next_cursor=str(shown[-1].id) if len(movements) > limit else None,
    )


@router.post("/users/{user_id:uuid}/grant", summary="Grant credits", responses=answers(403, 409, 413, 422))
async def grant_credits(
    user_id: UUID, wanted: http.NewGrant, operator: Operator, state: State
) -> http.OverseenUserDetails:
    """Free credits. A second grant with the same `reference` is refused: 409."""
    async with state.database.transaction() as connection:
        await users.grant(connection, operator, user_id, wanted.credits, reference=wanted.reference, note=wanted.note)
    return await _details(state, user_id)


@router.post("/users/{user_id:uuid}/refund", summary="Refund credits", responses=answers(403, 409, 413, 422))
async def refund_credits(
    user_id: UUID, wanted: http.NewRefund, operator: Operator, state: State
) -> http.OverseenUserDetails:
    """The price of a prediction, once; or a number of credits."""
    if (wanted.prediction_id is None) == (wanted.credits is None):
        raise InvalidRequest([{"detail": "Give either `prediction_id` or `credits`.", "pointer": pointer()}])
    async with state.database.transaction() as connection:
        if wanted.prediction_id is not None:
            await users.refund_prediction(connection, operator, user_id, wanted.prediction_id, note=wanted.note)
        else:
            assert wanted.credits is not None
            await users.refund_credits(connection, operator, user_id, wanted.credits, note=wanted.note)
    return await _details(state, user_id)


@router.post("/users/{user_id:uuid}/block", summary="Block an account", responses=answers(403, 409, 413, 422))
async def block_user(
    user_id: UUID, wanted: http.NewBlock, operator: Operator, state: State
) -> http.OverseenUserDetails:
    """Sessions, tokens, keys and chats stop working at once; in other app processes within a second.

    Blocking a blocked account records the new reason in the journal. For an account that its owner closed: 409.
    """
    async with state.database.transaction() as connection:
        await users.block(connection, operator, user_id, reason=wanted.reason)
    return await _ended(state, user_id)


@router.post("/users/{user_id:uuid}/unblock", summary="Unblock an account", responses=answers(403, 413, 422))
async def unblock_user(
    user_id: UUID, wanted: http.NewBlock, operator: Operator, state: State
) -> http.OverseenUserDetails:
    """The user must sign in again. API keys work again, unless the owner had closed the account, which deletes them."""
    async with state.database.transaction() as connection:
        await users.unblock(connection, operator, user_id, reason=wanted.reason)
    return await _ended(state, user_id)


@router.post(
    "/users/{user_id:uuid}/role", summary="Change the role of an account", responses=answers(403, 409, 413, 422)
)
async def change_role(
    user_id: UUID, wanted: http.NewRole, operator: Operator, state: State
) -> http.OverseenUserDetails:
    """The account's access tokens end. 409 for one's own role, and for the last operator."""
    async with state.database.transaction() as connection:
        await users.set_role(connection, operator, user_id, wanted.role)
    return await _ended(state, user_id)


async def _ended(state: AppState, user_id: UUID) -> http.OverseenUserDetails:
    """The changed account, after ending its tokens in this process, too."""
    async with state.database.snapshot() as connection:
        state.authenticator.end(await users.ended(connection, user_id))
    return await _details(state, user_id)


async def _details(state: AppState, user_id: UUID) -> http.OverseenUserDetails:
    async with state.database.snapshot() as connection:
        found = await users.details(connection, user_id)
    return http.OverseenUserDetails(
        **_facts(found.user, found.balance),
        queued=found.queued,
        api_keys=found.api_keys,
        sessions=found.sessions,
        webhooks=found.webhooks,
        chats=found.chats,
        predictions=found.predictions,
        credits=found.credits,
    )


def _facts(user: User, balance: Balance) -> dict[str, Any]:
    return {
        **http.User.model_validate(user).model_dump(),
        "active": user.active,
        "closed_at": user.closed_at,
        "available": balance.available,
        "held": balance.held,
    }
