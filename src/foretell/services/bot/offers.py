"""Credits for stars, as the operator offers them."""

from foretell.services.bot.keyboards import Button
from foretell.services.bot.settings import BotSettings
from foretell.services.bot.words import Words


def ways_to_more(settings: BotSettings, words: Words) -> list[list[Button]]:
    """A button for each offer; none where nothing is sold."""
    return [
        [
            Button(
                words.plain("button.buy", credits=words.count("credits", credits), stars=words.count("stars", stars)),
                f"buy:{credits}:{stars}",
            )
        ]
        for credits, stars in settings.stars_offers
    ]
