"""The whole path on a database with ten million settled predictions behind it, beside a new one, in turns.

    python benchmarks/history.py
    python benchmarks/history.py --rows 1000000 --seconds 10 --pairs embedded

Fills a database of its own (some minutes, and about 1 kB of disk a prediction), has it analyzed, and drops it at the
end. PostgreSQL's autovacuum is off on both while they are measured. Compare the ratios, and with nothing else.
"""

import argparse
import asyncio
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a script: the siblings are found from the repository's root.
    sys.path.insert(0, str(ROOT))

from benchmarks import surroundings  # noqa: E402
from benchmarks.way import running_way  # noqa: E402
from foretell.domain.migrations.run import migrate  # noqa: E402
from foretell.domain.predictions.usage import DAY_OF  # noqa: E402
from foretell.kit.clock import unix_s  # noqa: E402
from foretell.kit.database import Database  # noqa: E402
from foretell.local.measuring import Throughput  # noqa: E402

#: Rows that one statement of the filling makes.
_CHUNK = 250_000
_USERS = 1_000
#: Room that must be free, per prediction: what it takes, once more for the indexes being made, and the log.
_BYTES_A_ROW = 2_500

_INPUT = '{"carrier":"AA","departure_time":"17:45","distance_miles":1389,"weather_code":3}'
_OUTPUT = '{"prediction":1,"probability":0.7512}'

# What the movements below took, so that every wallet is the sum of its rows.
_GRANTS = """
INSERT INTO ledger (user_id, kind, amount, created_at)
SELECT user_id, 'grant', sum(price_credits), min(created_at) FROM predictions GROUP BY user_id
"""
# What the dispatcher has added up by then (domain/predictions/usage.py): it would read the whole history first.
_USED = """
INSERT INTO usage_days (user_id, day, model, succeeded, failed, canceled, credits)
SELECT user_id, {day}, model, count(*), 0, 0, sum(price_credits) FROM predictions GROUP BY 1, 2, 3
"""
_USED_UP_TO = "INSERT INTO usage_progress (id, ledger_id) SELECT 1, max(id) FROM ledger"
# One prediction a second up to now, which succeeded, and the two movements of its credit.
_POSTGRESQL_FILL = """
WITH made AS (
    SELECT
        (lpad(to_hex(($1::bigint + number) * 1000), 12, '0') || '7000' || substr(md5(number::text), 1, 16))::uuid AS id,
        ($2::uuid[])[1 + number % cardinality($2::uuid[])] AS user_id, to_timestamp($1::bigint + number) AS at
    FROM generate_series($3::bigint, $4::bigint) AS number
), predicted AS (
    INSERT INTO predictions (id, user_id, model, version, stage, input, price_credits, status, idempotency_key,
        request_hash, created_at, expires_at, published_at, started_at, finished_at, worker_id, output)
    SELECT id, user_id, 'flight-delay', '1.0.0', 'input', $5, 1, 'succeeded', replace(id::text, '-', ''),
        decode(md5(id::text), 'hex'), at, at + interval '1 hour', at, at, at, 'worker-1', $6
    FROM made
)
INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at)
SELECT user_id, kind, 1, id, at FROM made, (VALUES ('hold'), ('capture')) AS movement (kind)
"""
_SQLITE_FILL = """
WITH RECURSIVE numbers (number) AS (
    SELECT ?3 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?4
)
INSERT INTO made
SELECT printf('%012x7000%016x', (?1 + number) * 1000, 0x8000000000000000 | abs(random() >> 2)),
    (SELECT user_id FROM payers WHERE place = number % ?2), (?1 + number) * 1000000
FROM numbers
"""
_SQLITE_COPY = (
    f"""
INSERT INTO predictions (id, user_id, model, version, stage, input, price_credits, status, idempotency_key,
    request_hash, created_at, expires_at, published_at, started_at, finished_at, worker_id, output)
SELECT id, user_id, 'flight-delay', '1.0.0', 'input', '{_INPUT}', 1, 'succeeded', id,
    randomblob(16), at, at + 3600000000, at, at, at, 'worker-1', '{_OUTPUT}'
FROM made
""",
    *(
        "INSERT INTO ledger (user_id, kind, amount, prediction_id, created_at)"
        f" SELECT user_id, '{kind}', 1, id, at FROM made"
        for kind in ("hold", "capture")
    ),
    "DELETE FROM made",
)

#: The dispatcher audits the ledger a minute after its start, and then for at most a hundredth of the time. A turn is so
#: short that the audit of ten million predictions would be in half of it.
_NO_AUDIT = {"FORETELL_AUDIT_INTERVAL_S": "86400"}

console = Console(stderr=True)


def _used(dialect: str) -> str:
    return _USED.format(day=DAY_OF[dialect].format(created_at="created_at"))


