"""Every table of the domain, in one `metadata`: what migrations lead to."""

from foretell.domain.accounts import tables as _accounts
from foretell.domain.accounts import telegram_tables as _telegram
from foretell.domain.credits import tables as _credits
from foretell.domain.notifications import tables as _notifications
from foretell.domain.operators import tables as _operators
from foretell.domain.predictions import tables as _predictions
from foretell.kit.database import metadata

__all__ = ["metadata"]

# Importing a module of tables is what puts them into the metadata.
_ = (_accounts, _credits, _notifications, _operators, _predictions, _telegram)
