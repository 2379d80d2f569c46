"""Cancels queued predictions."""

from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits import ledger
from foretell.domain.errors import AlreadyFinished, NotFound
from foretell.domain.notifications import events
from foretell.domain.predictions.history import VIEW_COLUMNS, PredictionView, view_of
from foretell.domain.predictions.tables import predictions
from foretell.kit.clock import now


async def cancel(connection: AsyncConnection, user_id: UUID, prediction_id: UUID) -> PredictionView:
    """End a queued prediction and release its held credits.

    A result that arrives later changes nothing. Raises `AlreadyFinished`, and `NotFound` if the prediction does not
    exist or belongs to another user.
    """
    mine = (predictions.c.id == prediction_id, predictions.c.user_id == user_id)
    # The prediction first and then the wallet, in the order in which settlement locks them.
    canceled = await connection.execute(
        update(predictions)
        .where(*mine, predictions.c.status == "queued")
        .values(status="canceled", finished_at=now())
        .returning(*VIEW_COLUMNS, predictions.c.webhook)
    )
    row = canceled.first()
    if row is None:
        status = await connection.scalar(select(predictions.c.status).where(*mine))
        if status is None:
            raise NotFound(what="prediction")
        raise AlreadyFinished(status=status)
    *viewed, webhook = row
    view = view_of(viewed)
    await ledger.release(connection, view.id, user_id, view.price_credits)
    await events.tell(connection, user_id, events.PREDICTION_FINISHED, event_id=view.id, webhook=webhook)
    return view
