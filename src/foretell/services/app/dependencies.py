"""Dependencies of the routes: the state of the process, the caller, and parameter types."""

import re
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBearer, OAuth2PasswordBearer
from pydantic import AwareDatetime, BeforeValidator

from foretell.domain.accounts.identity import Identity
from foretell.domain.errors import ChatMayNot
from foretell.services.app.authentication import token_of
from foretell.services.app.page.cookies import COOKIE, SAFE_METHODS
from foretell.services.app.state import AppState

# These only describe for the OpenAPI page what `token_of` reads; they check nothing.
_oauth2 = OAuth2PasswordBearer("/token", scheme_name="Password", refreshUrl="/token", auto_error=False)
_bearer = HTTPBearer(scheme_name="AccessTokenOrApiKey", auto_error=False)
_api_key = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", auto_error=False)
_session = APIKeyCookie(
    name=COOKIE,
    scheme_name="Session",
    description="Of POST /session. What changes something needs `X-CSRF-Token` besides.",
    auto_error=False,
)


async def _state(request: Request) -> AppState:
    state: AppState = request.app.state.app_state
    return state


State = Annotated[AppState, Depends(_state)]


async def _token(
    request: Request,
    _password: Annotated[Any, Depends(_oauth2)],
    _bearer_token: Annotated[Any, Depends(_bearer)],
    _key: Annotated[Any, Depends(_api_key)],
    _cookie: Annotated[Any, Depends(_session)],
) -> str:
    return token_of(request.scope["headers"], request.method)


#: The caller's credentials: an access token, an API key, or the secret of a session.
Token = Annotated[str, Depends(_token)]


async def _caller(request: Request, token: Token, state: State) -> Identity:
    identity = state.authenticator.identify_cached(token) or await state.authenticator.identify(token)
    if identity.chat is not None and request.method not in SAFE_METHODS and not _is_for_chats(request.url.path):
        raise ChatMayNot
    return identity


#: What a chat may change for its account. Anything else (a key, a webhook, a link) would remain after it is unlinked.
_FOR_CHATS = ("/predictions", "/balance")


def _is_for_chats(path: str) -> bool:
    return path.startswith(tuple(f"{each}/" for each in _FOR_CHATS)) or path in _FOR_CHATS


#: The authenticated caller; without one the answer is 401.
Caller = Annotated[Identity, Depends(_caller)]


def _written_plainly(value: Any) -> Any:
    # Pydantic also accepts `1_0`, ` 10` and `10.0`, whose intended meaning is unclear.
    if isinstance(value, str) and not _plain_number(value):
        raise ValueError("must be a whole number, written with the digits 0 to 9")
    return value


_plain_number = re.compile(r"-?[0-9]{1,19}").fullmatch
#: For every number in a query or a path. Put it after the bounds: OpenAPI omits bounds that come after it.
PlainNumber = BeforeValidator(_written_plainly)


def _written_as_date(value: Any) -> Any:
    # Pydantic reads a number as seconds since 1970, which may not be what was meant.
    if isinstance(value, str) and not _begins_with_date(value):
        raise ValueError("must be a date and a time with its offset: 2026-01-31T09:30:00Z")
    return value


_begins_with_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]").match
#: A date and time in a query.
QueryMoment = Annotated[AwareDatetime, BeforeValidator(_written_as_date)]

MAX_LIMIT = 200
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most"), PlainNumber]
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]*$"
ModelName = Annotated[str, Path(max_length=64, pattern=NAME_PATTERN, examples=["flight-delay"])]
