"""Public facts about the installation."""

from fastapi import APIRouter

import foretell
from foretell.contracts import http
from foretell.domain.accounts import telegram
from foretell.kit.errors import Unavailable
from foretell.services.app.dependencies import State

router = APIRouter(tags=["about"])


@router.get("/about", summary="About this installation")
async def show_about(state: State) -> http.About:
    """Version, languages, and conditions for new accounts."""
    settings = state.settings
    name: str | None = settings.telegram_bot_name or None
    if name is None:
        try:
            async with state.database.snapshot() as connection:
                name = await telegram.bot_name(connection)
        except Unavailable:
            # The page must load even when the database is unavailable, to report that.
            name = None
    return http.About(
        product="Foretell",
        version=foretell.__version__,
        environment=settings.environment,
        languages=["en", "ru"],
        registration_open=settings.registration_open,
        signup_credits=settings.signup_credits,
        telegram=settings.bot_is_on or name is not None,
        telegram_bot=name,
    )
