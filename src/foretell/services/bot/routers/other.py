"""Handles all remaining updates: a hint in a private chat, no answer in a group."""

import structlog

from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk

router = Router()
log = structlog.get_logger()

_OUT = frozenset({"kicked", "left"})


@router.update
async def let_in_or_put_out(talk: Talk) -> bool:
    """Record that a chat has blocked or unblocked the bot."""
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
    """Answer any other message, such as a text, a picture or an unknown command."""
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
