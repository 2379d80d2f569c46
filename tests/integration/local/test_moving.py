"""From the embedded database to PostgreSQL: every table, every type, once, whenever it is killed."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import JSON, Boolean, Date, DateTime, Integer, LargeBinary, Table, Text, Uuid, cast, insert, select
from tests.ports import free_port

from foretell.domain.accounts import registration
from foretell.domain.credits import ledger
from foretell.domain.migrations.schema import metadata
from foretell.domain.predictions.audit import audit
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.store import Ending, Submission
from foretell.kit.clock import now, uuid7
from foretell.kit.database import Database
from foretell.kit.errors import Misconfigured
from foretell.local.backups.parts import parts_of
from foretell.local.installation import HasMoved, Installation
from foretell.local.moving import moving
from foretell.local.moving.moving import MoveFailed, NoTarget, SourceWrong, TargetAway
from foretell.local.moving.target import SCHEMA, Target, TargetNotEmpty, WrongEncoding

_PRICE = 2


@pytest.fixture
def installation(tmp_path: Path, _migrated_sqlite: Path) -> Installation:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "foretell.db").write_bytes(_migrated_sqlite.read_bytes())
    return Installation(folder)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, application="test")
    try:
        yield database
    finally:
        await database.close()


def _url(installation: Installation) -> str:
    return f"sqlite:///{installation.data_dir / 'foretell.db'}"


async def _predict(installation: Installation, count: int, *, settled: bool) -> list[UUID]:
    """A user who asked for so many predictions; half of those that ended failed."""
    async with _opened(_url(installation)) as database:
        async with database.transaction() as connection:
            user = await registration.register(
                connection, username=f"user-{uuid7().hex}", password_hash="!", grant_credits=_PRICE * count
            )
        store = open_store(database)
        moment = now()
        asked = [
            Submission(
                id=uuid7(), user_id=user.id, model="m", version="1.0.0", pool=None, stage="raw",
                payload='{"text": "Привет,\\u0000 \\"мир\\"",  "number": 1.50}'.encode(), price_credits=_PRICE,
                created_at=moment, expires_at=moment, idempotency_key=f"key-{number}", request_hash=b"\x00\xff",
            )
            for number in range(count)
        ]  # fmt: skip
        for start in range(0, count, 500):
            await store.accept(asked[start : start + 500])
        ids = [submission.id for submission in asked]
        await store.mark_published(ids, moment)
        if settled:
            endings = [Ending(each, output=b'{"x":  1e-7}', worker_id="worker-1", started_at=moment) for each in ids]
            await store.settle(endings, now())
        return ids


async def _move(installation: Installation, url: str, **how: Any) -> moving.Moved:
    return await asyncio.to_thread(moving.move, url, installation, parts_of(installation, {}), **how)


async def _rows(url: str, table: Table) -> list[tuple[Any, ...]]:
    async with _opened(url) as database, database.snapshot() as connection:
        # To the letter, and not as what it means.
        columns = [cast(column, Text) if isinstance(column.type, JSON) else column for column in table.columns]
        rows = (await connection.execute(select(*columns).order_by(*table.primary_key.columns))).all()
        return [tuple(row) for row in rows]


def _value(table: Table, name: str, kind: Any, number: int) -> Any:
    """A value for a column, different in every row and never a usual one."""
    fixed = {
        ("users", "role"): "operator", ("endpoints", "kind"): "webhook", ("endpoints", "state"): "paused",
        ("deliveries", "outcome"): "failed", ("ledger", "kind"): "adjustment", ("predictions", "status"): "failed",
        ("predictions", "output"): None, ("telegram_bot", "id"): 1, ("usage_progress", "id"): 1,
    }  # fmt: skip
    if (table.name, name) in fixed:
        return fixed[table.name, name]
    if name in ("user_id", "own_user_id") or (table.name, name) == ("users", "id"):
        return UUID(int=number)
    if isinstance(kind, Uuid):
        return uuid7()
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, Integer):
        return 1000 + number
    if isinstance(kind, LargeBinary):
        return bytes([0, 255, number])
    if isinstance(kind, Date):
        return date(2026, 1, number)
    if isinstance(kind, JSON):
        return f'{{"number": {number}.50, "text": "\\u0000 \\\\ "}}'
    if isinstance(kind, Text) and name == "description":
        return ""
    if isinstance(kind, Text):
        return f'{name} {number}\t\\N \r\n\x01 "Привет" \\.'
    assert isinstance(kind.impl, DateTime), f"a type that this test does not know: {table.name}.{name} {kind!r}"
    return now()


async def test_every_table_comes_as_it_was(installation: Installation, fresh_postgresql: str) -> None:
    """Every table of the metadata, and none beside them: one that is added later is in it, or this fails."""
    with closing(sqlite3.connect(installation.data_dir / "foretell.db")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names - {"alembic_version", "sqlite_sequence"} == set(metadata.tables)
    async with _opened(_url(installation)) as database, database.transaction() as transaction:
        for table in metadata.sorted_tables:
            for number in range(1, 2 if table.name in ("telegram_bot", "usage_progress") else 4):
                columns = table.columns
                values = {column.name: _value(table, column.name, column.type, number) for column in columns}
                # As the text that it is: the type JSON would quote it once more.
                await transaction.execute(insert(table).values(values))
    before = {name: await _rows(_url(installation), table) for name, table in metadata.tables.items()}
    # Such rows don't fit together, and the audit says so here as there.
    with pytest.raises(SourceWrong):
        await _move(installation, fresh_postgresql)
    moved = await _move(installation, fresh_postgresql, even_if_wrong=True)
    assert moved.rows == {name: len(rows) for name, rows in before.items()}
    for name, table in metadata.tables.items():
        assert await _rows(fresh_postgresql, table) == before[name], name
    await _goes_on(fresh_postgresql)


async def _goes_on(url: str) -> None:
    """The moved database takes what a new one takes, and refuses what it refuses."""
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT to_regnamespace($1)", SCHEMA) is None
        highest = await connection.fetchval("SELECT max(id) FROM ledger")
        with pytest.raises(asyncpg.PostgresError, match="never changed"):
            await connection.execute("UPDATE ledger SET amount = 0")
        async with _opened(url) as database, database.transaction() as transaction:
            user = await registration.register(
                transaction, username=f"user-{uuid7().hex}", password_hash="!", grant_credits=5
            )
            await ledger.grant(transaction, user.id, 5)
        assert await connection.fetchval("SELECT min(id) FROM ledger WHERE user_id = $1", user.id) == highest + 1
    finally:
        await connection.close()


async def _indexes_and_constraints(url: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch(
            "SELECT indexdef AS said FROM pg_indexes WHERE schemaname = 'public'"
            " UNION ALL SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace"
            " UNION ALL SELECT relname || coalesce(reloptions::text, '') FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace"
            " UNION ALL SELECT tgname || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
            " UNION ALL SELECT table_name || column_name || data_type || is_nullable || coalesce(column_default, '')"
            " FROM information_schema.columns WHERE table_schema = 'public'"
        )
        return sorted(row["said"] for row in found)
    finally:
        await connection.close()


async def test_the_tables_are_those_of_a_new_installation(
    installation: Installation, fresh_postgresql: str, postgresql_with_tables: str
) -> None:
    await _move(installation, fresh_postgresql)
    assert await _indexes_and_constraints(fresh_postgresql) == await _indexes_and_constraints(postgresql_with_tables)


async def test_what_is_queued_is_to_be_published_anew(installation: Installation, fresh_postgresql: str) -> None:
    queued, settled = await _predict(installation, 3, settled=False), await _predict(installation, 4, settled=True)
    await _move(installation, fresh_postgresql)
    async with _opened(fresh_postgresql) as database, database.snapshot() as connection:
        assert await audit(connection) == []
    rows = {row[0]: row for row in await _rows(fresh_postgresql, metadata.tables["predictions"])}
    published_at = list(metadata.tables["predictions"].columns.keys()).index("published_at")
    assert {each for each, row in rows.items() if row[published_at] is None} == set(queued)
    assert rows.keys() == {*queued, *settled}
    # Nobody goes on with the old one by mistake.
    with pytest.raises(HasMoved):
        installation.check_not_moved(_url(installation))
    installation.check_not_moved(fresh_postgresql)
    # Asked once more, it has nothing to do.
    assert (await _move(installation, fresh_postgresql)).rows == {}


async def test_a_target_with_rows_is_refused(
    installation: Installation, postgresql_with_tables: str, fresh_postgresql: str
) -> None:
    await _predict(installation, 1, settled=True)
    async with _opened(postgresql_with_tables) as database, database.transaction() as connection:
        await registration.register(connection, username="Ada", password_hash="!", grant_credits=5)
    with pytest.raises(TargetNotEmpty, match="users"):
        await _move(installation, postgresql_with_tables)
    assert not installation.moved_file.exists()
    missing = fresh_postgresql.replace("/foretell_test_", "/nowhere_")
    with pytest.raises(NoTarget, match="There is no database nowhere_") as caught:
        await _move(installation, missing)
    assert "Make it first" in caught.value.message


async def test_a_target_that_does_not_answer_is_no_move_begun(installation: Installation) -> None:
    with pytest.raises(TargetAway, match="Nothing was changed") as caught:
        await _move(installation, f"postgresql://ada:secret@127.0.0.1:{free_port()}/foretell")
    assert "secret" not in caught.value.message


async def test_a_target_that_is_lost_on_the_way_is_gone_on_with(
    installation: Installation, fresh_postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _predict(installation, 3, settled=True)

    async def lost(*_: object) -> None:
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    with monkeypatch.context() as patched:
        patched.setattr(Target, "switch", lost)
        with pytest.raises(MoveFailed, match="Run the command again"):
            await _move(installation, fresh_postgresql)
    assert not installation.moved_file.exists()
    assert (await _move(installation, fresh_postgresql)).earlier > 0


@pytest.mark.parametrize("url", ["mysql://x/y", "x", "sqlite:///other.db", "postgresql://a/b?nonsense=1"])
async def test_a_target_that_is_no_address_names_the_option(installation: Installation, url: str) -> None:
    with pytest.raises(Misconfigured, match=r"^--to ") as caught:
        await _move(installation, url)
    assert "sqlite" not in caught.value.message
    assert "DATABASE_URL" not in caught.value.message


async def test_a_target_of_another_encoding_is_refused(installation: Installation, fresh_postgresql: str) -> None:
    name = fresh_postgresql.rpartition("/")[2] + "_ascii"
    connection = await asyncpg.connect(fresh_postgresql)
    try:
        how = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        await connection.execute(f"CREATE DATABASE {name} {how}")
        try:
            with pytest.raises(WrongEncoding, match="SQL_ASCII"):
                await _move(installation, fresh_postgresql.rpartition("/")[0] + f"/{name}")
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()
    assert not installation.moved_file.exists()


async def test_what_moved_moves_nowhere_else(
    installation: Installation, fresh_postgresql: str, postgresql_with_tables: str
) -> None:
    await _move(installation, fresh_postgresql)
    before = installation.moved_file.read_text()
    with pytest.raises(HasMoved):
        await _move(installation, postgresql_with_tables)
    # Nor to the same place, if what was moved is not there.
    connection = await asyncpg.connect(fresh_postgresql)
    try:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    finally:
        await connection.close()
    with pytest.raises(HasMoved):
        await _move(installation, fresh_postgresql)
    assert installation.moved_file.read_text() == before
    installation.moved_file.unlink()
    assert (await _move(installation, postgresql_with_tables)).rows


async def test_empty_tables_of_a_start_are_no_matter(installation: Installation, postgresql_with_tables: str) -> None:
    ids = await _predict(installation, 2, settled=True)
    await _move(installation, postgresql_with_tables)
    assert len(await _rows(postgresql_with_tables, metadata.tables["predictions"])) == len(ids)


async def _moved_rows(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(f"SELECT coalesce(sum(rows), 0) FROM {SCHEMA}.moving_tables"))
    except asyncpg.UndefinedTableError:
        return 0
    finally:
        await connection.close()


async def test_a_move_that_is_killed_goes_on(installation: Installation, fresh_postgresql: str) -> None:
    await _predict(installation, 6_000, settled=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "foretell.cli", "migrate", "--to", fresh_postgresql],
        env={**environment, "FORETELL_DATA_DIR": str(installation.data_dir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and not await _moved_rows(fresh_postgresql):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    process.kill()
    await asyncio.to_thread(process.wait)
    assert process.returncode != 0, "it was done before it was killed"
    moved = await _move(installation, fresh_postgresql)
    assert moved.earlier > 0
    assert moved.rows["predictions"] == 6_000
    async with _opened(fresh_postgresql) as database, database.snapshot() as connection:
        assert await audit(connection) == []


async def test_a_change_between_two_tries_is_seen(installation: Installation, fresh_postgresql: str) -> None:
    """Half moved, given up, used on, and moved after all: the newest content comes, from its beginning."""
    await _predict(installation, 5, settled=True)

    def stop(doing: str, *_: int) -> None:
        if doing.startswith("Auditing PostgreSQL"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await _move(installation, fresh_postgresql, tell=stop)
    await _predict(installation, 5, settled=True)
    moved = await _move(installation, fresh_postgresql)
    assert (moved.earlier, moved.rows["predictions"]) == (0, 10)
