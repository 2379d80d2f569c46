"""`/history`: pages of predictions with details. Each can be repeated unchanged or with one answer changed."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from foretell.client import ApiError, AsyncClient
from foretell.services.bot.filling import flow
from foretell.services.bot.filling.asking import answers_of
from foretell.services.bot.filling.form import Form
from foretell.services.bot.keyboards import Button, Keyboard
from foretell.services.bot.models import Model
from foretell.services.bot.results import headline, outcome_message
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk

router = Router()

_PAGE = 5
_NOT_FOUND = (404, 422)
_SIGNS = {"succeeded": "✅", "failed": "⚠️", "canceled": "✖️", "queued": "⏳"}


@router.command("history")
async def history(talk: Talk, rest: str) -> None:
    """Show the newest predictions."""
    await talk.parts.accounts.client_of(talk.user_id)
    if not talk.private:
        await talk.say(talk.words("history.private"))
        return
    await _page(talk, 0, None)


@router.button("h")
async def turned(talk: Talk, arguments: list[str]) -> None:
    """Show another page."""
    if await _is_for_others(talk):
        return
    page = int(arguments[0]) if arguments and arguments[0].isdecimal() else 0
    cursor = None if page == 0 else await talk.parts.chats.page(talk.chat_id, talk.tapped_message_id, page)
    if page and cursor is None:
        await talk.answer_tap(talk.words.plain("button.old"), alert=True)
        return
    await _page(talk, page, cursor)


async def _is_for_others(talk: Talk) -> bool:
    """Whether the page is in a group, where an earlier release showed it to all members."""
    if talk.private:
        return False
    await talk.answer_tap(talk.words.plain("history.private"), alert=True)
    return True


async def _page(talk: Talk, page: int, cursor: str | None) -> None:
    words = talk.words
    client = await talk.parts.accounts.client_of(talk.user_id)
    found = await client.predictions(limit=_PAGE, cursor=cursor)
    titles = {model["name"]: model["title"] for model in await talk.parts.models.all(client)}
    if not found["items"]:
        await talk.show(words("history.none"))
        return
    rows = []
    for item in found["items"]:
        title = titles.get(item["model"], {}).get(words.language) or item["model"]
        # People find a prediction by what it said: the model is often the same.
        label = headline(item, await _known(talk, client, item["model"]), words)
        text = words.plain(
            "history.button",
            sign=_SIGNS.get(item["status"], ""),
            title=words.plain("history.labelled", title=title, label=label) if label else title,
            at=words.moment(item["created_at"]),
        )
        rows.append([Button(text, f"d:{item['id'].replace('-', '')}:{page}")])
    turns = [Button("◀", f"h:{page - 1}")] if page else []
    following = found.get("next_cursor")
    turns += [Button("▶", f"h:{page + 1}")] if following else []
    rows.append(turns)
    message_id = await talk.show(words("history.title", page=page + 1), Keyboard(rows))
    if following:
        await talk.parts.chats.remember_page(talk.chat_id, message_id, page + 1, following)


async def _prediction(talk: Talk, client: AsyncClient, arguments: list[str]) -> Mapping[str, Any] | None:
    try:
        return await client.prediction(str(UUID(arguments[0])))
    except (IndexError, ValueError):
        pass
    except ApiError as error:
        if error.status_code not in _NOT_FOUND:
            raise
    await talk.answer_tap(talk.words.plain("history.gone"), alert=True)
    return None


async def _model(talk: Talk, client: AsyncClient, name: str) -> Model | None:
    try:
        return await talk.parts.models.one(client, name)
    except ApiError as error:
        if error.status_code not in _NOT_FOUND:
            raise
        return None


async def _known(talk: Talk, client: AsyncClient, name: str) -> Model | None:
    """As `_model`, possibly outdated, which is enough for labels."""
    try:
        return await talk.parts.models.known(client, name)
    except ApiError as error:
        if error.status_code not in _NOT_FOUND:
            raise
        return None


@router.button("d")
async def details(talk: Talk, arguments: list[str]) -> None:
    """Show one prediction with its input."""
    if await _is_for_others(talk):
        return
    client = await talk.parts.accounts.client_of(talk.user_id)
    prediction = await _prediction(talk, client, arguments)
    if prediction is None:
        return
    model = await _model(talk, client, prediction["model"])
    text, keyboard = outcome_message(prediction, model, talk.words)
    if model is not None and isinstance(prediction.get("input"), dict):
        asked = Form(id="", model=model.name, version=model.version, values=prediction["input"])
        text = "\n".join([text, "", *answers_of(asked, model, talk.words)])
    page = arguments[1] if len(arguments) > 1 else "0"
    await talk.show(text, Keyboard([*keyboard.rows, [Button(talk.words.plain("button.back"), f"h:{page}")]]))


@router.button("r")
async def repeat(talk: Talk, arguments: list[str]) -> None:
    """Repeat a prediction: show the summary of a filled form."""
    await _again(talk, arguments, change=False)


@router.button("v")
async def vary(talk: Talk, arguments: list[str]) -> None:
    """Repeat a prediction with one change: ask which answer to change."""
    await _again(talk, arguments, change=True)


async def _again(talk: Talk, arguments: list[str], *, change: bool) -> None:
    client = await talk.parts.accounts.client_of(talk.user_id)
    prediction = await _prediction(talk, client, arguments)
    if prediction is None:
        return
    model = await _model(talk, client, prediction["model"])
    if model is None:
        await talk.answer_tap(talk.words.plain("models.gone"), alert=True)
        return
    values = prediction.get("input")
    if not isinstance(values, dict):
        await talk.answer_tap(talk.words.plain("history.not_repeatable"), alert=True)
        return
    await flow.begin(talk, client, model, values, which=change)
