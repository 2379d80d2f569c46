"""Observations: counts of the values in models' rows that each instance sends every few seconds."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.monitoring import Observation
from foretell.services.monitoring.storage.tables import observations

_encode = msgspec.msgpack.Encoder().encode
#: Decodes the `body` of a row.
decode = msgspec.msgpack.Decoder(Observation).decode


async def record(connection: AsyncConnection, seen: Sequence[Observation]) -> None:
    """Store observations."""
    if seen:
        await connection.execute(
            insert(observations),
            [
                {
                    "model": each.model,
                    "version": each.version,
                    "at": each.until,
                    "rows": each.rows,
                    "body": _encode(each),
                }
                for each in seen
            ],
        )


async def versions(connection: AsyncConnection, since: datetime) -> list[tuple[str, str]]:
    """The model versions with observations since then: name and version, sorted."""
    query = select(observations.c.model, observations.c.version).where(observations.c.at >= since).distinct()
    return sorted((row.model, row.version) for row in await connection.execute(query))


async def observed(
    connection: AsyncConnection, model: str, version: str, since: datetime, until: datetime
) -> list[Observation]:
    """The observations of a model version after `since` and until `until`, oldest first."""
    query = (
        select(observations.c.body)
        .where(
            observations.c.model == model,
            observations.c.version == version,
            observations.c.at > since,
            observations.c.at <= until,
        )
        .order_by(observations.c.at, observations.c.id)
    )
    return [decode(body) for body in await connection.scalars(query)]


async def ends(connection: AsyncConnection, since: datetime) -> tuple[int, int]:
    """The ids of the first observation from `since` on and of the last one; 1 and 0 when there is none."""
    last = await connection.scalar(select(func.max(observations.c.id))) or 0
    first = await connection.scalar(select(func.min(observations.c.id)).where(observations.c.at >= since))
    return (last + 1 if first is None else first), last


async def bodies_after(connection: AsyncConnection, after: int, limit: int) -> list[tuple[int, bytes]]:
    """Ids and encoded observations after the id `after`, in the order of arrival."""
    query = (
        select(observations.c.id, observations.c.body)
        .where(observations.c.id > after)
        .order_by(observations.c.id)
        .limit(limit)
    )
    return [(row.id, row.body) for row in await connection.execute(query)]
