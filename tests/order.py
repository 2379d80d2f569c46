"""The order in which several processes (pytest-xdist) take the test files, so that the processors always have work.

Faults and the end-to-end tests wait most of the time and would all run at once by the order of names, with idle
processors; what takes long must not begin when the others end.
"""

from collections.abc import Sequence

import pytest

#: Folders whose tests mostly wait: for a fault to last and to end, for programs to start.
_WAITING = ("tests/e2e/", "tests/faults/")
#: Begun first, since by name they come last: the check of all types, and many starts of programs.
_FIRST = ("tests/unit/test_house.py", "tests/unit/local/test_engine.py")
#: The share of the other files beside which the waiting ones are begun: they take longer, and must have ended, too.
_BESIDE = 0.75


def in_order(files: Sequence[str]) -> list[str]:
    """These test files (paths as in pytest's identifiers) as they are to be begun."""
    first = [file for file in _FIRST if file in files]
    waiting = [file for file in files if file.startswith(_WAITING)]
    working = [file for file in files if file not in waiting and file not in first]
    # What precedes each waiting file: as many of the others, up to `_BESIDE` of them.
    places = [(_BESIDE * number * len(working) / max(1, len(waiting)), 0, file) for number, file in enumerate(waiting)]
    places += [(float(number), 1, file) for number, file in enumerate(working)]
    return first + [file for _, _, file in sorted(places)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests by file, in each of the processes alike; within a file they stay as they are."""
    if not hasattr(config, "workerinput"):
        return
    files = list(dict.fromkeys(_file(item) for item in items))
    places = {file: place for place, file in enumerate(in_order(files))}
    items.sort(key=lambda item: places[_file(item)])


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
