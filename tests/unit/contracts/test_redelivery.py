"""What may be sent once more."""

import pytest
from pydantic import ValidationError

from foretell.contracts.http import Redelivery


def test_a_sequence_of_null_is_none_given() -> None:
    assert Redelivery.model_validate({"sequence": None}).sequence is None
    assert Redelivery.model_validate({"sequence": 7}).sequence == 7


@pytest.mark.parametrize("sequence", [0, -1, 2**63, 1.5, "seven"])
def test_a_sequence_has_bounds(sequence: object) -> None:
    with pytest.raises(ValidationError):
        Redelivery.model_validate({"sequence": sequence})


def test_the_page_says_them() -> None:
    assert Redelivery.model_json_schema()["properties"]["sequence"]["minimum"] == 1
