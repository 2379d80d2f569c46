"""API keys."""

from uuid import UUID

from fastapi import APIRouter, Response

from foretell.contracts import http
from foretell.domain.accounts import api_keys
from foretell.domain.errors import TooManyKeys
from foretell.services.app.dependencies import Caller, State
from foretell.services.app.openapi import problem_answers

router = APIRouter(tags=["API keys"])


@router.post(
    "/api-keys",
    status_code=201,
    summary="Make a key",
    responses=problem_answers(401, TooManyKeys(limit=api_keys.MAX_KEYS_PER_USER), 413, 422),
)
async def create_api_key(
    wanted: http.NewApiKey, caller: Caller, response: Response, state: State
) -> http.CreatedApiKey:
    """A key for programs, to be sent as `X-API-Key`. It is shown only once."""
    async with state.database.transaction() as connection:
        key, secret = await api_keys.create(connection, caller.user_id, wanted.name)
    response.headers["Cache-Control"] = "no-store"
    return http.CreatedApiKey(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        key=secret,
    )


@router.get("/api-keys", summary="My keys", responses=problem_answers(401))
async def list_api_keys(caller: Caller, state: State) -> http.ApiKeys:
    """The valid keys, oldest first, without their secrets."""
    async with state.database.snapshot() as connection:
        keys = await api_keys.list_keys(connection, caller.user_id)
    return http.ApiKeys(items=[http.ApiKey.model_validate(key) for key in keys])


@router.delete("/api-keys/{key_id:uuid}", status_code=204, summary="Revoke a key", responses=problem_answers(401, 404))
async def revoke_api_key(key_id: UUID, caller: Caller, state: State) -> None:
    """The key ends at once; in other app processes within seconds."""
    async with state.database.transaction() as connection:
        await api_keys.revoke(connection, caller.user_id, key_id)
    state.authenticator.forget_api_key(key_id)
