"""With a hundred thousand predictions behind it, PostgreSQL reads only what a statement is about."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.predictions import failed, open_account, submission, succeeded

from foretell.domain.credits import ledger
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions import figures, history, sweeps
from foretell.domain.predictions.cancellation import cancel
from foretell.domain.predictions.intake import Receipt, accept
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.settlement import settle
from foretell.domain.predictions.store import Store, Submission
from foretell.kit.clock import made_at, now
from foretell.kit.database import Database

#: More often than PostgreSQL looks at the parameters before it settles for one plan that fits any.
_TIMES = 7
_BATCH = 20

# Half of them are Ada's, the other half Carol's at first and then Bob's. A few are queued, some failed, all others
# succeeded.
_FILL = """
WITH made AS (
    SELECT number, now() - (100001 - number) * interval '1 second' AS at,
        ('019' || lpad(to_hex(number), 9, '0') || '7' || lpad(to_hex(number % 4096), 3, '0') || '8'
            || lpad(to_hex(number), 15, '0'))::uuid AS id,
        CASE WHEN number % 2 = 0 THEN $1::uuid WHEN number > 20000 THEN $2::uuid ELSE $3::uuid END AS owner,
        CASE WHEN number % 1000 < 2 THEN 'queued' WHEN number % 100 < 4 THEN 'failed' ELSE 'succeeded' END AS status
    FROM generate_series(1, 100000) AS number
), predicted AS (
    INSERT INTO predictions (id, user_id, model, version, stage, input, price_credits, status, idempotency_key,
        request_hash, created_at, expires_at, published_at, finished_at, output, error_code)
    SELECT id, owner, 'flight-delay', '1.0.0', 'input', '{"carrier":"AA"}', 1, status, 'old-' || number,
        'hash', at, at + interval '1 year', at,
        CASE WHEN status <> 'queued' THEN at END, CASE WHEN status = 'succeeded' THEN '{}'::json END,
        CASE WHEN status = 'failed' THEN 'model_error' END
    FROM made
    RETURNING id, user_id, status, created_at
)
INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at)
SELECT user_id, 'hold', 1, id, created_at FROM predicted
UNION ALL
SELECT user_id, CASE status WHEN 'succeeded' THEN 'capture' ELSE 'release' END, 1, id, created_at
FROM predicted WHERE status <> 'queued'
"""
_READS = """
SELECT relname, seq_tup_read, coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables
WHERE relname IN ('predictions', 'ledger')
"""
_CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'measured'"

Rows = dict[str, tuple[int, int]]
Work = Callable[[Database, Store], Awaitable[object]]


class Measured:
    """A database whose reads are counted."""

    def __init__(self, url: str, administrator: asyncpg.Connection) -> None:
        self._url = url
        self._administrator = administrator

    async def reads(self, work: Work) -> Rows:
        """By table: how many rows `work` read by going through all of them, and how many by an index."""
        before = await self._rows()
        database = Database(self._url, application="measured", pool_size=1)
        for _ in range(_TIMES):
            await work(database, open_store(database))
        await database.close()
        # A connection hands in its counts at its end at the latest.
        while await self._administrator.fetchval(_CONNECTED):
            await asyncio.sleep(0.01)
        after = await self._rows()
        return {table: (after[table][0] - before[table][0], after[table][1] - before[table][1]) for table in after}

    async def _rows(self) -> Rows:
        return {row[0]: (row[1], row[2]) for row in await self._administrator.fetch(_READS)}


#: What was measured, Ada, Bob and Carol, and Ada's predictions, oldest first.
Filled = tuple[Measured, list[UUID], list[UUID]]


@asynccontextmanager
async def _filled(url: str, *, analyze: bool) -> AsyncIterator[Filled]:
    database = Database(url)
    await migrate(database)
    users = [await open_account(database, credits=10_000) for _ in range(3)]
    await database.close()
    filling = await asyncpg.connect(url)
    try:
        await filling.execute(_FILL, *users)
        await filling.execute("UPDATE wallets SET held = 100")
        if analyze:
            await filling.execute("ANALYZE")
        rows = await filling.fetch("SELECT id FROM predictions WHERE user_id = $1 ORDER BY id", users[0])
        # What was read here must be counted by now.
        await filling.execute("SELECT pg_stat_force_next_flush()")
    finally:
        await filling.close()
    administrator = await asyncpg.connect(url)
    try:
        yield Measured(url, administrator), users, [row[0] for row in rows]
    finally:
        await administrator.close()


async def _walk(store: Store, user_id: UUID) -> None:
    """The whole way of a batch."""

    def batch() -> list[Submission]:
        return [
            submission(user_id, idempotency_key=f"new-{number}" if number % 2 else None, request_hash=b"hash")
            for number in range(_BATCH)
        ]

    first = [outcome.id for outcome in await accept(store, batch()) if isinstance(outcome, Receipt)]
    # The keys are known by now.
    await accept(store, batch())
    await store.mark_published(first, now())
    await settle(store, [succeeded(each) if place % 3 else failed(each) for place, each in enumerate(first)])


@pytest.fixture(params=["analyzed", "before their number is known"])
async def filled(request: pytest.FixtureRequest, fresh_postgresql: str) -> AsyncIterator[Filled]:
    async with _filled(fresh_postgresql, analyze=request.param == "analyzed") as filled:
        yield filled


def _reading(ask: Callable[[AsyncConnection], Awaitable[object]]) -> Work:
    async def work(database: Database, _: Store) -> None:
        async with database.snapshot() as connection:
            assert await ask(connection) is not None

    return work


async def _excesses(measured: Measured, allowed: dict[str, tuple[Work, int]]) -> dict[str, str]:
    """By name, what read more rows each time than its number, or any by going through all."""
    excesses = {}
    for name, (work, most) in allowed.items():
        reads = await measured.reads(work)
        whole, by_index = (sum(read[place] for read in reads.values()) for place in (0, 1))
        if whole or by_index > most * _TIMES:
            excesses[name] = f"{whole / _TIMES:.0f} by reading all, {by_index / _TIMES:.0f} by index, not {most}"
    return excesses


async def test_the_way_of_a_prediction_goes_through_no_others(filled: Filled) -> None:
    measured, (ada, _, _), ids = filled
    queued = [each for place, each in enumerate(ids, start=1) if (2 * place) % 1000 < 2]

    async def cancel_one(database: Database, _: Store) -> None:
        async with database.transaction() as connection:
            await cancel(connection, ada, queued.pop())

    # Rows are read several times where they are changed; sweeps read what is queued, whoever's it is.
    allowed: dict[str, tuple[Work, int]] = {
        "way of a batch": (lambda _, store: _walk(store, ada), 20 * _BATCH),
        "cancel": (cancel_one, 4),
        "find": (_reading(lambda c: history.find(c, ada, ids[5])), 1),
        "find many": (_reading(lambda c: history.find_many(c, ids[100:120])), 20),
        "never published": (_reading(lambda c: sweeps.never_published(c, before=now(), limit=100)), 400),
        "lost": (_reading(lambda c: sweeps.lost(c, now(), after=timedelta(seconds=30), limit=100)), 400),
        "expired": (_reading(lambda c: sweeps.expired(c, now(), limit=100)), 400),
    }
    assert await _excesses(measured, allowed) == {}


async def test_figures_read_what_they_are_about(filled: Filled) -> None:
    measured, _, ids = filled
    # A millisecond each: half of the hundred between are Ada's.
    since, until = made_at(ids[40_000]), made_at(ids[40_050])
    allowed: dict[str, tuple[Work, int]] = {
        "waiting, the first": (_reading(lambda c: figures.waiting(c, limit=50)), 50),
        "waiting, the next": (_reading(lambda c: figures.waiting(c, limit=50, after=ids[20_000])), 50),
        "waiting, all": (_reading(lambda c: figures.waiting(c, limit=20_000)), 200),
        "next accepted": (_reading(lambda c: figures.next_accepted_at(c, since)), 1),
        "earned": (_reading(lambda c: figures.earned(c, since, until)), 100),
    }
    assert await _excesses(measured, allowed) == {}


async def test_pages_read_only_what_they_show(filled: Filled) -> None:
    measured, (ada, bob, carol), ids = filled
    allowed: dict[str, tuple[Work, int]] = {
        # Besides their rows, the ids of as many of each status (test_list_plans.py looks at more kinds of lists).
        "first page": (_reading(lambda c: history.page(c, ada, limit=20)), 70),
        "a later page": (_reading(lambda c: history.page(c, bob, limit=20, before_id=ids[25_000])), 70),
        "page of somebody of long ago": (_reading(lambda c: history.page(c, carol, limit=20)), 70),
        "a later page of long ago": (_reading(lambda c: history.page(c, carol, limit=20, before_id=ids[5_000])), 70),
        "page of failed": (_reading(lambda c: history.page(c, bob, limit=20, status="failed")), 45),
        "page of failed of long ago": (_reading(lambda c: history.page(c, carol, limit=20, status="failed")), 45),
        "page of canceled": (_reading(lambda c: history.page(c, bob, limit=20, status="canceled")), 0),
        "page of queued": (_reading(lambda c: history.page(c, ada, limit=20, status="queued")), 45),
        "movements": (_reading(lambda c: ledger.movements(c, ada, limit=20)), 20),
        "movements of long ago": (_reading(lambda c: ledger.movements(c, carol, limit=20)), 20),
        "later movements": (_reading(lambda c: ledger.movements(c, carol, limit=20, before_id=10_000)), 20),
    }
    assert await _excesses(measured, allowed) == {}
