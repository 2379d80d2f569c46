"""Reads predictions for their owners."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Text, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.messages import Failure, Status
from foretell.domain.errors import NotFound
from foretell.domain.predictions.pages import ALL, Span, newest_ids
from foretell.domain.predictions.tables import predictions
from foretell.kit.database import is_among


@dataclass(frozen=True, slots=True)
class PredictionView:
    """One prediction as its owner sees it. `input` and `output` are JSON as it was sent, unparsed.

    `input` is None in lists (`page`, `find_many`), because it may be long and is not needed; `output` is None
    unless the prediction succeeded, `error` unless it failed.
    """

    id: UUID
    user_id: UUID
    model: str
    version: str
    stage: str
    price_credits: int
    status: Status
    created_at: datetime
    expires_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker_id: str | None
    output: msgspec.Raw | None
    error: Failure | None
    input: msgspec.Raw | None = None


async def find(connection: AsyncConnection, user_id: UUID, prediction_id: UUID) -> PredictionView:
    """A user's prediction with its input. Raises `NotFound` if it does not exist or belongs to another user."""
    query = select(*VIEW_COLUMNS, _INPUT).where(predictions.c.id == prediction_id, predictions.c.user_id == user_id)
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFound(what="prediction")
    return view_of(row)


async def find_many(
    connection: AsyncConnection, ids: Sequence[UUID], *, with_input: bool = False
) -> list[PredictionView]:
    """The existing predictions among `ids`, of any user, in no order."""
    if not ids:
        return []
    columns = (*VIEW_COLUMNS, _INPUT) if with_input else VIEW_COLUMNS
    query = select(*columns).where(is_among(connection, predictions.c.id, ids))
    return [view_of(row) for row in await connection.execute(query)]


async def page(
    connection: AsyncConnection,
    user_id: UUID,
    *,
    limit: int,
    before_id: UUID | None = None,
    status: Status | None = None,
    model: str | None = None,
    span: Span = ALL,
    with_input: bool = False,
) -> list[PredictionView]:
    """Up to `limit` predictions of a user, newest first, starting before `before_id` (last id of the previous page)."""
    ids = await newest_ids(connection, user_id, limit=limit, before_id=before_id, status=status, model=model, span=span)
    return sorted(await find_many(connection, ids, with_input=with_input), key=lambda view: view.id, reverse=True)


async def count_all(connection: AsyncConnection, user_id: UUID) -> int:
    """The number of a user's predictions. Reads one index entry for each."""
    query = select(func.count()).where(predictions.c.user_id == user_id)
    return int((await connection.execute(query)).scalar_one())


async def count_queued(connection: AsyncConnection, user_id: UUID) -> int:
    """The number of a user's queued predictions. Reads each of them, but no ended ones."""
    query = select(func.count()).where(predictions.c.user_id == user_id, text("coalesce(status, '') = 'queued'"))
    return int((await connection.execute(query)).scalar_one())


# Cast to text, so that a number is returned with the digits that were sent.
_INPUT = cast(predictions.c.input, Text).label("input")

#: The columns that make a `PredictionView` without its input, in the order of its fields.
VIEW_COLUMNS = (
    predictions.c.id,
    predictions.c.user_id,
    predictions.c.model,
    predictions.c.version,
    predictions.c.stage,
    predictions.c.price_credits,
    predictions.c.status,
    predictions.c.created_at,
    predictions.c.expires_at,
    predictions.c.published_at,
    predictions.c.started_at,
    predictions.c.finished_at,
    predictions.c.worker_id,
    cast(predictions.c.output, Text).label("output"),
    predictions.c.error_code,
    predictions.c.error_message,
)


def view_of(row: Sequence[Any]) -> PredictionView:
    """The view of a row that was selected with `VIEW_COLUMNS`, and perhaps its input after these."""
    # By position: thousands a second are read so, and to look each column up by its name takes twice as long.
    *plain, output, code, message = row[: len(VIEW_COLUMNS)]
    (given,) = row[len(VIEW_COLUMNS) :] or (None,)
    error = None if code is None else Failure(code, message or "")
    return PredictionView(*(*plain, _raw(output), error, _raw(given)))


def _raw(json: str | None) -> msgspec.Raw | None:
    return None if json is None else msgspec.Raw(json.encode())