def check_room(folder: Path, rows: int) -> None:
    """Raise `SystemExit` if `rows` would not fit into `folder`, if that is on this machine."""
    if not folder.is_dir():
        return
    needed, free = rows * _BYTES_A_ROW, shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(f"{rows:,} predictions may take {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free")


def _chunks(rows: int, title: str) -> Any:
    """Bounds of the chunks, with progress shown."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=rows)
        for first in range(0, rows, _CHUNK):
            last = min(first + _CHUNK, rows) - 1
            yield first, last
            progress.update(task, completed=last + 1)


async def fill_postgresql(url: str, rows: int) -> float:
    """Fill an empty, migrated database; returns the bytes that a prediction takes, its movements included."""
    connection = await asyncpg.connect(url)
    try:
        check_room(Path(await connection.fetchval("SHOW data_directory")), rows)
        users = [uuid.uuid4() for _ in range(_USERS)]
        await connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'")
        await connection.execute(
            "INSERT INTO users (id, username, username_key, password_hash, created_at)"
            " SELECT id, id, id, 'nobody logs in with this', now() FROM unnest($1::uuid[]) AS id",
            users,
        )
        await connection.execute("INSERT INTO wallets (user_id) SELECT unnest($1::uuid[])", users)
        made_later = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes"
            " WHERE tablename IN ('predictions', 'ledger') AND indexname NOT LIKE 'pk_%'"
        )
        for name, _ in made_later:
            await connection.execute(f"DROP INDEX {name}")
        begins_at = int(unix_s()) - rows - 60
        for first, last in _chunks(rows, "PostgreSQL: predictions"):
            await connection.execute(_POSTGRESQL_FILL, begins_at, users, first, last, _INPUT, _OUTPUT)
        for statement in (_GRANTS, _used("postgresql"), _USED_UP_TO):
            await connection.execute(statement)
        for name, definition in made_later:
            console.print(f"PostgreSQL: {name}")
            await connection.execute(definition)
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        size = "SELECT pg_total_relation_size('predictions') + pg_total_relation_size('ledger')"
        return float(await connection.fetchval(size)) / rows
    finally:
        await connection.close()


def fill_sqlite(file: Path, rows: int) -> float:
    """The same for SQLite."""
    check_room(file.parent, rows)
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-400000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        users = [(uuid.uuid4().hex, number) for number in range(_USERS)]
        connection.execute("CREATE TEMP TABLE payers (user_id TEXT, place INTEGER PRIMARY KEY)")
        connection.execute("CREATE TEMP TABLE made (id TEXT, user_id TEXT, at INTEGER)")
        connection.executemany("INSERT INTO payers VALUES (?, ?)", users)
        connection.execute(
            "INSERT INTO users (id, username, username_key, password_hash, created_at)"
            " SELECT user_id, user_id, user_id, 'nobody logs in with this', 0 FROM payers"
        )
        connection.execute("INSERT INTO wallets (user_id) SELECT user_id FROM payers")
        # Triggers too: without indexes, the one that compares a new row of the ledger with the others reads them all.
        made_later = connection.execute(
            "SELECT type, name, sql FROM sqlite_master"
            " WHERE type IN ('index', 'trigger') AND sql IS NOT NULL AND tbl_name IN ('predictions', 'ledger')"
            " ORDER BY type"
        ).fetchall()
        for kind, name, _ in made_later:
            connection.execute(f"DROP {kind} {name}")
        begins_at = int(unix_s()) - rows - 60
        for first, last in _chunks(rows, "SQLite: predictions"):
            connection.execute("BEGIN")
            connection.execute(_SQLITE_FILL, (begins_at, _USERS, first, last))
            for statement in _SQLITE_COPY:
                connection.execute(statement)
            connection.execute("COMMIT")
        for statement in (_GRANTS, _used("sqlite"), _USED_UP_TO):
            connection.execute(statement)
        for _, name, definition in made_later:
            console.print(f"SQLite: {name}")
            connection.execute(definition)
        connection.execute("ANALYZE")
        pages, page_size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return float(pages * page_size) / rows
    finally:
        connection.close()
        # Some gigabytes that the system has yet to write would slow down whatever is measured next.
        with file.open("rb+") as written:
            os.fsync(written.fileno())


@asynccontextmanager
async def new_database(kind: str) -> AsyncIterator[str]:
    """The URL of a new, migrated database that is gone afterwards; autovacuum does not touch what is measured."""
    async with AsyncExitStack() as stack:
        if kind == "embedded":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="foretell-history-"))
            url = f"sqlite:///{folder}/foretell.db"
        else:
            url = await stack.enter_async_context(surroundings.private_database(surroundings.DATABASE_URL))
        database = Database(url)
        await migrate(database)
        await database.close()
        if kind != "embedded":
            connection = await asyncpg.connect(url)
            for table in ("predictions", "ledger", "wallets"):
                await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
            await connection.close()
        yield url


async def fill(url: str, rows: int) -> float:
    """Fill an empty database; returns the bytes that a prediction takes."""
    if url.startswith("sqlite:///"):
        return await asyncio.to_thread(fill_sqlite, Path(url.removeprefix("sqlite:///")), rows)
    return await fill_postgresql(url, rows)


#: What is measured, by its name in the table: of which measurement, and which figure.
FIGURES: dict[str, tuple[str, str]] = {
    "accepted a second": ("load", "accepted_per_s"),
    "settled a second": ("load", "settled_per_s"),
    "one waiting client, p50 ms": ("waiting", "p50_ms"),
    "accepted a second, after full load": ("after", "accepted_per_s"),
    "settled a second, after full load": ("after", "settled_per_s"),
    "one waiting client, after full load": ("waiting_after", "p50_ms"),
    "left over": ("after", "left_over"),
}


def cpu_us(throughput: Throughput, of: str) -> float:
    """The CPU time that a prediction took, of PostgreSQL (0 where it is not used) or of all our own processes."""
    used = {name: process.cpu_us_per_prediction for name, process in throughput.processes.items()}
    if of == "PostgreSQL":
        return used.get("postgresql", 0.0)
    return sum(us for name, us in used.items() if name not in ("postgresql", "rabbitmq", "load"))


async def measure(kind: str, url: str, *, seconds: float, full_s: float, workers: int) -> dict[str, float]:
    """The figures of one turn."""
    async with running_way(kind, workers=workers, database_url=url, **_NO_AUDIT) as way:
        measured = way.measured
        found: dict[str, Any] = {
            "waiting": await measured.latency(clients=1, seconds=seconds / 2),
            "load": await measured.throughput(clients=64, seconds=seconds),
        }
        await measured.throughput(clients=256, seconds=full_s)
        found["after"] = await measured.throughput(clients=64, seconds=seconds)
        found["waiting_after"] = await measured.latency(clients=1, seconds=seconds / 2)
        figures = {name: float(getattr(found[part], figure)) for name, (part, figure) in FIGURES.items()}
        # Time on the clock is everybody's on a shared machine; that of the processor is ours, and moves far less.
        for of in ("PostgreSQL", "Foretell"):
            for part, title in (("load", ""), ("after", ", after full load")):
                figures[f"CPU us a prediction, {of}{title}"] = cpu_us(found[part], of)
        return figures


async def compare(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A new database and a filled one in turns; a new one each time, the filled one kept."""
    turns: dict[str, list[dict[str, float]]] = {"new": [], "history": []}
    how = {"seconds": arguments.seconds, "full_s": arguments.full_seconds, "workers": arguments.workers}
    async with new_database(kind) as filled:
        bytes_a_row = await fill(filled, arguments.rows)
        for turn in range(arguments.turns):
            console.print(f"{kind}: turn {turn + 1}, new")
            async with new_database(kind) as new:
                turns["new"].append(await measure(kind, new, **how))
            console.print(f"{kind}: turn {turn + 1}, {arguments.rows:,} rows of history")
            turns["history"].append(await measure(kind, filled, **how))
    return {"pair": kind, "rows": arguments.rows, "bytes_a_prediction": bytes_a_row, "turns": turns}


