"""Which processes run, and where they listen."""

import pytest
from tests.ports import free_port

from foretell.local.planning import Planning, PortTwice
from foretell.local.services import Service

TABLE = [Service("app", "app", port=8000), Service("model", "model", port=8001), Service("worker", "worker")]


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"FORETELL_APP_PORT": "8001"}, "FORETELL_APP_PORT"),
        ({"FORETELL_MODEL_PORT": "8000"}, "FORETELL_MODEL_PORT"),
        ({"FORETELL_APP_PORT": "9000", "FORETELL_MODEL_PORT": "9000"}, "FORETELL_APP_PORT"),
    ],
)
def test_two_services_with_one_port_are_noticed_before_anything_is_started(
    settings: dict[str, str], variable: str
) -> None:
    with pytest.raises(PortTwice, match=rf"app and model would both listen on port \d+\. Set {variable} to"):
        Planning(TABLE, settings).programs(TABLE, None)


def test_each_service_has_a_port_of_its_own() -> None:
    app, model = free_port(), free_port()
    settings = {"FORETELL_APP_PORT": str(app), "FORETELL_MODEL_PORT": str(model)}
    programs = Planning(TABLE, settings).programs(TABLE, None)
    assert [program.port for program in programs][:2] == [app, model]
    assert len({program.port for program in programs}) == 3
