"""Compares two outputs of a model."""

import math
from typing import Any

#: Models compute in single precision and round: the last digit may differ between a single row and a batch.
_RELATIVE = 1e-4
_ABSOLUTE = 1.01e-4


def differs(expected: Any, found: Any, where: str = "", *, tolerance: float = 0.0) -> str | None:
    """The first difference between two outputs, ignoring the last digit of numbers; None if there is none.

    Numbers that are not whole may also differ by `tolerance`.
    """
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        parts = [(f"{where}.{key}" if where else str(key), expected[key], found[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = [(f"{where}[{place}]", *pair) for place, pair in enumerate(zip(expected, found, strict=True))]
    else:
        numbers = _is_number(expected) and _is_number(found)
        # In Python 1 == True; in JSON they differ.
        same = _close(expected, found, tolerance) if numbers else type(expected) is type(found) and expected == found
        return None if same else f"{where or 'the output'} is {found}, not {expected}"
    found_first = (differs(one, other, path, tolerance=tolerance) for path, one, other in parts)
    return next((difference for difference in found_first if difference), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _close(one: float, other: float, tolerance: float) -> bool:
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=max(_ABSOLUTE, tolerance))
