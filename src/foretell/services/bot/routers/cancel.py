"""`/cancel`."""

from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk

router = Router()


@router.command("cancel")
async def cancel(talk: Talk, rest: str) -> None:
    """End the current form. Predictions that were already sent go on."""
    ended = await talk.parts.forms.end(talk.chat_id, talk.user_id)
    await talk.say(talk.words("cancel.done" if ended else "cancel.nothing"))
