"""`/language`."""

from foretell.services.bot.keyboards import Button, Keyboard
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk
from foretell.services.bot.words import LANGUAGES, Words

router = Router()


def _keyboard() -> Keyboard:
    # Each name in its own language, so that people recognize theirs.
    return Keyboard([[Button(Words(each).plain("language.name"), f"lang:{each}") for each in LANGUAGES]])


@router.command("language")
async def language(talk: Talk, rest: str) -> None:
    """Show the languages; `/language ru` sets one at once."""
    if rest.lower() in LANGUAGES:
        await _take(talk, rest.lower())
        return
    await talk.say(talk.words("language.which"), _keyboard())


@router.button("lang")
async def chosen(talk: Talk, arguments: list[str]) -> None:
    """Set the language that was tapped."""
    if arguments and arguments[0] in LANGUAGES:
        await _take(talk, arguments[0])


async def _take(talk: Talk, code: str) -> None:
    await talk.parts.chats.change(talk.chat_id, language=code)
    talk.words = Words(code)
    await talk.show(talk.words("language.taken"))
