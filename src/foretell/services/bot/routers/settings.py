"""`/settings`: language, notifications, and the account of the chat."""

from foretell.services.bot.keyboards import Button, Keyboard
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk
from foretell.services.bot.words import LANGUAGES, Marked, Words

router = Router()

#: The thresholds of the low-balance notification, in credits; 0: never.
THRESHOLDS = (0, 5, 20, 100)


@router.command("settings")
async def settings(talk: Talk, rest: str) -> None:
    """Show all settings."""
    if not talk.private:
        await talk.say(talk.words("settings.private"))
        return
    await _show(talk)


async def _show(talk: Talk) -> None:
    words = talk.words
    client = await talk.parts.accounts.client_of(talk.user_id)
    account, threshold = await client.me(), (await client.balance()).get("threshold")
    elsewhere = (await talk.parts.chats.of(talk.chat_id)).elsewhere
    if threshold is None:
        low = words("settings.low_never")
    else:
        low = words("settings.low", low=Marked(words.count("credits", threshold)))
    text = words(
        "settings.title",
        account=account["username"],
        elsewhere=words("value.yes" if elsewhere else "value.no"),
        low=Marked(low),
    )
    rows = [
        [Button(Words(each).plain("language.name"), f"lang:{each}") for each in LANGUAGES],
        [Button(words.plain("settings.elsewhere_off" if elsewhere else "settings.elsewhere_on"), "set:elsewhere")],
        [_threshold(words, each) for each in THRESHOLDS],
        [Button(words.plain("settings.unlink"), "set:unlink")],
    ]
    await talk.show(text, Keyboard(rows))


def _threshold(words: Words, credits: int) -> Button:
    said = words.plain("settings.below", credits=words.number(credits)) if credits else words.plain("settings.never")
    return Button(said, f"set:low:{credits}")


@router.button("set")
async def changed(talk: Talk, arguments: list[str]) -> None:
    """Change the setting that was tapped."""
    words, what = talk.words, arguments[0] if arguments else ""
    if what == "elsewhere":
        # Raises `NotLinked`: an old button sets nothing for the account that is linked next.
        await talk.parts.accounts.client_of(talk.user_id)
        now = (await talk.parts.chats.of(talk.chat_id)).elsewhere
        await talk.parts.chats.change(talk.chat_id, elsewhere=int(not now))
        await _show(talk)
    elif what == "low" and arguments[1:2] in [[str(each)] for each in THRESHOLDS]:
        client = await talk.parts.accounts.client_of(talk.user_id)
        await client.set_low_balance(int(arguments[1]) or None)
        await _show(talk)
    elif what == "unlink":
        rows = [
            [Button(words.plain("settings.unlink_sure"), "set:unlinked")],
            [Button(words.plain("button.back"), "set:back")],
        ]
        await talk.show(words("settings.unlink_really"), Keyboard(rows))
    elif what == "unlinked":
        was = await talk.parts.accounts.unlink(talk.user_id)
        await talk.parts.forget_account_of(talk.user_id)
        await talk.show(words("settings.unlink_done" if was else "start.first"))
    else:
        await _show(talk)
