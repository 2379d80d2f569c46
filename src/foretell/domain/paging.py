"""Pages of an owner's rows, newest first."""

from typing import Any
from uuid import UUID

from sqlalchemy import Select, Table, literal, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection


def newest_of(
    connection: AsyncConnection, query: Select[Any], table: Table, owner: UUID, *, limit: int, before_id: Any = None
) -> Select[Any]:
    """`query` for up to `limit` rows of `table` of `owner`, newest first, before `before_id`, if given.

    The table needs an index on (user_id, id).
    """
    mine, number = table.c.user_id, table.c.id
    if connection.dialect.name != "postgresql":
        query = query.where(mine == owner)
        return (query if before_id is None else query.where(number < before_id)).order_by(number.desc()).limit(limit)
    # For the highest ids of one owner, PostgreSQL may read the rows of all owners from the highest id down, expecting
    # to find the owner's soon. If these are all old, that reads the whole table. With a range of owners in the order of
    # the index (user_id, id), only that index gives the order.
    upper = (
        mine <= owner
        if before_id is None
        else tuple_(mine, number) < tuple_(literal(owner, mine.type), literal(before_id, number.type))
    )
    return query.where(mine >= owner, upper).order_by(mine.desc(), number.desc()).limit(limit)
