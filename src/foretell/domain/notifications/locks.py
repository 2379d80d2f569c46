"""The lock of transactions that change many endpoints. It ends with the transaction."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.database import server_time

#: The key of the advisory lock in PostgreSQL: "events" in ASCII.
_LOCK = int.from_bytes(b"events")


async def try_to_lock_endpoints(connection: AsyncConnection) -> bool:
    """Take the lock of all transactions that change many endpoints, if it is free; returns whether it was.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name != "postgresql":
        return True
    return bool(await connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))))


async def lock_endpoints(connection: AsyncConnection) -> datetime:
    """Wait for that lock; returns the server's time after the wait.

    Without it, two transactions that change many endpoints in different orders could wait for each other.
    """
    if connection.dialect.name != "postgresql":
        return await server_time(connection)
    locked = await connection.execute(select(func.pg_advisory_xact_lock(_LOCK), func.clock_timestamp()))
    at: datetime = locked.one()[1]
    return at
