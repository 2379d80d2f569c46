"""Accounts and tokens."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from foretell.contracts import http
from foretell.domain.accounts import refresh_tokens, registration
from foretell.domain.accounts.authentication import authenticate
from foretell.domain.accounts.identity import User
from foretell.domain.accounts.passwords import check_password
from foretell.domain.accounts.usernames import username_key
from foretell.domain.errors import Forbidden, InvalidToken
from foretell.kit.problems import InvalidRequest, pointer
from foretell.services.app.client_address import client_address
from foretell.services.app.dependencies import Caller, State
from foretell.services.app.openapi import problem_answers
from foretell.services.app.state import AppState

router = APIRouter(tags=["accounts"])

_NOT_STORED = {"Cache-Control": "no-store"}


class TokenForm(BaseModel):
    """RFC 6749, sections 4.3 and 6. Unknown fields are ignored, as it requires."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    grant_type: Literal["password", "refresh_token"] = "password"
    username: str | None = Field(default=None, max_length=1000, examples=["test"])
    password: str | None = Field(default=None, max_length=10_000, examples=["test"])
    refresh_token: str | None = Field(default=None, max_length=1000)


class RevocationForm(BaseModel):
    """RFC 7009."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: str = Field(min_length=1, max_length=1000, description="A refresh token")


@router.post("/users", status_code=201, summary="Register", responses=problem_answers(403, 409, 413, 422, 429))
async def register(wanted: http.NewUser, request: Request, state: State) -> http.User:
    """Create an account. It gets the sign-up grant of credits."""
    if not state.settings.registration_open:
        raise Forbidden("Registration is closed here. Ask the operator for an account.")
    # Checked before the password is hashed, which is expensive.
    username_key(wanted.username)
    check_password(wanted.password)
    state.signups.attempt(client_address(request.scope, state.settings.trusted_proxies))
    password_hash = await state.passwords.hash(wanted.password)
    async with state.database.transaction() as connection:
        user = await registration.register(
            connection,
            username=wanted.username,
            password_hash=password_hash,
            grant_credits=state.settings.signup_credits,
        )
    return http.User.model_validate(user)


@router.get("/users/me", summary="My account", responses=problem_answers(401))
async def show_me(caller: Caller, state: State) -> http.User:
    """The account that the credentials belong to."""
    async with state.database.snapshot() as connection:
        user = await registration.find_user_by_id(connection, caller.user_id)
    return http.User.model_validate(user)


@router.post("/token", summary="Log in, or refresh a token", responses=problem_answers(401, 413, 422, 429))
async def take_tokens(
    form: Annotated[TokenForm, Form()], request: Request, response: Response, state: State
) -> http.Tokens:
    """OAuth2: name and password, or `grant_type=refresh_token` and a refresh token, for a new pair of tokens.

    A refresh token works once. If it comes a second time it was stolen: every token of its log-in ends.
    """
    response.headers.update(_NOT_STORED)
    if form.grant_type == "refresh_token":
        return await _refresh(state, _given(form.refresh_token, "refresh_token"))
    username, password = _given(form.username, "username"), _given(form.password, "password")
    return await _log_in(state, username, password, client_address(request.scope, state.settings.trusted_proxies))


@router.post("/token/revoke", summary="Log out", responses=problem_answers(413, 422))
async def revoke_token(form: Annotated[RevocationForm, Form()], state: State) -> dict[str, bool]:
    """End the log-in that a refresh token belongs to. An unknown token is no error (RFC 7009)."""
    async with state.database.transaction() as connection:
        await refresh_tokens.revoke(connection, form.token)
    return {"revoked": True}


async def _log_in(state: AppState, username: str, password: str, address: str) -> http.Tokens:
    state.throttle.attempt(username, address)
    user = await authenticate(state.database, state.passwords, username, password)
    state.throttle.succeeded(username, address)
    async with state.database.transaction() as connection:
        refresh_token = await refresh_tokens.issue(
            connection, user.id, lifetime_s=state.settings.refresh_token_lifetime_s
        )
    return _tokens(state, user, refresh_token)


async def _refresh(state: AppState, token: str) -> http.Tokens:
    async with state.database.transaction() as connection:
        rotation = await refresh_tokens.rotate(connection, token, lifetime_s=state.settings.refresh_token_lifetime_s)
    # After the commit: raised inside, it would undo the end of the family.
    if isinstance(rotation, refresh_tokens.Reused):
        raise InvalidToken
    return _tokens(state, rotation.user, rotation.token)


def _tokens(state: AppState, user: User, refresh_token: str) -> http.Tokens:
    access_token, expires_in_s = state.access_tokens.issue(user)
    return http.Tokens(access_token=access_token, expires_in=expires_in_s, refresh_token=refresh_token)


def _given(value: str | None, name: str) -> str:
    if not value:
        raise InvalidRequest([{"detail": "is missing", "pointer": pointer(name)}])
    return value
