"""Predictions of all users, without inputs and outputs, for operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.messages import Status
from foretell.domain.accounts.tables import users
from foretell.domain.predictions.pages import newest_ids
from foretell.domain.predictions.tables import predictions
from foretell.kit.database import is_among

#: How many predictions one page may read: rare matches are found page by page.
MOST_LOOKED_AT = 5000


@dataclass(frozen=True, slots=True)
class Overseen:
    """One prediction, without input and output."""

    id: UUID
    user_id: UUID
    username: str
    model: str
    version: str
    pool: str | None
    status: Status
    price_credits: int
    created_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker_id: str | None
    error_code: str | None


async def page(
    connection: AsyncConnection,
    *,
    limit: int,
    before_id: UUID | None = None,
    user_id: UUID | None = None,
    model: str | None = None,
    status: Status | None = None,
) -> tuple[Sequence[Overseen], UUID | None]:
    """Up to `limit` predictions, newest first, and where the next page begins, if there may be one.

    For all users, a page reads `MOST_LOOKED_AT` at most, so it may be short or empty although there is a next one.
    """
    if user_id is not None:
        ids = await newest_ids(connection, user_id, limit=limit + 1, before_id=before_id, status=status, model=model)
        found = await _read(connection, _shown().where(is_among(connection, predictions.c.id, ids[:limit])))
        return found, ids[limit - 1] if len(ids) > limit else None
    newest = select(predictions.c.id, predictions.c.model, predictions.c.status)
    if status == "queued":
        newest = newest.where(predictions.c.status == "queued")
    if before_id is not None:
        newest = newest.where(predictions.c.id < before_id)
    looked_at = newest.order_by(predictions.c.id.desc()).limit(MOST_LOOKED_AT).subquery()
    fitting = select(looked_at.c.id)
    if model is not None:
        fitting = fitting.where(looked_at.c.model == model)
    if status is not None:
        fitting = fitting.where(looked_at.c.status == status)
    ids = list((await connection.scalars(fitting.order_by(looked_at.c.id.desc()).limit(limit + 1))).all())
    found = await _read(connection, _shown().where(is_among(connection, predictions.c.id, ids[:limit]))) if ids else []
    if len(ids) > limit:
        return found, ids[limit - 1]
    last = await connection.scalar(select(looked_at.c.id).order_by(looked_at.c.id).offset(MOST_LOOKED_AT - 1).limit(1))
    if last is None:
        # The limit was not reached: everything was read.
        oldest: UUID | None = None
    else:
        oldest = await connection.scalar(select(looked_at.c.id).order_by(looked_at.c.id).limit(1))
    return found, oldest


def _shown() -> Select[Any]:
    columns = [predictions.c[name] for name in Overseen.__dataclass_fields__ if name != "username"]
    return select(*columns, users.c.username).join_from(predictions, users, users.c.id == predictions.c.user_id)


async def _read(connection: AsyncConnection, query: Select[Any]) -> list[Overseen]:
    rows = (await connection.execute(query)).mappings()
    return sorted((Overseen(**row) for row in rows), key=lambda each: each.id, reverse=True)
