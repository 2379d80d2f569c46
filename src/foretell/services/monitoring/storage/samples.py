"""Single metric values from `POST /metrics`."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.services.monitoring.storage.tables import samples

# A loose index scan: it jumps from name to name and does not read the values between them.
_SERVICES = text("""
    WITH RECURSIVE names (service) AS (
        SELECT min(service) FROM samples
        UNION ALL
        SELECT (SELECT min(service) FROM samples WHERE service > names.service) FROM names WHERE service IS NOT NULL
    )
    SELECT service FROM names WHERE service IS NOT NULL ORDER BY service
""")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric of one service."""

    at: datetime
    seq: int
    service: str
    name: str
    value: float


async def services(connection: AsyncConnection) -> list[str]:
    """The services that sent values, sorted."""
    return list(await connection.scalars(_SERVICES))


async def newest(connection: AsyncConnection, service: str, limit: int) -> list[Sample]:
    """The newest values of a service, oldest first."""
    query = (
        select(samples)
        .where(samples.c.service == service)
        .order_by(samples.c.at.desc(), samples.c.seq.desc())
        .limit(limit)
    )
    rows = (await connection.execute(query)).mappings().all()
    return [Sample(**row) for row in reversed(rows)]
