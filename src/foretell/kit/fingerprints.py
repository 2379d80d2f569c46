"""SQLite's `fingerprint(key, number)` and `fingerprint_of_sums(key, number)`: aggregates that tell whether two sets of
rows are the same, in any order, without sorting them.

`fingerprint` is the same for two sets with the same rows, if in one of them no key occurs twice.
`fingerprint_of_sums` is the same for two sets in which the numbers of each key add up to the same; a key whose numbers
add up to 0 counts as missing. Different sets have the same number with a chance of one in 2**60. Both leave out rows
with a NULL, and are NULL for no rows at all. Numbers may be added and compared modulo `MODULUS`, within one process:
each process has a key of its own for its hashes.
"""

import sqlite3
from typing import Any

#: A prime: with a power of two, differences between numbers that are multiples of one would often not be seen.
MODULUS = 2**61 - 1
#: Added to the number of each row, so that a row with a 0 counts, and two rows are not mistaken for one.
_OF_A_ROW = hash("one row of a set")


class _Fingerprint:
    """Python's hashes of the keys, each times its number, added up."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, key: object, number: object = None, /) -> None:
        if key is not None and number is not None:
            # Somebody may have written a text or a fraction into a column of integers.
            self._sum += hash(key) * (_OF_A_ROW + (number if type(number) is int else hash(number)))

    def finalize(self) -> int:
        return self._sum % MODULUS


class _FingerprintOfSums:
    """The same without the constant: a sum of its own for each key, in one number."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, key: object, number: object = None, /) -> None:
        if key is not None and number is not None:
            self._sum += hash(key) * (number if type(number) is int else hash(number))

    def finalize(self) -> int:
        return self._sum % MODULUS


class SqliteConnection(sqlite3.Connection):
    """A connection that has the aggregates."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.create_aggregate("fingerprint", 2, _Fingerprint)
        self.create_aggregate("fingerprint_of_sums", 2, _FingerprintOfSums)
