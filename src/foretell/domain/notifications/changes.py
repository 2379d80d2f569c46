"""Whether anything of an account has changed, for pages that are open: without events, which cost every prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits.tables import ledger, wallets
from foretell.domain.notifications.events import ENDPOINT_DISABLED, Event
from foretell.domain.notifications.tables import events
from foretell.kit.database import is_among

#: More endpoints than an account has.
_MOST = 100
_EVENT = tuple(events.c[name] for name in Event.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Mark:
    """Differs from an earlier one if a prediction was accepted or ended, credits moved, or an event was written."""

    available: int
    held: int
    threshold: int | None
    last_event: int
    #: The id of the last row of the ledger: a prediction that was canceled at once leaves the same credits.
    last_movement: int


async def marks_of(connection: AsyncConnection, users: Sequence[UUID]) -> dict[UUID, Mark]:
    """The mark of each of these users: some look-ups by key, however long their histories are."""
    last = select(func.max(ledger.c.id)).where(ledger.c.user_id == wallets.c.user_id).scalar_subquery()
    query = select(
        wallets.c.user_id,
        wallets.c.available,
        wallets.c.held,
        wallets.c.low_threshold,
        wallets.c.last_event,
        func.coalesce(last, 0),
    ).where(is_among(connection, wallets.c.user_id, users))
    return {user_id: Mark(*rest) for user_id, *rest in await connection.execute(query)}


async def disabled_since(connection: AsyncConnection, user_id: UUID, after: int) -> list[Event]:
    """The events `endpoint.disabled` of a user after that sequence, oldest first."""
    query = (
        select(*_EVENT)
        .where(events.c.user_id == user_id, events.c.sequence > after, events.c.type == ENDPOINT_DISABLED)
        .order_by(events.c.sequence)
        .limit(_MOST)
    )
    return [Event(*row) for row in await connection.execute(query)]
