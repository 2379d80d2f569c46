"""What a user with a million predictions waits for: every list, filter and combination; and the audit of all of them.

    python benchmarks/lists.py
    python benchmarks/lists.py sqlite --predictions 200000 --rounds 3

The million is hard to page through: its oldest fifth failed without a break, one model stands in the oldest few only,
some of what is queued lies far back, and somebody else's are newer than all of it. Every list is asked for with
statistics of a young database and again with fresh ones. Milliseconds: the fastest of some calls, and their
median in brackets, which says what else the machine had to do.
"""

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.surroundings import DATABASE_URL, private_database
from foretell.contracts.messages import Status
from foretell.domain.accounts import registration
from foretell.domain.credits import ledger
from foretell.domain.migrations.run import migrate
from foretell.domain.predictions import history
from foretell.domain.predictions.audit import audit
from foretell.kit.clock import uuid7_at
from foretell.kit.database import Database, to_microseconds

#: One more than the page shows, as the route asks.
PAGE = 21
#: A moment between accepting and settling, in predictions.
UNDER_WAY = 100
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
INPUT = '{"carrier":"AA","departure_time":"17:45","distance_miles":1389,"weather_code":3}'
OUTPUT = '{"prediction":1,"probability":0.7500}'
PREDICTION_COLUMNS = (
    "id", "user_id", "model", "version", "stage", "input", "price_credits", "status", "idempotency_key", "request_hash",
    "created_at", "expires_at", "published_at", "started_at", "finished_at", "worker_id", "output", "error_code",
)  # fmt: skip
LEDGER_COLUMNS = ("user_id", "kind", "amount", "prediction_id", "created_at")
CHUNK = 20_000


