"""Telegram chats of an account, for its owner. The bot's routes are in `telegram_bot`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts import http
from foretell.domain.accounts import telegram
from foretell.domain.notifications import endpoints
from foretell.services.app.dependencies import Caller, PlainNumber, State
from foretell.services.app.openapi import problem_answers
from foretell.services.app.state import AppState

router = APIRouter(tags=["telegram"])

_LARGEST_ID = 2**53


@router.post("/telegram/link", status_code=201, summary="Link a chat", responses=problem_answers(401))
async def make_link(caller: Caller, response: Response, state: State) -> http.TelegramLink:
    """A link for Telegram, valid once and for 15 minutes: the chat that opens it can act for this account.

    Everyone who has the link can spend the account's credits. Only the five newest links are valid.
    """
    async with state.database.transaction() as connection:
        code, expires_at = await telegram.make_code(connection, caller.user_id)
        name = await _bot_name(state, connection)
    response.headers["Cache-Control"] = "no-store"
    url = None if name is None else f"https://t.me/{name}?start={code}"
    return http.TelegramLink(url=url, code=code, expires_at=expires_at)


@router.get("/telegram/link", summary="My chats", responses=problem_answers(401))
async def list_chats(caller: Caller, state: State) -> http.TelegramChats:
    """The chats that act for this account, the oldest link first."""
    async with state.database.snapshot() as connection:
        chats = await telegram.chats_of(connection, caller.user_id)
        name = await _bot_name(state, connection)
    return http.TelegramChats(bot=name, items=[http.TelegramChat.model_validate(chat) for chat in chats])


@router.delete("/telegram/link", status_code=204, summary="Unlink my chats", responses=problem_answers(401, 404, 422))
async def unlink_chats(
    caller: Caller,
    state: State,
    chat_id: Annotated[
        int | None, Query(ge=-_LARGEST_ID, le=_LARGEST_ID, description="This one; without it, all of them"), PlainNumber
    ] = None,
) -> None:
    """These chats can no longer act for the account, and unused links become invalid."""
    async with state.database.transaction() as connection:
        await telegram.unlink_from(connection, caller.user_id, chat_id)
        await endpoints.remove_telegram(connection, caller.user_id, chat_id)


async def _bot_name(state: AppState, connection: AsyncConnection) -> str | None:
    return state.settings.telegram_bot_name or await telegram.bot_name(connection)
