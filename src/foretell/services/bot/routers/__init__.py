"""The bot's handlers, one module for each topic. The order matters for updates that are neither command nor button."""

from foretell.services.bot.routers import (
    balance,
    cancel,
    edits,
    help,
    history,
    language,
    models,
    other,
    payments,
    predict,
    settings,
    start,
)
from foretell.services.bot.routing import Router


def all_routers() -> Router:
    """One router with all handlers."""
    router = Router()
    for each in (payments, edits, start, help, language, models, predict, balance, history, settings, cancel, other):
        router.include(each.router)
    return router
