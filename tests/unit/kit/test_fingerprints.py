"""SQLite's sum of hashes: the same for the same texts, in any order, and for no others."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from foretell.kit.fingerprints import SqliteConnection

_TEXTS = ("a 1", "a 1", "b -2", "c 4", None)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", factory=SqliteConnection)) as connection:
        connection.execute("CREATE TABLE data (words TEXT)")
        yield connection


def _fingerprint(connection: sqlite3.Connection, texts: tuple[str | None, ...]) -> int:
    connection.execute("DELETE FROM data")
    connection.executemany("INSERT INTO data VALUES (?)", [(text,) for text in texts])
    (number,) = connection.execute("SELECT fingerprint(words) FROM data").fetchone() or (0,)
    assert isinstance(number, int)
    return number


def test_the_order_does_not_matter(connection: sqlite3.Connection) -> None:
    assert _fingerprint(connection, _TEXTS) == _fingerprint(connection, _TEXTS[::-1])


@pytest.mark.parametrize(
    "others", [_TEXTS[1:], ("a 1", "a 1", "b -2", "d 4"), ("a 1", "b -2", "b -2", "c 4"), ("a 1", "a -2", "b 1", "c 4")]
)
def test_other_texts_have_another_sum(connection: sqlite3.Connection, others: tuple[str | None, ...]) -> None:
    assert _fingerprint(connection, others) != _fingerprint(connection, _TEXTS)


def test_null_adds_nothing(connection: sqlite3.Connection) -> None:
    assert _fingerprint(connection, _TEXTS) == _fingerprint(connection, _TEXTS[:-1])
    assert _fingerprint(connection, (None,)) == 0


def test_a_long_sum_stays_a_64_bit_number(connection: sqlite3.Connection) -> None:
    number = _fingerprint(connection, tuple(map(str, range(10_000))))
    assert -(2**63) <= number < 2**63
