"""Revenue by model and day, as exact as the ledger.

Dispatchers read the revenue of today and yesterday from the product's database and report it in their metrics. It is
stored here, so that older days stay known after their snapshots are deleted.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from math import isfinite

import msgspec
from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.activity import DayTotal, Earned, Revenue
from foretell.kit.clock import now
from foretell.kit.pauses import set_within
from foretell.services.monitoring.storage.database import MonitoringDatabase
from foretell.services.monitoring.storage.instances import list_instances
from foretell.services.monitoring.storage.snapshots import families_of
from foretell.services.monitoring.storage.tables import revenue as table
from foretell.services.monitoring.storage.tables import snapshots

DEFAULT_DAYS = 7
MOST_DAYS = 400

_DISPATCHER = "dispatcher"
_CREDITS = "foretell_revenue_credits"
_PREDICTIONS = "foretell_revenue_predictions"
_ADDED_UP_AT = "foretell_revenue_timestamp_seconds"
_WRITE_DOWN_EVERY_S = 10.0
#: A dispatcher also reports yesterday, so its last report is used for this long.
_REPORTED_WITHIN = timedelta(days=2)
#: In a crash loop, the last instances are enough: the reports of the others are stored.
_MOST_DISPATCHERS = 20


async def revenue(connection: AsyncConnection, today: date, days: int) -> Revenue:
    """The revenue of the last `days` days up to `today`."""
    first = today - timedelta(days=days - 1)
    query = select(table).where(table.c.day >= first.isoformat(), table.c.day <= today.isoformat())
    items = {
        (row.day, row.model): Earned(row.day, row.model, row.credits, row.predictions, row.as_of)
        for row in await connection.execute(query)
    }
    # Reports that are newer than the stored rows.
    reported = await _reported(connection, seen_since=now() - _REPORTED_WITHIN)
    for earned in reported:
        known = items.get((earned.day, earned.model))
        if earned.day >= first.isoformat() and (known is None or known.as_of < earned.as_of):
            items[earned.day, earned.model] = _higher(earned, known)
    shown = [items[key] for key in sorted(items)]
    as_of = [earned.as_of for earned in reported] or [earned.as_of for earned in shown]
    return Revenue(
        days=days,
        since=first.isoformat(),
        until=today.isoformat(),
        as_of=max(as_of, default=None),
        credits=sum(each.credits for each in shown),
        predictions=sum(each.predictions for each in shown),
        totals=_totals(shown),
        items=shown,
    )


def _higher(earned: Earned, known: Earned | None) -> Earned:
    """The higher of two figures: revenue never falls, and a dispatcher that has just started may report too little."""
    if known is None or earned.credits >= known.credits:
        return earned
    return msgspec.structs.replace(earned, credits=known.credits, predictions=known.predictions)


def _totals(items: Iterable[Earned]) -> list[DayTotal]:
    credits: dict[str, int] = defaultdict(int)
    predictions: dict[str, int] = defaultdict(int)
    for each in items:
        credits[each.day] += each.credits
        predictions[each.day] += each.predictions
    return [DayTotal(day, credits[day], predictions[day]) for day in sorted(credits)]


async def _reported(connection: AsyncConnection, *, seen_since: datetime) -> list[Earned]:
    """The last reports of the dispatchers seen since then, by day and model; the highest if they differ."""
    found: dict[tuple[str, str], Earned] = {}
    dispatchers = await list_instances(connection, service=_DISPATCHER, seen_since=seen_since)
    for dispatcher in sorted(dispatchers, key=lambda each: each.last_seen_at)[-_MOST_DISPATCHERS:]:
        query = (
            select(snapshots.c.at, snapshots.c.body)
            .where(snapshots.c.instance_id == dispatcher.id)
            .order_by(snapshots.c.at.desc())
            .limit(1)
        )
        row = (await connection.execute(query)).one_or_none()
        for earned in _read(row.body, row.at) if row is not None else ():
            key = earned.day, earned.model
            known = found.get(key)
            if known is None or (earned.credits, earned.as_of) > (known.credits, known.as_of):
                found[key] = earned
    return [found[key] for key in sorted(found)]


def _read(body: bytes, at: datetime) -> list[Earned]:
    """The revenue in a snapshot taken at `at`. Its figures have the time of the dispatcher's last database read."""
    values: dict[str, Mapping[tuple[str, str], float]] = {
        family.name: {
            (series.labels.get("day", ""), series.labels.get("model", "")): series.value for series in family.series
        }
        for family in families_of(body)
        if family.name in (_CREDITS, _PREDICTIONS, _ADDED_UP_AT)
    }
    for added_up_at in values.get(_ADDED_UP_AT, {}).values():
        if isfinite(added_up_at):
            # Not later than the snapshot, because the dispatcher's clock may be ahead.
            at = min(at, datetime.fromtimestamp(added_up_at, UTC))
    predictions = values.get(_PREDICTIONS, {})
    return [
        Earned(day, model, round(credits), round(predictions.get((day, model), 0)), at)
        for (day, model), credits in values.get(_CREDITS, {}).items()
        if _is_day(day)
    ]


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


class RevenueBook:
    """Stores the revenue that dispatchers report."""

    def __init__(self, database: MonitoringDatabase, *, every_s: float = _WRITE_DOWN_EVERY_S) -> None:
        self._database = database
        self._every_s = every_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Store it every few seconds until `stopping` is set, and once more at the end."""
        while not stopping.is_set():
            await self.write_down()
            await set_within(stopping, self._every_s)
        await self.write_down()

    async def write_down(self) -> None:
        """Store the current reports. Raises `Unavailable`."""
        async with self._database.snapshot() as connection:
            reported = await _reported(connection, seen_since=now() - _REPORTED_WITHIN)
        if reported:
            async with self._database.transaction() as connection:
                await _keep(connection, reported)


async def _keep(connection: AsyncConnection, reported: Iterable[Earned]) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for each in reported:
        statement = insert(table).values(
            day=each.day, model=each.model, credits=each.credits, predictions=each.predictions, as_of=each.as_of
        )
        new = statement.excluded
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=[table.c.day, table.c.model],
                set_={
                    "credits": case((new.credits > table.c.credits, new.credits), else_=table.c.credits),
                    "predictions": case((new.credits > table.c.credits, new.predictions), else_=table.c.predictions),
                    "as_of": case((new.as_of > table.c.as_of, new.as_of), else_=table.c.as_of),
                },
            )
        )
