"""Messages that were edited."""

from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk

router = Router()


@router.update
async def edited(talk: Talk) -> bool:
    """Tell the person that editing a message does not change an answer."""
    if talk.update.edited_message is None:
        return False
    if not talk.private:
        return True
    if (talk.update.edited_message.text or "").startswith("/"):
        await talk.say(talk.words("other.edited_command"))
    elif await talk.parts.forms.of(talk.chat_id, talk.user_id) is not None:
        await talk.say(talk.words("other.edited"))
    return True