def show(reports: list[dict[str, Any]]) -> None:
    """Print a table for each pair of backends."""
    output = Console(width=110)
    for report in reports:
        size = f"{report['bytes_a_prediction']:.0f} bytes"
        title = f"{report['pair']}: new, and with {report['rows']:,} predictions of {size}"
        table = Table(title=title, title_justify="left")
        for column in ("what", "new", "history", "ratio"):
            table.add_column(column, justify="left" if column == "what" else "right")
        turns = report["turns"]
        for name in turns["new"][0]:
            new, old = (statistics.median(turn[name] for turn in turns[state]) for state in ("new", "history"))
            table.add_row(name, f"{new:,.1f}", f"{old:,.1f}", f"{old / new:.2f}" if new else "-")
        output.print(table)


async def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="settled predictions (default 10,000,000)")
    parser.add_argument("--seconds", type=float, default=20, help="of the runs with 64 clients (default 20)")
    parser.add_argument("--full-seconds", type=float, default=60, help="at full load between them (default 60)")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--pairs", nargs="+", choices=("servers", "embedded"), default=["servers", "embedded"])
    parser.add_argument("--json", type=Path, help="write everything there, too")
    arguments = parser.parse_args()
    reports = []
    for kind in arguments.pairs:
        reports.append(await compare(kind, arguments))
        show(reports[-1:])
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=2))


if __name__ == "__main__":
    uvloop.run(main())
