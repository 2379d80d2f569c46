"""What the bot answers, one file each. The order counts for what is no command and no button."""

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
    """Everything."""
    router = Router()
    for each in (payments, edits, start, help, language, models, predict, balance, history, settings, cancel, other):
        router.include(each.router)
    return router
