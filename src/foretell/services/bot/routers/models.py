"""`/models`."""

from collections.abc import Mapping
from typing import Any

from foretell.services.bot.keyboards import Button, Keyboard
from foretell.services.bot.models import short
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk
from foretell.services.bot.words import Marked

router = Router()

_MOST = 30


@router.command("models")
async def models(talk: Talk, rest: str) -> None:
    """What can be asked, what it is for and what it costs."""
    words = talk.words
    client = await talk.parts.accounts.client_of(talk.user_id)
    found = await talk.parts.models.all(client)
    if not found:
        await talk.say(words("models.none"))
        return
    lines = [words("models.title"), ""]
    rows = []
    for model in found[:_MOST]:
        title, price = words.of(model["title"]), words.count("credits", model["price"])
        lines += [words("models.one", title=Marked(title), price=Marked(price)), words.of(model["description"]), ""]
        rows.append([Button(words.plain("models.button", title=_plain(talk, model), price=price), _data(model))])
    await talk.say("\n".join(lines).rstrip(), Keyboard(rows))


def _plain(talk: Talk, model: Mapping[str, Any]) -> str:
    title: dict[str, str] = model["title"]
    return title.get(talk.words.language) or title["en"]


def _data(model: Mapping[str, Any]) -> str:
    return f"m:{short(model['name'])}"
