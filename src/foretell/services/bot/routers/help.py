"""`/help`."""

from foretell.services.bot.offers import ways_to_more
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk

router = Router()


@router.command("help")
async def help_(talk: Talk, rest: str) -> None:
    """Show what the bot can do."""
    sells = bool(ways_to_more(talk.parts.settings, talk.words))
    text = talk.words("help")
    await talk.say(f"{text}\n\n{talk.words('help.stars')}" if sells else text)