class History:
    """A million predictions of `owner`, the oldest first, and a few of `other`, who came later."""

    def __init__(self, owner: UUID, other: UUID, size: int) -> None:
        self.owner, self.other, self.size = owner, other, size

    def made_at(self, number: int) -> datetime:
        return BEGIN + timedelta(milliseconds=number)

    def id(self, number: int) -> UUID:
        return uuid7_at(self.made_at(number))

    def status(self, number: int) -> Status:
        if number >= self.size - 200 or number % (self.size // 5) == 7:
            return "queued"
        if number % (self.size // 20) == 11:
            return "canceled"
        return "failed" if number < self.size // 5 or number % 100 == 13 else "succeeded"

    def model(self, number: int) -> str:
        if number < 30:
            return "rare"
        return "flight-delay" if number % 3 else "sentiment"

    def predictions(self) -> Iterator[tuple[Any, ...]]:
        """Rows of `PREDICTION_COLUMNS`."""
        for number in range(self.size + self.size // 20):
            owner = self.owner if number < self.size else self.other
            status, at = self.status(number), self.made_at(number)
            ended = None if status == "queued" else at
            yield (
                self.id(number), owner, self.model(number), "1.0.0", "input", INPUT, 1, status, f"{number:032x}",
                b"0123456789abcdef", at, at + timedelta(hours=1), at, ended, ended,
                "worker-1" if ended else None, OUTPUT if status == "succeeded" else None,
                "model_error" if status == "failed" else None,
            )  # fmt: skip

    def movements(self) -> Iterator[tuple[Any, ...]]:
        """Rows of `LEDGER_COLUMNS`: holds and, a little later, what became of them."""
        last = self.size + self.size // 20
        for number in range(last + UNDER_WAY):
            if number < last:
                yield self._movement(number, "hold")
            if number >= UNDER_WAY and (status := self.status(number - UNDER_WAY)) != "queued":
                yield self._movement(number - UNDER_WAY, "capture" if status == "succeeded" else "release")

    def _movement(self, number: int, kind: str) -> tuple[Any, ...]:
        at = self.made_at(number)
        return self.owner if number < self.size else self.other, kind, 1, self.id(number), at


def chunks(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


#: What wallets hold and have, from the ledger.
WALLETS = """
UPDATE wallets SET
    held = (SELECT sum(CASE kind WHEN 'hold' THEN amount WHEN 'capture' THEN -amount WHEN 'release' THEN -amount
        ELSE 0 END) FROM ledger WHERE ledger.user_id = wallets.user_id),
    available = (SELECT sum(CASE kind WHEN 'hold' THEN -amount WHEN 'capture' THEN 0 ELSE amount END)
        FROM ledger WHERE ledger.user_id = wallets.user_id)
"""


async def fill_postgresql(url: str, filled: History) -> None:
    connection = await asyncpg.connect(url)
    try:
        for table in ("predictions", "ledger"):
            # Otherwise the statistics would be fresh sooner or later.
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        await connection.execute("ANALYZE")
        for table, columns, rows in (
            ("predictions", PREDICTION_COLUMNS, filled.predictions()),
            ("ledger", LEDGER_COLUMNS, filled.movements()),
        ):
            for chunk in chunks(rows):
                await connection.copy_records_to_table(table, records=chunk, columns=columns)
        await connection.execute(WALLETS)
    finally:
        await connection.close()


def fill_sqlite(path: str, filled: History) -> None:
    def stored(value: Any) -> Any:
        if isinstance(value, UUID):
            return value.hex
        return to_microseconds(value) if isinstance(value, datetime) else value

    with closing(sqlite3.connect(path)) as connection:
        for table, columns, rows in (
            ("predictions", PREDICTION_COLUMNS, filled.predictions()),
            ("ledger", LEDGER_COLUMNS, filled.movements()),
        ):
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            for chunk in chunks(rows):
                with connection:
                    connection.executemany(statement, [[stored(value) for value in row] for row in chunk])
        with connection:
            connection.execute(WALLETS)


Ask = Callable[[AsyncConnection], Awaitable[object]]


def lists(filled: History) -> dict[str, Ask]:
    """By name, everything of its owner that can be listed or counted."""
    owner = filled.owner
    asked: dict[str, Ask] = {}
    cursors = {"first page": None, "late page": filled.id(filled.size // 20)}
    statuses, models = (None, *get_args(Status)), (None, "flight-delay", "rare", "absent")
    for status, model, (place, cursor) in product(statuses, models, cursors.items()):
        filters = " ".join(f"{name}={value}" for name, value in (("status", status), ("model", model)) if value)
        asked[f"predictions {filters or 'all'}, {place}"] = lambda c, s=status, m=model, b=cursor: history.page(
            c, owner, limit=PAGE, status=s, model=m, before_id=b
        )
    asked["transactions, first page"] = lambda c: ledger.movements(c, owner, limit=PAGE)
    asked["transactions, late page"] = lambda c: ledger.movements(c, owner, limit=PAGE, before_id=filled.size // 10)
    asked["predictions queued, counted"] = lambda c: history.count_queued(c, owner)
    return asked


async def time_ms(database: Database, ask: Ask, rounds: int) -> list[float]:
    """Each of `rounds` calls, after one that fills the caches."""
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        async with database.snapshot() as connection:
            await ask(connection)
        taken.append((time.perf_counter() - started) * 1000)
    return taken[1:]


async def measure(url: str, size: int, rounds: int) -> None:
    database = Database(url, pool_size=1, statement_timeout_s=600)
    try:
        await migrate(database)
        async with database.transaction() as connection:
            owner, other = [
                (await registration.register(connection, username=name, password_hash="-", grant_credits=2 * size)).id
                for name in ("owner", "other")
            ]
        filled = History(owner, other, size)
        started = time.perf_counter()
        if database.dialect == "sqlite":
            await asyncio.to_thread(fill_sqlite, url.removeprefix("sqlite:///"), filled)
        else:
            await fill_postgresql(url, filled)
        total = size + size // 20
        print(f"{database.dialect}: {total:,} predictions in {time.perf_counter() - started:.0f} s")
        young = {name: await time_ms(database, ask, rounds) for name, ask in lists(filled).items()}
        await audited(database, total, "young statistics")
        async with database.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("ANALYZE" if database.dialect == "sqlite" else "VACUUM ANALYZE"))
        fresh = {name: await time_ms(database, ask, rounds) for name, ask in lists(filled).items()}
        await audited(database, total, "fresh statistics")
        print(f"{database.dialect}: {await size_bytes(database) / total:,.0f} bytes a prediction")
    finally:
        await database.close()
    print(f"{database.dialect:55}{'young statistics':>20}{'fresh statistics':>20}")
    for name in young:
        print(f"{name:55}{_shown(young[name]):>20}{_shown(fresh[name]):>20}")


def _shown(ms: list[float]) -> str:
    return f"{min(ms):.1f} ({statistics.median(ms):.1f})"


async def audited(database: Database, predictions: int, which: str) -> None:
    started = time.perf_counter()
    async with database.snapshot() as connection:
        findings = await audit(connection, parallel_workers=4)
    assert not findings, findings
    seconds = time.perf_counter() - started
    print(f"{database.dialect}, {which}: audit {seconds / predictions * 1e6:.2f} s a million predictions")


async def size_bytes(database: Database) -> int:
    """All that the tables of predictions and movements take, indexes included."""
    async with database.snapshot() as connection:
        if database.dialect == "sqlite":
            query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        else:
            query = "SELECT pg_total_relation_size('predictions') + pg_total_relation_size('ledger')"
        return int(await connection.scalar(text(query)) or 0)


@asynccontextmanager
async def private(kind: str) -> AsyncIterator[str]:
    if kind == "postgresql":
        async with private_database(DATABASE_URL) as url:
            yield url
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/measured.db"


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("databases", nargs="*", default=["postgresql", "sqlite"], help="postgresql, sqlite or both")
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for kind in options.databases:
        async with private(kind) as url:
            await measure(url, options.predictions, options.rounds)


if __name__ == "__main__":
    asyncio.run(main())
