"""Every table of the domain in one `metadata`: the result of the migrations."""

from foretell.domain.accounts import tables as _accounts
from foretell.domain.accounts import telegram_tables as _telegram
from foretell.domain.credits import tables as _credits
from foretell.domain.notifications import tables as _notifications
from foretell.domain.operators import tables as _operators
from foretell.domain.predictions import tables as _predictions
from foretell.kit.database import metadata

__all__ = ["metadata"]

# Importing a module of tables adds them to the metadata.
_ = (_accounts, _credits, _notifications, _operators, _predictions, _telegram)
