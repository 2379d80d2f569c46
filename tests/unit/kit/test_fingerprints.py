"""SQLite's fingerprints: the same for the same rows, in any order, and for no others."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from foretell.kit.fingerprints import MODULUS, SqliteConnection

Rows = tuple[tuple[object, object], ...]
_ROWS: Rows = (("a", 1), ("b", -2), ("c", 4), ("d", 0), ("e", 2**62))


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", factory=SqliteConnection)) as connection:
        connection.execute("CREATE TABLE data (key, number)")
        yield connection


def _made(connection: sqlite3.Connection, aggregate: str, rows: Rows) -> int | None:
    connection.execute("DELETE FROM data")
    connection.executemany("INSERT INTO data VALUES (?, ?)", rows)
    ((number,),) = connection.execute(f"SELECT {aggregate}(key, number) FROM data").fetchall()
    assert number is None or 0 <= number < MODULUS
    return None if number is None else int(number)


@pytest.mark.parametrize("aggregate", ["fingerprint", "fingerprint_of_sums"])
def test_the_order_does_not_matter(connection: sqlite3.Connection, aggregate: str) -> None:
    assert _made(connection, aggregate, _ROWS) == _made(connection, aggregate, _ROWS[::-1])


@pytest.mark.parametrize("aggregate", ["fingerprint", "fingerprint_of_sums"])
@pytest.mark.parametrize(
    "others",
    [
        _ROWS[1:],
        (("x", 1), *_ROWS[1:]),
        (("a", 3), *_ROWS[1:]),
        # What is the same: the sum of all numbers, and the keys.
        (("a", -2), ("b", 1), *_ROWS[2:]),
        (("a", 1.5), *_ROWS[1:]),
        (("a", "1"), *_ROWS[1:]),
        (("a", None), *_ROWS[1:]),
        ((None, 1), *_ROWS[1:]),
    ],
)
def test_other_rows_have_another_number(connection: sqlite3.Connection, aggregate: str, others: Rows) -> None:
    assert _made(connection, aggregate, others) != _made(connection, aggregate, _ROWS)


def test_a_row_counts_whatever_its_number_is(connection: sqlite3.Connection) -> None:
    whole = _made(connection, "fingerprint", _ROWS)
    for others in ((*_ROWS[:3], *_ROWS[4:]), (*_ROWS, ("f", 0)), (*_ROWS, ("a", 0)), (*_ROWS, ("a", -1), ("a", 1))):
        assert _made(connection, "fingerprint", others) != whole


def test_the_sums_of_keys_count_and_not_the_rows(connection: sqlite3.Connection) -> None:
    whole = _made(connection, "fingerprint_of_sums", _ROWS)
    divided = (("a", 3), ("a", -2), ("b", -1), ("b", -1), *_ROWS[2:], ("f", 5), ("f", -5))
    assert _made(connection, "fingerprint_of_sums", divided) == whole
    assert _made(connection, "fingerprint_of_sums", (*divided, ("f", 1))) != whole


@pytest.mark.parametrize("aggregate", ["fingerprint", "fingerprint_of_sums"])
def test_null_adds_nothing(connection: sqlite3.Connection, aggregate: str) -> None:
    whole = _made(connection, aggregate, _ROWS)
    assert _made(connection, aggregate, (*_ROWS, (None, 1), ("a", None))) == whole
    assert _made(connection, aggregate, ((None, 1),)) == 0
    assert _made(connection, aggregate, ()) is None
