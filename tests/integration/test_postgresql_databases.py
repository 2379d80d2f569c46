"""Databases that tests use one after the other: each test finds what the first one found, or another database."""

from collections.abc import Iterator

import asyncpg
import pytest
from tests.asides import run_aside
from tests.postgresql_databases import DatabasePool, postgresql_template

_TABLES = """
CREATE TABLE kept (id int PRIMARY KEY);
INSERT INTO kept VALUES (1);
CREATE TABLE words (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text NOT NULL);
CREATE TABLE letters (word_id bigint NOT NULL REFERENCES words, letter text NOT NULL);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'nobody deletes words'; END $$;
CREATE TRIGGER words_stay BEFORE DELETE ON words FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_ROWS = "INSERT INTO words (word) VALUES ('a'), ('b'); INSERT INTO letters SELECT id, word FROM words"


async def _do(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _count(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetchrow("SELECT (SELECT count(*) FROM words), (SELECT count(*) FROM letters)"))
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def template(postgresql_url: str) -> Iterator[str]:
    with postgresql_template(postgresql_url, lambda url: _do(url, _TABLES)) as name:
        yield name


@pytest.fixture
def pool(postgresql_url: str, template: str) -> Iterator[DatabasePool]:
    pool = DatabasePool(postgresql_url, template)
    yield pool
    pool.close()


def used(pool: DatabasePool, *statements: str) -> str:
    """Use a database of the pool once; returns its URL."""
    with pool.database() as url:
        assert run_aside(_count(url)) == [0, 0]
        run_aside(_do(url, *statements))
    return url


def test_rows_are_gone_and_numbers_begin_anew(pool: DatabasePool) -> None:
    first = used(pool, _ROWS)
    # Where the first number is another one, the reference fails.
    assert used(pool, "INSERT INTO words (word) VALUES ('c')", "INSERT INTO letters VALUES (1, 'c')") == first
    assert used(pool) == first


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE words DISABLE TRIGGER words_stay",
        "ALTER TABLE words ADD COLUMN language text",
        "ALTER TABLE words SET (fillfactor = 50)",
        "DROP TABLE letters",
        "CREATE INDEX by_word ON words (word)",
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
        "INSERT INTO kept VALUES (2)",
        "UPDATE kept SET id = 3",
        f"{_ROWS}; ANALYZE words",
        "INSERT INTO words (word) SELECT repeat('x', 1000) FROM generate_series(1, 10000)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET enable_seqscan = off', current_database()); END $$",
    ],
)
def test_whoever_changes_more_than_rows_was_the_last(pool: DatabasePool, change: str) -> None:
    changed = used(pool, change)
    assert used(pool) != changed


def test_two_at_once_have_one_each(pool: DatabasePool) -> None:
    with pool.database() as one, pool.database() as other:
        assert one != other
        run_aside(_do(one, _ROWS))
        assert run_aside(_count(other)) == [0, 0]


async def test_who_is_still_connected_is_so_no_longer(pool: DatabasePool) -> None:
    with pool.database() as url:
        writing = await asyncpg.connect(url)
        await writing.execute(f"BEGIN; {_ROWS}")
    assert used(pool) == url
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError)):
        await writing.execute("COMMIT")
    writing.terminate()
