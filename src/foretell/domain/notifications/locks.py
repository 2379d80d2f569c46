"""The lock of transactions that change many endpoints. It ends with the transaction."""

from datetime import datetime

from sqlalchemy import Column, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.kit.database import server_time

#: The key of the advisory lock in PostgreSQL: "events" in ASCII.
_LOCK = int.from_bytes(b"events")


async def try_to_lock_endpoints(connection: AsyncConnection, *, if_any: Column[int]) -> bool:
    """Take the lock of all transactions that change many endpoints, if this key has a row and the lock is free.

    Returns whether both were so. SQLite has one writer at a time anyway, and no such lock: always true.
    """
    if connection.dialect.name != "postgresql":
        return True
    locked = func.pg_try_advisory_xact_lock(_LOCK)
    # The condition is evaluated first, and once. With an order the index is used: the table may have many dead rows.
    any_row = select(if_any).order_by(if_any).limit(1).scalar_subquery()
    return bool(await connection.scalar(select(locked).where(any_row.is_not(None))))


async def lock_endpoints(connection: AsyncConnection) -> datetime:
    """Wait for that lock; returns the server's time after the wait.

    Without it, two transactions that change many endpoints in different orders could wait for each other.
    """
    if connection.dialect.name != "postgresql":
        return await server_time(connection)
    locked = await connection.execute(select(func.pg_advisory_xact_lock(_LOCK), func.clock_timestamp()))
    at: datetime = locked.one()[1]
    return at
