"""What each account used, by day and model: sums that are kept, so that no view of them reads a history.

They are made from the ledger, behind the hot path: every prediction that ended has one movement `capture` or `release`.
Numbers of movements are given out before commits, so one that is lower may appear later: `Frontier` says up to which
number none can appear any more.
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
    """What an account used of one model on one day (UTC), as far as it has ended."""

    day: date
    model: str
    succeeded: int
    failed: int
    canceled: int
    credits: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """The highest movement that was seen at a moment, and which transactions of PostgreSQL were under way then."""

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
    """How far the ledger goes now. On SQLite one transaction writes at a time, so what is seen is all there is."""
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
    """Add the movements up to number `upto` to the sums, `most` at a time; returns how many are left to look at.

    Whoever does it at the same time waits, and then goes on from there.
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
    """Up to which movement the sums are."""
    return int(await connection.scalar(select(usage_progress.c.ledger_id)) or 0)


async def used(connection: AsyncConnection, user_id: UUID, since: date) -> Sequence[Used]:
    """What an account used from that day on, the newest first."""
    columns = [usage_days.c[name] for name in Used.__dataclass_fields__]
    query = (
        select(*columns)
        .where(usage_days.c.user_id == user_id, usage_days.c.day >= since)
        .order_by(usage_days.c.day.desc(), usage_days.c.model)
    )
    return [Used(**row) for row in (await connection.execute(query)).mappings()]
