"""Browser sessions, with a cookie that scripts can't read."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from foretell.contracts import http
from foretell.domain.accounts import registration, sessions
from foretell.domain.accounts.authentication import authenticate
from foretell.domain.errors import InvalidToken
from foretell.kit.clock import now
from foretell.services.app.client_address import client_address
from foretell.services.app.dependencies import Caller, State, Token
from foretell.services.app.openapi import problem_answers
from foretell.services.app.page import cookies
from foretell.services.app.state import AppState

router = APIRouter(tags=["sessions"])


@router.post("/session", summary="Sign in", responses=problem_answers(401, 403, 413, 422, 429))
async def sign_in(wanted: http.Credentials, request: Request, response: Response, state: State) -> http.SessionStart:
    """Sign in with name and password; sets a cookie, `HttpOnly` and `SameSite=Lax`. The browser's earlier session ends.

    Programs use tokens (`POST /token`) or keys (`POST /api-keys`) instead.
    """
    headers = {name: value.decode("latin-1") for name, value in request.scope["headers"]}
    # Otherwise another page could sign the user in to an account of its own choice.
    cookies.check_own_page(headers)
    address = client_address(request.scope, state.settings.trusted_proxies)
    state.throttle.attempt(wanted.username, address)
    user = await authenticate(state.database, state.passwords, wanted.username, wanted.password)
    state.throttle.succeeded(wanted.username, address)
    earlier = cookies.session_secret_of(headers.get(b"cookie", "").encode("latin-1"))
    async with state.database.transaction() as connection:
        if earlier is not None:
            await sessions.end_secret(connection, earlier)
        _, secret = await sessions.create(
            connection,
            user.id,
            user_agent=headers.get(b"user-agent", ""),
            address=address,
            lifetime=state.session_lifetime,
        )
    give_cookie(response, request, state, secret)
    return http.SessionStart(user=http.User.model_validate(user), csrf_token=sessions.csrf_token_of(secret))


@router.get("/session", summary="My session", responses=problem_answers(401))
async def show_session(
    caller: Caller, token: Token, request: Request, response: Response, state: State
) -> http.SessionStart:
    """The same answer as signing in, for a reloaded page; the cookie is extended."""
    secret = _secret_of(token)
    assert caller.session_id is not None
    async with state.database.transaction() as connection:
        await sessions.record_uses(connection, {caller.session_id: now()}, state.session_lifetime)
        user = await registration.find_user_by_id(connection, caller.user_id)
    give_cookie(response, request, state, secret)
    return http.SessionStart(user=http.User.model_validate(user), csrf_token=sessions.csrf_token_of(secret))


@router.delete("/session", status_code=204, summary="Sign out", responses=problem_answers(401))
async def sign_out(caller: Caller, token: Token, request: Request, response: Response, state: State) -> None:
    """This session ends at once, and the browser deletes its cookie."""
    secret = _secret_of(token)
    assert caller.session_id is not None
    async with state.database.transaction() as connection:
        await sessions.end_secret(connection, secret)
    state.authenticator.forget_session(caller.session_id)
    give_cookie(response, request, state, "")


@router.get("/sessions", summary="My sessions", responses=problem_answers(401))
async def list_sessions(caller: Caller, state: State) -> http.Sessions:
    """All browser sessions of the account, newest first."""
    async with state.database.snapshot() as connection:
        found = await sessions.list_sessions(connection, caller.user_id)
    return http.Sessions(
        items=[
            http.Session(
                id=each.id,
                created_at=each.created_at,
                last_used_at=each.last_used_at,
                user_agent=each.user_agent,
                address=each.address,
                current=each.id == caller.session_id,
            )
            for each in found
        ]
    )


@router.delete("/sessions", status_code=204, summary="Sign out everywhere", responses=problem_answers(401))
async def sign_out_everywhere(caller: Caller, request: Request, response: Response, state: State) -> None:
    """Every session and token ends, including this one; in other app processes within seconds. API keys stay valid."""
    async with state.database.transaction() as connection:
        await registration.end_log_ins(connection, caller.user_id)
        ended = await registration.ended(connection, caller.user_id)
    state.authenticator.end([ended])
    give_cookie(response, request, state, "")


@router.delete(
    "/sessions/{session_id:uuid}", status_code=204, summary="Sign out elsewhere", responses=problem_answers(401, 404)
)
async def end_session(session_id: UUID, caller: Caller, state: State) -> None:
    """That session ends at once; in other app processes within seconds."""
    async with state.database.transaction() as connection:
        await sessions.end(connection, caller.user_id, session_id)
    state.authenticator.forget_session(session_id)


def _secret_of(token: str) -> str:
    """The secret of the caller's session. Raises `InvalidToken` for other credentials."""
    if not token.startswith(sessions.PREFIX):
        raise InvalidToken
    return token


def give_cookie(response: Response, request: Request, state: AppState, secret: str) -> None:
    """Set the cookie with this secret; an empty one deletes it."""
    secure = cookies.came_by_https(request.scope, state.settings.trusted_proxies)
    lasts_s = min(state.session_lifetime.idle_s, state.session_lifetime.whole_s)
    response.headers.append("Set-Cookie", cookies.setting(secret, secure=secure, lasts_s=lasts_s))
    if secure and not secret:
        response.headers.append("Set-Cookie", cookies.setting("", secure=False, lasts_s=0))
    response.headers["Cache-Control"] = "no-store"
