"""Each test runs with the blocking and with the asynchronous client."""

import pytest
from tests.unit.client.scripted import InOneWay


@pytest.fixture(params=[False, True], ids=["blocking", "async"])
def call(request: pytest.FixtureRequest) -> InOneWay:
    return InOneWay(request.param)
