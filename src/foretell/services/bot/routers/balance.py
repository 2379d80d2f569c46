"""`/balance`."""

from collections.abc import Mapping, Sequence
from typing import Any

from foretell.contracts.references import TELEGRAM_REFUND
from foretell.services.bot.keyboards import Keyboard
from foretell.services.bot.offers import how_to_more, ways_to_more
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk
from foretell.services.bot.words import Marked

router = Router()

_MOVEMENTS = 8


@router.command("balance")
async def balance(talk: Talk, rest: str) -> None:
    """Show the balance, the last transactions, and offers of credits."""
    words = talk.words
    client = await talk.parts.accounts.client_of(talk.user_id)
    if not talk.private:
        await talk.say(words("balance.private"))
        return
    credits = await client.balance()
    # A paid prediction has two transactions, which are shown as one.
    movements = _without_captured_holds((await client.transactions(limit=2 * _MOVEMENTS))["items"])[:_MOVEMENTS]
    prices = [model["price"] for model in await talk.parts.models.all(client)]
    lines = [words("balance.available", available=Marked(words.count("credits", credits["available"])))]
    if credits["held"]:
        lines.append(words("balance.held", held=Marked(words.count("credits", credits["held"]))))
    if movements:
        lines += ["", words("balance.movements")]
    for movement in movements:
        # A capture takes held credits, so its change of the available ones is 0; its cost is `amount`.
        change = -movement["amount"] if movement["kind"] == "capture" else movement["available_change"]
        lines.append(
            words(
                "balance.movement",
                kind=words(f"movement.{_kind_of(movement)}"),
                change=("+" if change > 0 else "") + words.number(change),
                at=words.moment(movement["created_at"]),
            )
        )
    offers = ways_to_more(talk.parts.settings, words)
    if prices and credits["available"] < min(prices):
        lines += ["", f"{words('balance.low')} {how_to_more(talk.parts.settings, words)}"]
    await talk.say("\n".join(lines), Keyboard(offers) if offers else None)


def _kind_of(movement: Mapping[str, Any]) -> str:
    """The kind for a reader: that of the ledger, or a refund of Stars, which is an adjustment there."""
    reference = str(movement.get("reference") or "")
    return "stars_refund" if reference.startswith(TELEGRAM_REFUND) else str(movement["kind"])


def _without_captured_holds(movements: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The transactions without holds that have been captured."""
    captured = {each.get("prediction_id") for each in movements if each["kind"] == "capture"}
    return [each for each in movements if each["kind"] != "hold" or each.get("prediction_id") not in captured]
