"""How often the sender looks at the database."""

import pytest

from foretell.services.dispatcher.notifying.sender import apart_s


@pytest.mark.parametrize(("look_s", "expected"), [(0.0, 0.05), (0.01, 0.05), (0.016, 0.08), (0.02, 0.1), (3.0, 0.1)])
def test_looks_are_further_apart_where_they_take_long_but_not_much(look_s: float, expected: float) -> None:
    assert apart_s(look_s) == pytest.approx(expected)
