"""Buttons for models with their prices, and for credits that are sold for stars."""

from collections.abc import Mapping, Sequence
from typing import Any

from foretell.services.bot.keyboards import Button, paged
from foretell.services.bot.models import short
from foretell.services.bot.settings import BotSettings
from foretell.services.bot.words import Words

_MODELS_ON_A_PAGE = 6


def models_on_page(
    models: Sequence[Mapping[str, Any]], page: int, turn: str, words: Words
) -> tuple[Sequence[Mapping[str, Any]], list[list[Button]]]:
    """The models and buttons of one page; the buttons to other pages have the data `turn:PAGE`."""
    buttons = []
    for model in models:
        title = model["title"].get(words.language) or model["title"]["en"]
        text = words.plain("models.button", title=title, price=words.count("credits", model["price"]))
        buttons.append(Button(text, f"m:{short(model['name'])}"))
    page = min(page, (len(models) - 1) // _MODELS_ON_A_PAGE)
    rows = paged(buttons, page, lambda other: f"{turn}:{other}", size=_MODELS_ON_A_PAGE)
    return models[page * _MODELS_ON_A_PAGE : (page + 1) * _MODELS_ON_A_PAGE], rows


def how_to_more(settings: BotSettings, words: Words) -> str:
    """Where to get more credits: from the buttons of `ways_to_more` below, or from the operator."""
    return words("credits.buy" if settings.stars_offers else "credits.ask")


def ways_to_more(settings: BotSettings, words: Words) -> list[list[Button]]:
    """A button for each offer of credits."""
    return [
        [
            Button(
                words.plain("button.buy", credits=words.count("credits", credits), stars=words.count("stars", stars)),
                f"buy:{credits}:{stars}",
            )
        ]
        for credits, stars in settings.stars_offers
    ]
