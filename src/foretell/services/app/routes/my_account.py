"""The caller's own account: page settings, password, export, closing."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from foretell.contracts import http
from foretell.domain.accounts import api_keys, registration, telegram
from foretell.domain.accounts.authentication import authenticate
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.passwords import check_password
from foretell.domain.errors import InvalidCredentials, WrongPassword
from foretell.domain.notifications import endpoints
from foretell.services.app import exporting
from foretell.services.app.client_address import client_address
from foretell.services.app.dependencies import Caller, State
from foretell.services.app.openapi import problem_answers
from foretell.services.app.routes.sessions import give_cookie
from foretell.services.app.state import AppState

router = APIRouter(tags=["accounts"])


@router.patch("/users/me", summary="Settings of my page", responses=problem_answers(401, 413, 422))
async def change_me(wanted: http.UserChange, caller: Caller, state: State) -> http.User:
    """Language and theme of the page; null: as set in the browser. Fields that are left out do not change."""
    looks = wanted.model_dump(include=wanted.model_fields_set)
    async with state.database.transaction() as connection:
        return http.User.model_validate(await registration.set_looks(connection, caller.user_id, **looks))


@router.post(
    "/users/me/password",
    status_code=204,
    summary="Change my password",
    responses=problem_answers(401, 403, 413, 422, 429),
)
async def change_password(wanted: http.PasswordChange, caller: Caller, request: Request, state: State) -> None:
    """All other sessions and all tokens end, including the token of this request. API keys stay valid."""
    check_password(wanted.new)
    user = await _prove(state, caller.user_id, wanted.old, request)
    password_hash = await state.passwords.hash(wanted.new)
    async with state.database.transaction() as connection:
        await registration.set_password(connection, user.id, password_hash, but_session=caller.session_id)
        ended = await registration.ended(connection, user.id)
    state.authenticator.end([ended])


@router.get(
    "/users/me/export",
    summary="Export my data",
    # Without it, FastAPI describes the answer as JSON, too.
    response_class=StreamingResponse,
    response_model=None,
    responses={
        200: {
            "description": "A JSON object a line; `record` says what it is, and the last one is `end`",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **problem_answers(401, 429),
    },
)
async def export_me(caller: Caller, state: State) -> Response:
    """Account, balance, keys and webhooks without their secrets, chats, sessions, predictions and transactions."""
    state.exports.attempt(caller.user_id)
    return StreamingResponse(
        exporting.everything(state, caller.user_id),
        media_type="application/x-ndjson",
        headers={
            "Content-Disposition": 'attachment; filename="foretell-account.jsonl"',
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        },
    )


@router.delete(
    "/users/me", status_code=204, summary="Close my account", responses=problem_answers(401, 403, 409, 413, 422, 429)
)
async def close_me(
    wanted: http.AccountClosing, caller: Caller, request: Request, response: Response, state: State
) -> None:
    """Sessions, tokens and keys end, webhooks are removed, chats are unlinked. Nobody can sign in any more.

    The name stays taken, and transactions are kept. Queued predictions still run.
    The only operator can't close their account: 409.
    """
    user = await _prove(state, caller.user_id, wanted.password, request)
    async with state.database.transaction() as connection:
        await registration.close(connection, user.id)
        await api_keys.revoke_all(connection, user.id)
        await endpoints.remove_all(connection, user.id)
        await telegram.unlink_from(connection, user.id, None)
        ended = await registration.ended(connection, user.id)
    state.authenticator.end([ended])
    give_cookie(response, request, state, "")


async def _prove(state: AppState, user_id: UUID, password: str, request: Request) -> User:
    """Check the caller's password; returns the user. Raises `WrongPassword`, `TooManyAttempts`."""
    async with state.database.snapshot() as connection:
        user = await registration.find_user_by_id(connection, user_id)
    # Throttled like a log-in, so that an open session does not make guessing faster.
    address = client_address(request.scope, state.settings.trusted_proxies)
    state.throttle.attempt(user.username, address)
    try:
        await authenticate(state.database, state.passwords, user.username, password)
    except InvalidCredentials:
        # Not 401, which tells the page that its session has ended.
        raise WrongPassword from None
    state.throttle.succeeded(user.username, address)
    return user
