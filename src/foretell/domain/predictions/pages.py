"""Finds the predictions on a page of a user's history by reading about as many index entries as the page has rows.

This must hold for all filters, lengths of the history and statistics. So each statement asks for a range of one
index in an order that only this index has. Ended predictions are indexed by (user_id, status, model, id); without a
filter for status or model, the page is the newest of the newest of each. Queued predictions have their own index. They
leave it soon, but PostgreSQL keeps the dead entries until the next vacuum, so only queued predictions that are new
enough for the page are searched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from foretell.contracts.messages import Status
from foretell.kit.clock import uuid7_at
from foretell.kit.database import Moment

_LOWEST, _HIGHEST = UUID(int=0), UUID(int=2**128 - 1)
#: An identifier and its `created_at` come from the same clock, and an identifier is at most 10 s ahead of that clock
#: (`kit/clock.py`). So identifiers give the range to read, with this margin; `created_at` decides what is shown.
_APART = timedelta(minutes=5)
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """A range of creation times: `since` is included, `until` is not."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_all(self) -> bool:
        """Whether the range has no limits."""
        return self.since is None and self.until is None

    def ids(self) -> tuple[UUID, UUID]:
        """The lowest and the highest possible identifier of the range."""
        lowest = uuid7_at(min(max(self.since, _FIRST + _APART), _LAST) - _APART) if self.since else _LOWEST
        highest = uuid7_at(max(min(self.until, _LAST), _FIRST) + _APART) if self.until else _HIGHEST
        return lowest, highest


ALL = Span()
_STATUSES_OF_ENDED = tuple(status for status in get_args(Status) if status != "queued")

# From one (status, model) of an owner to the next: a look-up each, however many predictions lie between.
_KINDS_OF_EVERY_MODEL = """
    SELECT status, CAST('' AS TEXT) FROM asked
    UNION ALL
    SELECT kind.status, (
        SELECT p.model FROM predictions p
        WHERE p.status <> 'queued' AND p.user_id = :owner AND p.status = kind.status AND p.model > kind.model
        ORDER BY p.model LIMIT 1
    ) FROM kind WHERE kind.model IS NOT NULL
"""
_KINDS_OF_ONE_MODEL = "SELECT status, CAST(:model AS TEXT) FROM asked"
# Ordered by model and id, although there is only one model. A column that equals a constant needs no order, and then
# PostgreSQL may read the ids of all users from the highest down.
_NEWEST_OF_KIND = """
    SELECT p.id FROM predictions p
    WHERE p.status <> 'queued' AND p.user_id = :owner AND p.status = kind.status
        AND {after} AND (p.model, p.id) < (kind.model, :before){within}
    ORDER BY p.model DESC, p.id DESC LIMIT :limit
"""
_OLDEST = "p.model >= kind.model"
_AFTER = "(p.model, p.id) > (kind.model, :after)"
# Ids begin with the time, so nearly all rows outside of the range are skipped by the index.
_WITHIN = " AND p.created_at >= :since AND p.created_at < :until"
_ENDED = """
WITH RECURSIVE asked (status) AS (VALUES {statuses}), kind (status, model) AS ({kinds})
SELECT newest.id FROM kind CROSS JOIN {newest} ORDER BY newest.id DESC LIMIT :limit
"""
_NEWEST = {
    "postgresql": f"LATERAL ({_NEWEST_OF_KIND}) newest",
    # SQLite has no LATERAL, but evaluates such a subquery again for each row on the left.
    "sqlite": f"predictions newest ON newest.id IN ({_NEWEST_OF_KIND})",
}
_QUEUED = """
SELECT p.id FROM predictions p
WHERE coalesce(p.status, '') = 'queued' AND {mine} AND p.id > :after AND p.id < :before {model}{within}
ORDER BY p.user_id DESC, p.id DESC LIMIT :limit
"""
# On PostgreSQL not an equality, for the same reason as in `_NEWEST_OF_KIND`.
_MINE = {"postgresql": "p.user_id = ANY (ARRAY[:owner])", "sqlite": "p.user_id = :owner"}


async def newest_ids(
    connection: AsyncConnection,
    user_id: UUID,
    *,
    limit: int,
    before_id: UUID | None,
    status: Status | None,
    model: str | None,
    span: Span = ALL,
) -> list[UUID]:
    """The ids of the page that `history.page` shows, newest first."""
    lowest, highest = span.ids()
    asked: dict[str, Any] = {"owner": user_id, "before": min(before_id or _HIGHEST, highest), "limit": limit}
    within = "" if span.is_all else _WITHIN
    if within:
        asked |= {
            "since": min(max(span.since or _FIRST, _FIRST), _LAST),
            "until": max(min(span.until or _LAST, _LAST), _FIRST),
        }
    if model is not None:
        asked["model"] = model
    ended: list[UUID] = []
    queued: list[UUID] = []
    if status != "queued":
        statuses = _STATUSES_OF_ENDED if status is None else (status,)
        named = {f"status_{place}": each for place, each in enumerate(statuses)}
        statement = _ENDED.format(
            statuses=", ".join(f"(CAST(:{name} AS TEXT))" for name in named),
            kinds=_KINDS_OF_EVERY_MODEL if model is None else _KINDS_OF_ONE_MODEL,
            newest=_NEWEST[connection.dialect.name].format(after=_AFTER if within else _OLDEST, within=within),
        )
        ended = await _ids(connection, statement, asked | named | ({"after": lowest} if within else {}))
    if status in (None, "queued"):
        model_asked = "" if model is None else "AND p.model = :model"
        statement = _QUEUED.format(mine=_MINE[connection.dialect.name], model=model_asked, within=within)
        after = max(ended[-1], lowest) if len(ended) == limit else lowest
        queued = await _ids(connection, statement, asked | {"after": after})
    return sorted(ended + queued, reverse=True)[:limit]


async def _ids(connection: AsyncConnection, statement: str, values: Mapping[str, Any]) -> list[UUID]:
    bound = [bindparam(name, value, _type_of(value)) for name, value in values.items()]
    query = text(statement).bindparams(*bound).columns(id=Uuid())
    return list((await connection.execute(query)).scalars())


def _type_of(value: Any) -> TypeEngine[Any] | None:
    if isinstance(value, UUID):
        return Uuid()
    return Moment() if isinstance(value, datetime) else None
