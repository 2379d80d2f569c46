"""Usage of each account by day and model, stored as sums, so that reading them does not read the history.

The sums are computed from the ledger, outside of the hot path: every ended prediction has one movement `capture` or
`release`. Movements get their numbers before the commit, so a lower number may become visible later. `Frontier` says
up to which number no more can appear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.domain.credits.tables import ledger
from foretell.domain.predictions.tables import usage_days, usage_progress

_ROW = 1


@dataclass(frozen=True, slots=True)
class Used:
    """Usage of one model by an account on one day (UTC); only ended predictions."""

    day: date
    model: str
    succeeded: int
    failed: int
    canceled: int
    credits: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """The highest visible movement at a moment, and the transactions that PostgreSQL was running then."""

    ledger_id: int
    oldest_running: int
    next_to_begin: int


#: The day of `created_at`, UTC, as SQL.
DAY_OF = {
    "postgresql": "CAST({created_at} AT TIME ZONE 'UTC' AS DATE)",
    "sqlite": "date({created_at} / 1000000, 'unixepoch')",
}
_ADD = """
INSERT INTO usage_days (user_id, day, model, succeeded, failed, canceled, credits)
SELECT
    l.user_id, {day}, p.model,
    sum(CASE WHEN l.kind = 'capture' THEN 1 ELSE 0 END),
    sum(CASE WHEN l.kind = 'release' AND p.status = 'failed' THEN 1 ELSE 0 END),
    sum(CASE WHEN l.kind = 'release' AND p.status = 'canceled' THEN 1 ELSE 0 END),
    sum(CASE WHEN l.kind = 'capture' THEN l.amount ELSE 0 END)
FROM ledger l JOIN predictions p ON p.id = l.prediction_id
WHERE l.id > :after AND l.id <= :upto AND l.kind IN ('capture', 'release')
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
ON CONFLICT (user_id, day, model) DO UPDATE SET
    succeeded = usage_days.succeeded + excluded.succeeded,
    failed = usage_days.failed + excluded.failed,
    canceled = usage_days.canceled + excluded.canceled,
    credits = usage_days.credits + excluded.credits
"""


async def frontier(connection: AsyncConnection) -> Frontier:
    """The current end of the ledger. SQLite has one writer at a time, so no lower number can appear later."""
    highest = int(await connection.scalar(select(func.coalesce(func.max(ledger.c.id), 0))) or 0)
    if connection.dialect.name == "sqlite":
        return Frontier(highest, 0, 0)
    running = await connection.execute(
        text(
            "SELECT txid_snapshot_xmin(txid_current_snapshot()) AS oldest, "
            "txid_snapshot_xmax(txid_current_snapshot()) AS next"
        )
    )
    row = running.one()
    return Frontier(highest, int(row.oldest), int(row.next))


async def add_up(connection: AsyncConnection, upto: int, *, most: int) -> int:
    """Add movements up to number `upto` to the sums, `most` in one call; returns how many are left.

    A concurrent call waits for this one and continues after it.
    """
    dialect = connection.dialect.name
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(usage_progress)
    await connection.execute(insert.values(id=_ROW, ledger_id=0).on_conflict_do_nothing())
    after = int(await connection.scalar(select(usage_progress.c.ledger_id).with_for_update()) or 0)
    if after >= upto:
        return 0
    last = min(upto, after + most)
    await connection.execute(
        text(_ADD.format(day=DAY_OF[dialect].format(created_at="l.created_at"))), {"after": after, "upto": last}
    )
    await connection.execute(update(usage_progress).values(ledger_id=last))
    return upto - last


async def added_up_to(connection: AsyncConnection) -> int:
    """The last movement that is included in the sums."""
    return int(await connection.scalar(select(usage_progress.c.ledger_id)) or 0)


async def used(connection: AsyncConnection, user_id: UUID, since: date) -> Sequence[Used]:
    """Usage of an account since that day, the newest first."""
    columns = [usage_days.c[name] for name in Used.__dataclass_fields__]
    query = (
        select(*columns)
        .where(usage_days.c.user_id == user_id, usage_days.c.day >= since)
        .order_by(usage_days.c.day.desc(), usage_days.c.model)
    )
    return [Used(**row) for row in (await connection.execute(query)).mappings()]
