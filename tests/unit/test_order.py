"""The order in which test files are begun."""

import itertools

from tests import order

_FAULTS = [f"tests/faults/test_{number}.py" for number in range(4)]
_UNITS = [f"tests/unit/kit/test_{number:02}.py" for number in range(40)]


def test_every_file_is_begun_once() -> None:
    files = [*_FAULTS, *_UNITS, "tests/unit/test_house.py"]
    assert sorted(order.in_order(files)) == sorted(files)
    assert order.in_order(_FAULTS) == _FAULTS
    assert order.in_order(_UNITS) == _UNITS
    assert order.in_order([]) == []


def test_those_that_wait_are_begun_beside_others_and_never_last() -> None:
    begun = order.in_order([*_FAULTS, *_UNITS])
    places = [begun.index(file) for file in _FAULTS]
    between = [after - before for before, after in itertools.pairwise(places)]
    assert places[0] == 0
    assert min(between) > 1
    assert max(between) - min(between) <= 1
    assert places[-1] < 0.75 * len(begun)
    assert [file for file in begun if file in _UNITS] == _UNITS


def test_the_longest_are_begun_first() -> None:
    begun = order.in_order([*_FAULTS, *_UNITS, "tests/unit/local/test_engine.py", "tests/unit/test_house.py"])
    assert begun[:2] == ["tests/unit/test_house.py", "tests/unit/local/test_engine.py"]
