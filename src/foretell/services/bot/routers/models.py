"""`/models`, in pages."""

from foretell.services.bot.keyboards import Keyboard
from foretell.services.bot.offers import models_on_page
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk
from foretell.services.bot.words import Marked

router = Router()


@router.command("models")
async def models(talk: Talk, rest: str) -> None:
    """Show the models with their purposes and prices."""
    await _page(talk, 0)


@router.button("mm")
async def turned(talk: Talk, arguments: list[str]) -> None:
    """Show another page."""
    await _page(talk, int(arguments[0]) if arguments and arguments[0].isdecimal() else 0)


async def _page(talk: Talk, page: int) -> None:
    words = talk.words
    client = await talk.parts.accounts.client_of(talk.user_id)
    found = await talk.parts.models.all(client)
    if not found:
        await talk.show(words("models.none"))
        return
    shown, rows = models_on_page(found, page, "mm", words)
    lines = [words("models.title"), ""]
    for model in shown:
        title, price = words.of(model["title"]), words.count("credits", model["price"])
        lines += [words("models.one", title=Marked(title), price=Marked(price)), words.of(model["description"]), ""]
    await talk.show("\n".join(lines).rstrip(), Keyboard(rows))
