"""Whatever nobody else answers: each wrong thing gets a kind word, and a group its quiet."""

import structlog

from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk

router = Router()
log = structlog.get_logger()

_OUT = frozenset({"kicked", "left"})


@router.update
async def let_in_or_put_out(talk: Talk) -> bool:
    """Somebody blocked us, or has us back."""
    changed = talk.update.my_chat_member
    if changed is None:
        return False
    out = changed.new_chat_member.status in _OUT
    await talk.parts.chats.change(changed.chat.id, blocked=int(out))
    if out:
        dropped = await talk.parts.outbox.drop(changed.chat.id)
        log.info("chat_blocked", chat_id=changed.chat.id, dropped=dropped)
    return True


@router.update
async def anything(talk: Talk) -> bool:
    """A word, a picture, a command of somebody else."""
    message = talk.update.message
    if message is None or not talk.private:
        return True
    text = message.text or ""
    if text.startswith("/"):
        await talk.say(talk.words("other.forwarded" if message.forward_origin is not None else "other.no_command"))
    elif text:
        await talk.say(talk.words("other.text"))
    else:
        await talk.say(talk.words("other.no_text"))
    return True
