"""`/start`: sign up, or link an account by its one-time code."""

from foretell.client import ApiError
from foretell.services.bot.accounts import NotLinked
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk
from foretell.services.bot.words import Marked

router = Router()

_FORBIDDEN, _NOT_FOUND, _CONFLICT = 403, 404, 409
#: The parameter of a link from a group, in place of a code.
_FROM_GROUP = "group"


@router.command("start")
async def start(talk: Talk, code: str) -> None:
    """Without a code, create an account for this chat; with one, link the account that made the code."""
    words = talk.words
    if not talk.private:
        await talk.say(words("start.group"))
        return
    if code and code != _FROM_GROUP:
        await _link(talk, code.split()[0])
        return
    key = "start.back"
    try:
        available = await _available(talk)
    except NotLinked:
        await talk.parts.forget_account_of(talk.user_id)
        try:
            await talk.parts.accounts.sign_up(talk.user_id, words.language, talk.person.first_name)
        except ApiError as error:
            if error.status_code != _FORBIDDEN:
                raise
            await talk.say(words("start.closed"))
            return
        key, available = "start.welcome", await _available(talk)
    await talk.say(words(key, name=talk.person.first_name, available=available))


async def _available(talk: Talk) -> Marked:
    client = await talk.parts.accounts.client_of(talk.user_id)
    return Marked(talk.words.count("credits", (await client.balance())["available"]))


async def _link(talk: Talk, code: str) -> None:
    try:
        await talk.parts.accounts.account_of(talk.user_id)
    except NotLinked:
        # Waiting events belong to an account that was unlinked elsewhere; the next account must not get them.
        await talk.parts.forget_account_of(talk.user_id)
    try:
        await talk.parts.accounts.link(talk.user_id, code, talk.person.first_name)
    except ApiError as error:
        if error.status_code == _NOT_FOUND:
            await talk.say(talk.words("link.no_such_code"))
            return
        if error.status_code == _CONFLICT:
            await talk.say(talk.words("link.other_account"))
            return
        raise
    client = await talk.parts.accounts.client_of(talk.user_id)
    account, balance = await client.me(), await client.balance()
    await talk.say(
        talk.words(
            "link.done",
            account=account["username"],
            available=Marked(talk.words.count("credits", balance["available"])),
        )
    )
