"""SQLite's `fingerprint(text)`: an aggregate that tells whether two sets of texts are the same, in any order.

It is the sum, modulo 2**64 and with a sign, of Python's hashes of the texts; NULL is left out, and no text has the sum
0. Two sets with the same number of texts but with different ones have the same sum with a chance of one in 2**64. Only
numbers of one process can be compared: each has a key of its own for its hashes.
"""

import sqlite3
from typing import Any

_HALF = 2**63


class _Fingerprint:
    def __init__(self) -> None:
        self._sum = 0

    # One text, not several values: Python hashes a tuple so that sums are often the same after two rows have exchanged
    # a value.
    def step(self, words: object, /) -> None:
        if words is not None:
            self._sum += hash(words)

    def finalize(self) -> int:
        return (self._sum + _HALF) % (2 * _HALF) - _HALF


class SqliteConnection(sqlite3.Connection):
    """A connection that has the aggregate."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.create_aggregate("fingerprint", 1, _Fingerprint)
